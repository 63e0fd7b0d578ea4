"""Counts of what quotas bound; inside a transaction of the caller.

One row per quota and window says how many were taken, so that a check costs the same whatever the
limit. Beside it is one row per taker, by which it is given back.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.quotas import Quota, merged
from est_server.stores.rules.values import from_column, to_column
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
        row = db.execute(
            "SELECT taken FROM quota_counts WHERE name = ? AND length = ? AND start = ?",
            (quota.name, length, start),
        ).fetchone()
        if row is not None and row[0] >= quota.limit:
            raise _exceeded(quota, start + length, now)


def take(db: Transaction, quotas: Iterable[Quota], issuance: int, now: datetime) -> None:
    """Take every one of ``quotas`` once, in the name of an attempt.

    :raises RequestRefused: ``QUOTA_EXCEEDED``.
    """
    for quota in merged(quotas):
        length, start = _count(db, quota, now)
        db.execute(
            "INSERT INTO quota_uses (issuance, name, length, start) VALUES (?, ?, ?, ?)",
            (issuance, quota.name, length, start),
        )


def take_for_good(db: Transaction, quotas: Iterable[Quota], now: datetime) -> None:
    """Take every one of ``quotas`` once; it is never given back.

    :raises RequestRefused: ``QUOTA_EXCEEDED``.
    """
    for quota in merged(quotas):
        _count(db, quota, now)


def give_back(db: Transaction, issuance: int) -> None:
    """Give back what an attempt took whose claim is given up."""
    rows = db.execute(
        "DELETE FROM quota_uses WHERE issuance = ? RETURNING name, length, start", (issuance,)
    ).fetchall()
    for row in rows:
        db.execute(
            "UPDATE quota_counts SET taken = taken - 1 WHERE name = ? AND length = ? AND start = ?",
            row,
        )


def _count(db: Transaction, quota: Quota, now: datetime) -> tuple[int, int]:
    """Count one more, if there may be one; the window in which it counts."""
    length, start = _window(quota, now)
    row = db.execute(
        "INSERT INTO quota_counts (name, length, start, taken) VALUES (?, ?, ?, 1) "
        "ON CONFLICT (name, length, start) DO UPDATE SET taken = quota_counts.taken + 1 "
        "WHERE quota_counts.taken < ? RETURNING taken",
        (quota.name, length, start, quota.limit),
    ).fetchone()
    if row is None:
        raise _exceeded(quota, start + length, now)
    if row[0] % _FORGET_EVERY == 1 and length:
        # The last window but one stays: the clocks of two machines may not agree.
        _forget_before(db, quota.name, length, start - length)
    return length, start


def _forget_before(db: Transaction, name: str, length: int, start: int) -> None:
    """Remove some of what counted in windows that are over; a window may have had a million."""
    db.execute(
        "DELETE FROM quota_uses WHERE name = ? AND length = ? AND issuance IN (SELECT issuance "
        "FROM quota_uses WHERE name = ? AND length = ? AND start < ? LIMIT ?)",
        (name, length, name, length, start, _FORGOTTEN_AT_ONCE),
    )
    db.execute(
        "DELETE FROM quota_counts WHERE name = ? AND length = ? AND start < ?",
        (name, length, start),
    )


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
