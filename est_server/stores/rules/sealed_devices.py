"""Rows of devices with the code that seals them; inside a transaction of the caller.

The code covers every column, and the number of the device's latest entry in its history: an old
row that is put back, with the code that it had then, does not go with the history any more.
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
    f"{DEVICE_COLUMNS}, history, mac, "
    "(SELECT max(id) FROM device_history h WHERE h.udid = devices.udid)"
)


def opened(db: Transaction, row: Row) -> Device:
    """A device from its columns, once they are known to be what a server wrote.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    finding = fault(db.seals, row)
    if finding is not None:
        raise tampered(f"device {row[0]}: {finding}", device=row[0])
    return device(row[: -len(("history", "mac", "latest"))])


def fault(seals: Seals, row: Row) -> str | None:
    """What is wrong with a row of :data:`SEALED_COLUMNS`; ``None`` if nothing is."""
    if not seals.is_keyed:
        return None
    udid, spki, attributes, state, changed_at, list_number, owner, history, mac, latest = row
    rest = device_rest(list_number, state, owner, changed_at, history)
    if mac is None:
        return "the row has no seal"
    if not seals.fits(seals.device(udid, spki, attributes, rest), mac):
        return "the row is not what a server wrote"
    if history != (latest or 0):
        return "the row is older, or newer, than the device's history"
    return None


def seal(seals: Seals, device: Device, history: int) -> bytes | None:
    """The code of a device as it is to be written.

    :param history: number of its latest history entry, 0 if there is none.
    """
    rest = device_rest(
        device.list_number,
        device.state.value,
        device.owner,
        to_column(device.changed_at),
        history,
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
            self.number, DeviceState.LISTED.value, None, to_column(self.now), 0
        )

    def seal(self, udid: str, spki_sha256: bytes, attributes: str) -> bytes | None:
        """The code of a row that is added."""
        if not self.seals.is_keyed:
            return None
        self.devices += 1
        self.total += self.seals.member(udid, spki_sha256)
        return self.seals.device(udid, spki_sha256, attributes, self._rest)
