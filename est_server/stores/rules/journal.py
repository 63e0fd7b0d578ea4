"""The journal's rules, each function inside a transaction that its caller began.

An entry is written in the transaction of what it tells of: both are there, or neither is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from est_server.journal import (
    BEGINNING,
    Chain,
    Entry,
    Event,
    JournalBroken,
    details_text,
    entry_hash,
)
from est_server.stores.rules.values import Row, is_storable, to_column
from est_server.stores.seals import Seals, tampered
from est_server.stores.transaction import Transaction

_NAMES = (
    "number",
    "happened_at",
    "event",
    "device",
    "label",
    "serial",
    "reference",
    "details",
    "hash",
    "mac",
)
_COLUMNS = ", ".join(_NAMES)

#: An entry, and what it follows: another one, or the checkpoint. In one statement, since between
#: two of a reader's somebody may remove what is old.
_PAGE = (
    f"SELECT {', '.join(f'j.{name}' for name in _NAMES)}, p.hash, c.number, c.hash, c.mac "
    "FROM journal j LEFT JOIN journal p ON p.number = j.number - 1 "
    "LEFT JOIN journal_checkpoint c ON c.number = j.number - 1"
)

#: Once in so many issuances and refusals, so many entries go at most: more than come meanwhile.
PRUNE_EVERY = 64
_PRUNED_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the journal is kept.

    :param entries: how many at most.
    :param age: for how long; ``None``: as long as there is room.
    """

    entries: int
    age: timedelta | None


@dataclass(frozen=True, slots=True)
class Query:
    """Which entries are asked for; all that is given has to fit."""

    device: str | None = None
    label: str | None = None
    serial: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def append(
    db: Transaction,
    event: Event,
    now: datetime,
    /,
    *,
    device: str | None = None,
    label: str | None = None,
    serial: str | None = None,
    reference: int | None = None,
    **details: str | int | None,
) -> None:
    """Write an entry; parameters as for :class:`~est_server.journal.Entry`.

    :raises RequestRefused: ``RECORD_TAMPERED``: the latest entry has no good seal.
    """
    append_after(
        db,
        head(db),
        event,
        now,
        device=device,
        label=label,
        serial=serial,
        reference=reference,
        **details,
    )


def append_after(
    db: Transaction,
    before: Chain,
    event: Event,
    now: datetime,
    /,
    *,
    device: str | None = None,
    label: str | None = None,
    serial: str | None = None,
    reference: int | None = None,
    **details: str | int | None,
) -> None:
    """Write the entry that comes after ``before``; see :func:`append`."""
    number, when = before.number + 1, to_column(now)
    text = details_text(details)
    code = entry_hash(before.hash, number, when, event, device, label, serial, reference, text)
    db.journal_head = Chain(number, code)
    db.execute(
        f"INSERT INTO journal ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            when,
            event.value,
            device,
            label,
            serial,
            reference,
            text,
            code,
            db.seals.entry(code),
        ),
    )


def head(db: Transaction) -> Chain:
    """The latest entry, after which the next one comes.

    :raises RequestRefused: ``RECORD_TAMPERED``: it has no good seal, or is missing.
    """
    if db.journal_head is not None:
        return db.journal_head
    row = db.execute(
        "SELECT number, hash, mac FROM journal ORDER BY number DESC LIMIT 1"
    ).fetchone()
    if row is None:
        if db.seals.is_keyed:
            # Its first entry is made with the key's first use, and its latest is never removed.
            raise tampered("the journal is gone")
        return checkpoint(db)
    number, code, mac = row
    if not db.seals.fits(db.seals.entry(code), mac):
        raise tampered(f"entry {number} of the journal is not what a server wrote")
    return Chain(number, code)


def checkpoint(db: Transaction, seals: Seals | None = None) -> Chain:
    """The last entry that was removed for its age; the very beginning if none was.

    :param seals: what it is sealed with, if not with what the transaction has.

    :raises RequestRefused: ``RECORD_TAMPERED``: somebody else says so.
    """
    row = db.execute("SELECT number, hash, mac FROM journal_checkpoint").fetchone()
    return Chain(0, BEGINNING) if row is None else _checkpoint(seals or db.seals, row)


def _checkpoint(seals: Seals, row: Row) -> Chain:
    number, code, mac = row
    if not seals.fits(seals.row("journal_checkpoint", number, code), mac):
        raise tampered("the journal's checkpoint is not what a server wrote")
    return Chain(number, code)


def entries(db: Transaction, query: Query, after: int, size: int) -> list[Entry]:
    """The next ``size`` entries after number ``after``.

    :raises RequestRefused: ``RECORD_TAMPERED``: one of them is not what was written after the one
        before it.
    """
    found: list[Entry] = []
    for row in _rows(db, query, after, size):
        entry = Entry(*row[: len(_NAMES)])
        chain = _before(db.seals, entry, *row[len(_NAMES) :])
        try:
            found.extend(chained(db.seals, chain, [entry]))
        except JournalBroken as broken:
            raise tampered(f"the journal: {broken}") from broken
    return found


def unchecked(db: Transaction, after: int, size: int) -> list[Entry]:
    """The same of all entries, whatever they are."""
    return [Entry(*row[: len(_NAMES)]) for row in _rows(db, Query(), after, size)]


