"""Rows of devices with the code that seals them; inside a transaction of the caller.

The code covers every column, and among them the number of the device's latest entry in its history:
an old row that is put back, with the code that it had then, does not go with the history any more.
It covers how many claims the device holds as well, so that one that was freed shows however long
ago it was taken; see :mod:`est_server.stores.rules.claims`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from est_server.device_records import Device, DeviceState
from est_server.stores.rules.values import (
    DEVICE_COLUMNS,
    Row,
    attributes_column,
    device,
    to_column,
)
from est_server.stores.seals import Seals, device_rest, tampered
from est_server.stores.transaction import Transaction

#: What :func:`opened` expects.
SEALED_COLUMNS = (
    f"{DEVICE_COLUMNS}, mac, (SELECT max(id) FROM device_history h WHERE h.udid = devices.udid)"
)

#: How many claims of a device its row has to count; an expression beside :data:`SEALED_COLUMNS`.
COUNTED_CLAIMS = "(SELECT count(*) FROM claims c WHERE c.device = devices.udid AND c.counted = 1)"


def opened(db: Transaction, row: Row) -> Device:
    """A device from its columns, once they are known to be what a server wrote.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    finding = fault(db.seals, row)
    if finding is not None:
        raise tampered(f"device {row[0]}: {finding}", device=row[0])
    return device(row[: -len(("mac", "latest"))])


def fault(seals: Seals, row: Row, *, counts_claims: bool = True) -> str | None:
    """What is wrong with a row of :data:`SEALED_COLUMNS`; ``None`` if nothing is.

    :param counts_claims: whether its code covers the number of its claims; it does not in what
        earlier versions sealed.
    """
    if not seals.is_keyed:
        return None
    udid, spki, attributes, state, changed_at, list_number, owner, history = row[:8]
    claims, mac, latest = row[8:]
    more = (claims,) if counts_claims else ()
    rest = device_rest(list_number, state, owner, changed_at, history, *more)
    if mac is None:
        return "the row has no seal"
    if not seals.fits(seals.device(udid, spki, attributes, rest), mac):
        return "the row is not what a server wrote"
    if history != (latest or 0):
        return "the row is older, or newer, than the device's history"
    return None


def seal(seals: Seals, device: Device, history: int) -> bytes | None:
    """The code of a device as it is to be written.

    :param history: the number of the latest entry in its history by then.
    """
    rest = device_rest(
        device.list_number,
        device.state.value,
        device.owner,
        to_column(device.changed_at),
        history,
        device.claims,
    )
    listed = device.listed
    return seals.device(device.udid, listed.spki_sha256, attributes_column(listed.attributes), rest)


@dataclass(slots=True)
class NewDevices:
    """Seals the rows of one list, and adds them up.

    :param number: the list's number; ``None`` for devices without a list.
    """

    seals: Seals
    number: int | None
    now: datetime
    devices: int = 0
    total: int = 0
    _rest: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._rest = device_rest(
            self.number, DeviceState.LISTED.value, None, to_column(self.now), 0, 0
        )

    def seal(self, udid: str, spki_sha256: bytes, attributes: str) -> bytes | None:
        """The code of a row that is added."""
        if not self.seals.is_keyed:
            return None
        self.devices += 1
        self.total += self.seals.member(udid, spki_sha256)
        return self.seals.device(udid, spki_sha256, attributes, self._rest)
