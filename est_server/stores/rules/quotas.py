"""Counts of what quotas bound; inside a transaction of the caller.

One row per quota and window says how many were taken, so that a check costs the same whatever the
limit. Beside it is one row per taker, by which it is given back. Both are sealed, and that a count
is missing shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.quotas import Quota, merged
from est_server.stores.rules.chained_rows import QUOTA_COUNTS, place
from est_server.stores.rules.values import from_column, to_column
from est_server.stores.seals import tampered
from est_server.stores.transaction import Transaction

#: Seconds; what Max-Age of CoAP can say.
_LONGEST_WAIT = 2**31 - 1

_MICROSECOND = timedelta(microseconds=1)

#: Once in so many that are taken, so many uses in old windows go at most: more than come meanwhile.
_FORGET_EVERY = 16
_FORGOTTEN_AT_ONCE = 64


def require_left(db: Transaction, quotas: Iterable[Quota], now: datetime) -> None:
    """Check that every one of ``quotas`` can be taken once more.

    :raises RequestRefused: ``QUOTA_EXCEEDED``.
    """
    for quota in merged(quotas):
        length, start = _window(quota, now)
        if (_taken(db, quota.name, length, start) or 0) >= quota.limit:
            raise _exceeded(quota, start + length, now)


def take(db: Transaction, quotas: Iterable[Quota], issuance: int, now: datetime) -> None:
    """Take every one of ``quotas`` once, in the name of an attempt.

    :raises RequestRefused: ``QUOTA_EXCEEDED``.
    """
    for quota in merged(quotas):
        length, start = _count(db, quota, now)
        use = (issuance, quota.name, length, start)
        db.execute(
            "INSERT INTO quota_uses (issuance, name, length, start, mac) VALUES (?, ?, ?, ?, ?)",
            (*use, db.seals.row("quota_uses", *use)),
        )


def take_for_good(db: Transaction, quotas: Iterable[Quota], now: datetime) -> None:
    """Take every one of ``quotas`` once; it is never given back.

    :raises RequestRefused: ``QUOTA_EXCEEDED``.
    """
    for quota in merged(quotas):
        _count(db, quota, now)


def give_back(db: Transaction, issuance: int) -> None:
    """Give back what an attempt took whose claim is given up.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    rows = db.execute(
        "SELECT issuance, name, length, start, mac FROM quota_uses WHERE issuance = ?", (issuance,)
    ).fetchall()
    for *use, mac in rows:
        if not db.seals.fits(db.seals.row("quota_uses", *use), mac):
            raise tampered(f"issuance {issuance} has taken a quota that no server gave it")
        name, length, start = use[1:]
        taken = _taken(db, name, length, start)
        # Without a count its window is long over.
        if taken is not None:
            _write(db, name, length, start, taken - 1)
    db.execute("DELETE FROM quota_uses WHERE issuance = ?", (issuance,))


def _count(db: Transaction, quota: Quota, now: datetime) -> tuple[int, int]:
    """Count one more, if there may be one; the window in which it counts."""
    length, start = _window(quota, now)
    taken = _taken(db, quota.name, length, start)
    if (taken or 0) >= quota.limit:
        raise _exceeded(quota, start + length, now)
    if (taken or 0) % _FORGET_EVERY == 0 and length:
        # The last window but one stays: the clocks of two machines may not agree.
        _forget_before(db, quota.name, length, start - length)
    _write(db, quota.name, length, start, (taken or 0) + 1)
    return length, start


def _taken(db: Transaction, name: str, length: int, start: int) -> int | None:
    """How many were taken; ``None`` if there is no count yet.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    row = db.execute(
        "SELECT name, length, start, taken FROM quota_counts "
        "WHERE name = ? AND length = ? AND start = ?",
        (name, length, start),
    ).fetchone()
    found = None if row is None else tuple(row)
    QUOTA_COUNTS.require(db, place(name, length, start), found)
    return None if found is None else int(found[-1])


def _write(db: Transaction, name: str, length: int, start: int, taken: int) -> None:
    db.execute(
        "INSERT INTO quota_counts (name, length, start, taken) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name, length, start) DO UPDATE SET taken = excluded.taken",
        (name, length, start, taken),
    )
    QUOTA_COUNTS.put(db, place(name, length, start), (name, length, start, taken))


def _forget_before(db: Transaction, name: str, length: int, start: int) -> None:
    """Remove some of what counted in windows that are over; a window may have had a million."""
    db.execute(
        "DELETE FROM quota_uses WHERE name = ? AND length = ? AND issuance IN (SELECT issuance "
        "FROM quota_uses WHERE name = ? AND length = ? AND start < ? LIMIT ?)",
        (name, length, name, length, start, _FORGOTTEN_AT_ONCE),
    )
    rows = db.execute(
        "SELECT start FROM quota_counts WHERE name = ? AND length = ? AND start < ?",
        (name, length, start),
    ).fetchall()
    for (before,) in rows:
        _taken(db, name, length, before)
        db.execute(
            "DELETE FROM quota_counts WHERE name = ? AND length = ? AND start = ?",
            (name, length, before),
        )
        QUOTA_COUNTS.remove(db, place(name, length, before))


def _window(quota: Quota, now: datetime) -> tuple[int, int]:
    """Length and start of the present window; 0 and 0 where there is but one."""
    if quota.window is None:
        return 0, 0
    length = quota.window // _MICROSECOND
    return length, to_column(now) // length * length


def _exceeded(quota: Quota, end: int, now: datetime) -> RequestRefused:
    if quota.window is None:
        wait, bound = None, f"{quota.limit}"
    else:
        wait = min(int((from_column(end) - now).total_seconds()) + 1, _LONGEST_WAIT)
        bound = f"{quota.limit} in {quota.window}"
    return RequestRefused(
        RefusalReason.QUOTA_EXCEEDED,
        "no more devices are enrolled here" + (" for now" if wait else ""),
        detail=f"quota {quota.name!r} of {bound} is used up",
        retry_after=wait,
    )
