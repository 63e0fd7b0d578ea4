"""How many first enrollments there may be: values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from urllib.parse import quote

#: Stands in :class:`DeviceQuotas` for all that are not named.
EVERYONE_ELSE = "*"


@dataclass(frozen=True, slots=True)
class Quota:
    """A bound on how many times something is taken, counted exactly in the ledger.

    :param name: what is counted; quotas with the same name and window share one count.
    :param limit: how many there may be.
    :param window: in how long; windows follow one another without a gap, from midnight UTC of
        1970-01-01 on, so that those of ``1d`` begin at midnight. ``None``: ever.
    """

    name: str
    limit: int
    window: timedelta | None = None

    def __post_init__(self) -> None:
        _check(self.limit, self.window)


@dataclass(frozen=True, slots=True)
class QuotaBound:
    """How many there may be.

    :param limit: how many devices may make their first enrollment.
    :param window: in how long; windows follow one another, those of ``1d`` from midnight UTC.
        Without it, ever.
    """

    limit: int
    window: timedelta | None = None

    def __post_init__(self) -> None:
        _check(self.limit, self.window)

    def named(self, name: str) -> Quota:
        """The bound on what is counted under ``name``."""
        return Quota(name, self.limit, self.window)


@dataclass(frozen=True, slots=True)
class DeviceQuotas:
    """How many devices may make their first enrollment under a label. The key ``"*"`` is for all
    that are not named, each with a count of its own.

    A device counts from its first enrollment on, and not any more once it was reset or
    transferred; then it counts for its new owner.

    :param owners: by owner.
    :param lists: by the id of the device list that the device came with.
    """

    owners: Mapping[str, QuotaBound] = field(default_factory=dict)
    lists: Mapping[str, QuotaBound] = field(default_factory=dict)

    def of_device(
        self, label: str | None, owner: str | None, list_id: str | None
    ) -> tuple[Quota, ...]:
        """What one device counts against."""
        found = []
        for kind, bounds, who in (
            ("owner", self.owners, owner or ""),
            ("list", self.lists, list_id or ""),
        ):
            bound = bounds.get(who, bounds.get(EVERYONE_ELSE))
            if bound is not None:
                found.append(bound.named(quota_name(kind, who, label)))
        return tuple(found)


def quota_name(kind: str, who: str, label: str | None) -> str:
    """The name of what is counted for one owner, list or manufacturer under one label."""
    return f"{kind}:{quote(who, safe='')}@{quote(label or '', safe='')}"


def _check(limit: int, window: timedelta | None) -> None:
    if limit < 1:
        raise ValueError(f"a quota of {limit} is not greater than zero")
    if window is not None and window < timedelta(seconds=1):
        raise ValueError("the window of a quota is a second at least")


def merged(quotas: Iterable[Quota]) -> tuple[Quota, ...]:
    """The same bounds with each count once: of those that share one, the strictest."""
    strictest: dict[tuple[str, timedelta | None], Quota] = {}
    for quota in quotas:
        known = strictest.setdefault((quota.name, quota.window), quota)
        strictest[quota.name, quota.window] = replace(quota, limit=min(quota.limit, known.limit))
    return tuple(strictest.values())
