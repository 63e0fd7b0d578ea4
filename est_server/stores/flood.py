"""Which refusals are left out of the journal, so that a flood of them pushes nothing out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

_WINDOW = timedelta(minutes=1)


@dataclass(slots=True)
class Flood:
    """Counts refusals by the minute.

    :param most: how many go into the journal in a minute.
    """

    most: int
    _since: datetime = field(default=datetime.min.replace(tzinfo=UTC))
    _count: int = 0
    _left_out: int = 0

    def left_out(self, now: datetime) -> int | None:
        """``None`` if this refusal is left out; else how many were before it."""
        if not timedelta() <= now - self._since < _WINDOW:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > self.most:
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        return left_out
