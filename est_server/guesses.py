"""How often a secret may be guessed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from est_protocol.errors import RefusalReason, RequestRefused


@dataclass(frozen=True, slots=True)
class GuessLimits:
    """Bounds of wrong guesses, which the worker processes of one server share: each takes an equal
    part, rounded up. Several servers over one store count each for themselves.

    :param per_user: wrong secrets of one user name within ``window``, under whatever label.
    :param per_address: wrong secrets from one address within ``window``.
    :param window: after which wrong guesses are forgotten.
    :param remembered: names and addresses that are counted at one time; the oldest go.
    """

    per_user: int = 10
    per_address: int = 30
    window: timedelta = timedelta(minutes=5)
    remembered: int = 10_000

    def shared_by(self, processes: int) -> Self:
        """The part of one of ``processes``: the kernel may give each the same peer's connections,
        and they do not know of one another's."""
        return replace(
            self,
            per_user=-(-self.per_user // processes),
            per_address=-(-self.per_address // processes),
        )


class GuessCounter:
    """Counts wrong guesses, and those under way as if they were wrong.

    A right one is taken back at its end, so that many at one time do not slip through.
    """

    def __init__(self, limits: GuessLimits) -> None:
        self._limits = limits
        self._counts: OrderedDict[Hashable, tuple[datetime, int]] = OrderedDict()

    def begin(self, user: Hashable, address: str, now: datetime) -> None:
        """Count a guess as wrong.

        :raises RequestRefused: there were too many; it must not be tried.
        """
        keys = (("user", user), self._limits.per_user), (("at", address), self._limits.per_address)
        for key, limit in keys:
            since, count = self._count(key, now)
            if count >= limit:
                left = since + self._limits.window - now
                raise RequestRefused(
                    RefusalReason.TOO_MANY_ATTEMPTS,
                    "there were too many wrong credentials; try again later",
                    detail=f"{key[0]} {key[1]!r}: {count} within {self._limits.window}",
                    retry_after=max(1, int(left.total_seconds())),
                )
        for key, _ in keys:
            since, count = self._count(key, now)
            self._counts[key] = since, count + 1
            self._counts.move_to_end(key)
        while len(self._counts) > self._limits.remembered:
            self._counts.popitem(last=False)

    def was_right(self, user: Hashable, address: str, now: datetime) -> None:
        """Take a guess back."""
        for key in (("user", user), ("at", address)):
            since, count = self._count(key, now)
            if count > 1:
                self._counts[key] = since, count - 1
            else:
                self._counts.pop(key, None)

    def _count(self, key: Hashable, now: datetime) -> tuple[datetime, int]:
        since, count = self._counts.get(key, (now, 0))
        return (now, 0) if now - since >= self._limits.window else (since, count)
