"""How many devices came with each list and what they add up to, so that a missing one shows.

Inside a transaction of the caller. Devices that came with no list are counted under number 0.
Without an integrity key there are no tallies.
"""

from __future__ import annotations

from typing import NamedTuple

from est_server.stores.rules.values import Row
from est_server.stores.seals import Sealed, Seals, add_up, tampered
from est_server.stores.transaction import Transaction

#: Stands for the list of devices that came with none.
NO_LIST = 0

#: What is sealed of a list's record.
LIST_COLUMNS = "list_id, sha256, signer, signed_at, imported_at"


class Tally(NamedTuple):
    """What a list's devices are altogether; ``total`` is the sum of :meth:`Seals.member`."""

    devices: int = 0
    total: int = 0


def add(db: Transaction, number: int | None, devices: int, total: int) -> None:
    """Count devices that were added to the list ``number``.

    :raises RequestRefused: ``RECORD_TAMPERED``: the list's record is not what was written.
    """
    if not db.seals.is_keyed:
        return
    before = find(db, number)
    after = Tally(before.devices + devices, add_up((before.total, total)))
    put(db, number or NO_LIST, after)


def find(db: Transaction, number: int | None, seals: Seals | None = None) -> Tally:
    """The tally of a list.

    :param seals: what it is sealed with, if not with what the transaction has.
    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    seals = seals or db.seals
    number = number or NO_LIST
    row = db.execute(
        "SELECT devices, total, mac FROM list_seals WHERE list = ?", (number,)
    ).fetchone()
    return opened(seals, number, row or (None, None, None), _record(db, number))


def opened(seals: Seals, number: int, seal: Row, record: tuple[Sealed, ...]) -> Tally:
    """The tally of a list from its columns.

    :param seal: ``devices``, ``total`` and ``mac``; each ``None`` if there is no such row.
    :param record: what :data:`LIST_COLUMNS` are.
    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    devices, masked, mac = seal
    if masked is None:
        raise tampered(f"the seal of list {number} is missing")
    if not seals.fits(_code(seals, number, devices, masked, record), mac):
        raise tampered(f"the record of list {number} is not what the server wrote")
    return Tally(devices, seals.unmask(masked))


def put(db: Transaction, number: int, tally: Tally) -> None:
    """Write the tally of a list, whatever it was."""
    if not db.seals.is_keyed:
        return
    masked = db.seals.mask(tally.total)
    mac = _code(db.seals, number, tally.devices, masked, _record(db, number))
    db.execute(
        "INSERT INTO list_seals (list, devices, total, mac) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (list) DO UPDATE SET devices = excluded.devices, total = excluded.total, "
        "mac = excluded.mac",
        (number, tally.devices, masked, mac),
    )


def _record(db: Transaction, number: int) -> tuple[Sealed, ...]:
    row = db.execute(f"SELECT {LIST_COLUMNS} FROM lists WHERE number = ?", (number,)).fetchone()
    return () if row is None else tuple(row)


def _code(
    seals: Seals, number: int, devices: int, masked: bytes, record: tuple[Sealed, ...]
) -> bytes | None:
    return seals.row("lists", number, devices, masked, *record)
