"""The imported device lists, each function inside a transaction that its caller began."""

from __future__ import annotations

from datetime import datetime
from typing import NoReturn

from est_protocol.errors import ConfigurationError
from est_server.device_records import ImportedList, ListDescription
from est_server.journal import Event
from est_server.stores.rules import journal, tallies
from est_server.stores.rules.values import Row, from_column, to_column
from est_server.stores.seals import Seals, tampered
from est_server.stores.transaction import Transaction

#: A list, and its seal; in one statement, since between two of a reader's there may be an import.
_SEALED_LISTS = (
    f"SELECT number, l.devices, {tallies.LIST_COLUMNS}, s.devices, s.total, s.mac "
    "FROM lists l LEFT JOIN list_seals s ON s.list = l.number ORDER BY number"
)


def every(db: Transaction) -> list[ImportedList]:
    """All lists, the first first.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    return [_opened(db.seals, row) for row in db.execute(_SEALED_LISTS).fetchall()]


def record(db: Transaction, description: ListDescription, now: datetime) -> int:
    """The number of a list, which is recorded unless it has been before.

    :raises ConfigurationError: another list has its id, or it has another id.
    """
    signer = description.signer or ""
    row = db.execute(
        "SELECT number, list_id, sha256, signer FROM lists "
        "WHERE list_id = ? OR (sha256 = ? AND signer = ?)",
        (description.list_id, description.sha256, signer),
    ).fetchone()
    if row is not None:
        if tuple(row[1:]) != (description.list_id, description.sha256, signer):
            _refuse(description, row[1])
        return int(row[0])
    signed_at = None if description.signed_at is None else to_column(description.signed_at)
    number = db.insert(
        "INSERT INTO lists (list_id, sha256, signer, signed_at, imported_at, devices) "
        "VALUES (?, ?, ?, ?, ?, 0)",
        (description.list_id, description.sha256, signer, signed_at, to_column(now)),
        numbered="number",
    )
    tallies.put(db, number, tallies.Tally())
    return number


def note_import(
    db: Transaction,
    number: int,
    description: ListDescription,
    now: datetime,
    *,
    added: int,
    total: int,
) -> None:
    """Note that a list was imported, and how many devices came with it this time.

    :param total: what they add up to; see :mod:`est_server.stores.rules.tallies`.
    :raises RequestRefused: ``RECORD_TAMPERED``: the list's record is not what was written.
    """
    tallies.add(db, number, added, total)
    db.execute("UPDATE lists SET devices = devices + ? WHERE number = ?", (added, number))
    journal.append(
        db,
        Event.LIST_IMPORTED,
        now,
        reference=number,
        list=description.list_id,
        sha256=description.sha256.hex(),
        signer=description.signer,
        added=added,
    )


def _opened(seals: Seals, row: Row) -> ImportedList:
    number, devices, *record = row[:-3]
    if seals.is_keyed:
        sealed = tallies.opened(seals, number, row[-3:], tuple(record)).devices
        if sealed != devices:
            raise tampered(f"list {number} counts {devices} devices, its seal {sealed}")
    return _imported_list(number, devices, *record)


def _refuse(description: ListDescription, recorded_id: str) -> NoReturn:
    if recorded_id == description.list_id:
        raise ConfigurationError(f"another list is called {recorded_id!r}; nothing is imported")
    raise ConfigurationError(
        f"this list was imported as {recorded_id!r} already; nothing is imported"
    )


def _imported_list(
    number: int,
    devices: int,
    list_id: str,
    sha256: bytes,
    signer: str,
    signed_at: int | None,
    imported_at: int,
) -> ImportedList:
    return ImportedList(
        number=number,
        description=ListDescription(
            list_id=list_id,
            sha256=bytes(sha256),
            signer=signer or None,
            signed_at=None if signed_at is None else from_column(signed_at),
        ),
        imported_at=from_column(imported_at),
        devices=devices,
    )
