"""The imported device lists, each function inside a transaction that its caller began."""

from __future__ import annotations

from datetime import datetime
from typing import NoReturn

from est_protocol.errors import ConfigurationError
from est_server.device_records import ImportedList, ListDescription
from est_server.journal import Event
from est_server.stores.rules import journal, tallies
from est_server.stores.rules.values import Row, from_column, to_column
from est_server.stores.seals import tampered
from est_server.stores.transaction import Transaction

_COLUMNS = "number, list_id, sha256, signer, signed_at, imported_at, devices"


def every(db: Transaction) -> list[ImportedList]:
    """All lists, the first first."""
    rows = db.execute(f"SELECT {_COLUMNS} FROM lists ORDER BY number").fetchall()
    return [_checked(db, _imported_list(row)) for row in rows]


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


def _checked(db: Transaction, imported: ImportedList) -> ImportedList:
    if db.seals.is_keyed:
        sealed = tallies.find(db, imported.number).devices
        if sealed != imported.devices:
            raise tampered(
                f"list {imported.number} counts {imported.devices} devices, its seal {sealed}"
            )
    return imported


def _refuse(description: ListDescription, recorded_id: str) -> NoReturn:
    if recorded_id == description.list_id:
        raise ConfigurationError(f"another list is called {recorded_id!r}; nothing is imported")
    raise ConfigurationError(
        f"this list was imported as {recorded_id!r} already; nothing is imported"
    )


def _imported_list(row: Row) -> ImportedList:
    number, list_id, sha256, signer, signed_at, imported_at, devices = row
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