def _before(seals: Seals, entry: Entry, before: bytes | None, *removed: Any) -> Chain:
    if before is not None:
        return Chain(entry.number - 1, before)
    if removed[0] is None:
        return Chain(0, BEGINNING)
    return _checkpoint(seals, removed)


def _rows(db: Transaction, query: Query, after: int, size: int) -> list[Row]:
    if not all(is_storable(text or "") for text in (query.device, query.label, query.serial)):
        return []
    conditions = {
        "j.device = ?": query.device,
        "j.label = ?": query.label,
        "j.serial = ?": query.serial,
        "j.happened_at >= ?": None if query.since is None else to_column(query.since),
        "j.happened_at < ?": None if query.until is None else to_column(query.until),
    }
    asked = {sql: value for sql, value in conditions.items() if value is not None}
    return db.execute(
        f"{_PAGE} WHERE {' AND '.join([*asked, 'j.number > ?'])} ORDER BY j.number LIMIT ?",
        (*asked.values(), after, size),
    ).fetchall()


def chained(seals: Seals, chain: Chain, page: list[Entry]) -> Iterator[Entry]:
    """The entries of a page once each is known to follow the one before and to be sealed.

    :raises JournalBroken: one does not follow.
    :raises RequestRefused: ``RECORD_TAMPERED``: one is not sealed.
    """
    for found in page:
        chain.follow(found)
        if not seals.fits(seals.entry(found.hash), found.mac):
            raise tampered(f"entry {found.number} of the journal is not what a server wrote")
        yield found


def require_no_claim(db: Transaction, device: str, label: str) -> None:
    """Require that the journal knows of no claim, where the claims have none.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    claimed = db.execute(
        "SELECT number, reference FROM journal WHERE device = ? AND label = ? "
        "AND event = 'claimed' ORDER BY number DESC LIMIT 1",
        (device, label),
    ).fetchone()
    if claimed is None:
        return
    given_back = db.execute(
        "SELECT 1 FROM journal WHERE device = ? AND number > ? AND reference = ? "
        "AND event IN ('abandoned', 'released') LIMIT 1",
        (device, *claimed),
    ).fetchone()
    if given_back is None:
        raise tampered(f"the claim that issuance {claimed[1]} took is gone", device=device)


def require_latest_issued(db: Transaction, device: str, label: str, sha256: bytes) -> None:
    """Require that the journal knows of no certificate that was issued after this active one.

    An entry that was removed for its age is older than those that are there, so one that is missing
    says nothing.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    issued = db.execute(
        "SELECT reference, details FROM journal WHERE device = ? AND label = ? "
        "AND event = 'issued' ORDER BY number DESC LIMIT 1",
        (device, label),
    ).fetchone()
    if issued is not None and json.loads(issued[1])["sha256"] != sha256.hex():
        raise tampered(
            f"the certificate of issuance {issued[0]} is later than the active one", device=device
        )


def require_not_issued(db: Transaction, device: str, number: int) -> None:
    """Require that the journal knows of no certificate that an attempt came to.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    issued = db.execute(
        "SELECT 1 FROM journal WHERE device = ? AND event = 'issued' AND reference = ? LIMIT 1",
        (device, number),
    ).fetchone()
    if issued is not None:
        raise tampered(f"issuance {number} is over, and its record says otherwise", device=device)


def require_not_revoked(db: Transaction, device: str, label: str, serial: str) -> None:
    """Require that the journal knows of no revocation, where the certificate's record has none.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    revoked = db.execute(
        "SELECT 1 FROM journal WHERE serial = ? AND event = 'revoked' AND device = ? "
        "AND label = ? LIMIT 1",
        (serial, device, label),
    ).fetchone()
    if revoked is not None:
        raise tampered(f"the revocation of certificate {serial} is gone", device=device)


def prune(db: Transaction, retention: Retention, now: datetime) -> None:
    """Remove some entries that are too many or too old, and leave a sealed checkpoint.

    The latest entry always stays.
    """
    newest = head(db).number
    oldest = checkpoint(db).number + 1
    last = min(newest - retention.entries, oldest + _PRUNED_AT_ONCE - 1)
    if retention.age is not None:
        last = max(last, _last_older(db, to_column(now - retention.age), oldest))
    last = min(last, newest - 1)
    if last < oldest:
        return
    (code,) = db.execute("SELECT hash FROM journal WHERE number = ?", (last,)).fetchone()
    db.execute("DELETE FROM journal WHERE number <= ?", (last,))
    put_checkpoint(db, Chain(last, code))
    append(db, Event.PRUNED, now, reference=last, hash=code.hex())


def put_checkpoint(db: Transaction, chain: Chain) -> None:
    """Note up to where the journal was removed."""
    db.execute(
        "INSERT INTO journal_checkpoint (id, number, hash, mac) VALUES (1, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET number = excluded.number, hash = excluded.hash, "
        "mac = excluded.mac",
        (chain.number, chain.hash, db.seals.row("journal_checkpoint", chain.number, chain.hash)),
    )


def _last_older(db: Transaction, moment: int, oldest: int) -> int:
    """The last of the oldest entries, as many as are removed at once, from before ``moment``."""
    rows = db.execute(
        "SELECT number, happened_at FROM journal WHERE number >= ? AND number < ? ORDER BY number",
        (oldest, oldest + _PRUNED_AT_ONCE),
    ).fetchall()
    last = oldest - 1
    for number, happened_at in rows:
        if happened_at >= moment:
            break
        last = number
    return int(last)
