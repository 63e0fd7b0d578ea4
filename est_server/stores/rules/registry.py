"""The device registry's rules, each function inside a transaction that its caller began."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from est_server.device_records import AddOutcome, Device, DeviceState, ListedDevice
from est_server.stores.rules.values import (
    DEVICE_COLUMNS,
    attributes_column,
    device,
    is_storable,
    to_column,
)
from est_server.stores.transaction import Transaction

_ENROLLMENT_ACTOR = "enrollment"


def find_by_key(db: Transaction, spki_sha256: bytes) -> Device | None:
    """The device whose listed key has this hash."""
    row = db.execute(
        f"SELECT {DEVICE_COLUMNS} FROM devices WHERE spki_sha256 = ?", (spki_sha256,)
    ).fetchone()
    return None if row is None else device(row)


def find_by_udid(db: Transaction, udid: str) -> Device | None:
    """The device with this identifier."""
    if not is_storable(udid):
        return None
    row = db.execute(f"SELECT {DEVICE_COLUMNS} FROM devices WHERE udid = ?", (udid,)).fetchone()
    return None if row is None else device(row)


def page(db: Transaction, after: str, size: int) -> list[Device]:
    """The next ``size`` devices in order of UDID."""
    rows = db.execute(
        f"SELECT {DEVICE_COLUMNS} FROM devices WHERE udid > ? ORDER BY udid LIMIT ?",
        (after, size),
    ).fetchall()
    return [device(row) for row in rows]


def state_of(db: Transaction, udid: str) -> DeviceState | None:
    """The state of a device, or ``None`` if it is not listed."""
    row = db.execute("SELECT state FROM devices WHERE udid = ?", (udid,)).fetchone()
    return None if row is None else DeviceState(row[0])


def add_devices(
    db: Transaction, devices: Sequence[ListedDevice], now: datetime
) -> list[AddOutcome]:
    """See :meth:`est_server.interfaces.DeviceRegistry.add_devices`."""
    return [_add(db, listed, now) for listed in devices]


def _add(db: Transaction, listed: ListedDevice, now: datetime) -> AddOutcome:
    by_udid = find_by_udid(db, listed.udid)
    if by_udid is not None:
        if by_udid.listed.spki_sha256 != listed.spki_sha256:
            return AddOutcome.CONFLICT_UDID
        if by_udid.listed.attributes != listed.attributes:
            return AddOutcome.CONFLICT_ATTRIBUTES
        return AddOutcome.UNCHANGED
    if find_by_key(db, listed.spki_sha256) is not None:
        return AddOutcome.CONFLICT_KEY
    db.execute(
        f"INSERT INTO devices ({DEVICE_COLUMNS}) VALUES (?, ?, ?, ?, ?, NULL)",
        (
            listed.udid,
            listed.spki_sha256,
            attributes_column(listed.attributes),
            DeviceState.LISTED.value,
            to_column(now),
        ),
    )
    return AddOutcome.ADDED


def change_state(
    db: Transaction,
    udid: str,
    state: DeviceState,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> Device:
    """See :meth:`est_server.interfaces.DeviceRegistry.change_state`."""
    before = state_of(db, udid)
    if before is None:
        raise KeyError(udid)
    db.execute(
        "UPDATE devices SET state = ?, changed_at = ? WHERE udid = ?",
        (state.value, to_column(now), udid),
    )
    db.execute(
        "INSERT INTO device_history (udid, from_state, to_state, actor, reason, changed_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (udid, before.value, state.value, actor, reason, to_column(now)),
    )
    changed = find_by_udid(db, udid)
    assert changed is not None
    return changed


def mark_enrolled(db: Transaction, udid: str, now: datetime) -> None:
    """Note that a listed device has its first certificate; others are left as they are."""
    if state_of(db, udid) is DeviceState.LISTED:
        change_state(
            db,
            udid,
            DeviceState.ENROLLED,
            actor=_ENROLLMENT_ACTOR,
            reason="a certificate was issued",
            now=now,
        )
