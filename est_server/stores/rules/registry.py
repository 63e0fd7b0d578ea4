"""The device registry's rules, each function inside a transaction that its caller began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.device_records import (
    AddOutcome,
    Device,
    DeviceState,
    ListedDevice,
    Registration,
)
from est_server.journal import Event
from est_server.stores.rules import journal, quotas, tallies
from est_server.stores.rules.sealed_devices import SEALED_COLUMNS, NewDevices, opened, seal
from est_server.stores.rules.sealed_rows import HISTORY
from est_server.stores.rules.values import (
    NEW_DEVICE_COLUMNS,
    attributes_column,
    is_storable,
    to_column,
)
from est_server.stores.seals import tampered
from est_server.stores.transaction import Transaction

_ENROLLMENT_ACTOR = "enrollment"


def find_by_key(db: Transaction, spki_sha256: bytes) -> Device | None:
    """The device whose listed key has this hash."""
    row = db.execute(
        f"SELECT {SEALED_COLUMNS} FROM devices WHERE spki_sha256 = ?", (spki_sha256,)
    ).fetchone()
    return None if row is None else opened(db, row)


def find_by_udid(db: Transaction, udid: str) -> Device | None:
    """The device with this identifier."""
    if not is_storable(udid):
        return None
    row = db.execute(f"SELECT {SEALED_COLUMNS} FROM devices WHERE udid = ?", (udid,)).fetchone()
    return None if row is None else opened(db, row)


#: Whether a device with this identifier was ever there; devices are never deleted.
_TOLD_OF = (
    "SELECT 1 FROM device_history WHERE udid = ? UNION ALL "
    "SELECT 1 FROM journal WHERE device = ? AND event IN ('listed', 'device-changed') LIMIT 1"
)


def find_or_unknown(db: Transaction, udid: str) -> Device | None:
    """The device with this identifier; ``None`` if there never was one.

    :raises RequestRefused: ``RECORD_TAMPERED``: there was one, and it is gone.
    """
    device = find_by_udid(db, udid)
    if device is not None or not is_storable(udid):
        return device
    if db.execute(_TOLD_OF, (udid, udid)).fetchone() is None:
        return None
    # Between two statements of a reader's it may have been registered.
    device = find_by_udid(db, udid)
    if device is None:
        raise tampered(f"device {udid}: the row is gone", device=udid)
    return device


def page(db: Transaction, after: str, size: int) -> list[Device]:
    """The next ``size`` devices in order of UDID."""
    rows = db.execute(
        f"SELECT {SEALED_COLUMNS} FROM devices WHERE udid > ? ORDER BY udid LIMIT ?",
        (after, size),
    ).fetchall()
    return [opened(db, row) for row in rows]


def add_devices(
    db: Transaction, devices: Sequence[ListedDevice], now: datetime
) -> list[AddOutcome]:
    """See :meth:`est_server.interfaces.DeviceRegistry.add_devices`."""
    added = NewDevices(db.seals, None, now)
    outcomes = [_add(db, listed, added) for listed in devices]
    if added.devices:
        tallies.add(db, None, added.devices, added.total)
    return outcomes


def _add(db: Transaction, listed: ListedDevice, added: NewDevices) -> AddOutcome:
    by_udid = find_by_udid(db, listed.udid)
    if by_udid is not None:
        if by_udid.listed.spki_sha256 != listed.spki_sha256:
            return AddOutcome.CONFLICT_UDID
        if by_udid.listed.attributes != listed.attributes:
            return AddOutcome.CONFLICT_ATTRIBUTES
        return AddOutcome.UNCHANGED
    if find_by_key(db, listed.spki_sha256) is not None:
        return AddOutcome.CONFLICT_KEY
    attributes = attributes_column(listed.attributes)
    db.execute(
        f"INSERT INTO devices ({NEW_DEVICE_COLUMNS}) VALUES (?, ?, ?, ?, ?, NULL, ?)",
        (
            listed.udid,
            listed.spki_sha256,
            attributes,
            DeviceState.LISTED.value,
            to_column(added.now),
            added.seal(listed.udid, listed.spki_sha256, attributes),
        ),
    )
    journal.append(db, Event.LISTED, added.now, device=listed.udid, key=listed.spki_sha256.hex())
    return AddOutcome.ADDED


def require_free(db: Transaction, registration: Registration) -> None:
    """Check that a device can be registered: nobody else has its UDID or its key.

    :raises RequestRefused: ``IDENTITY_MISMATCH``.
    """
    new = registration.device
    known = find_by_udid(db, new.udid)
    if known is not None and not _is_same(known.listed, new):
        raise AlarmingRefusal(
            AlarmKind.SECOND_KEY,
            RefusalReason.IDENTITY_MISMATCH,
            "another device has the identifier that this one is to be registered by",
            detail=f"{new.udid} has key {known.listed.spki_sha256.hex()}, this one "
            f"{new.spki_sha256.hex()}",
            device=new.udid,
        )
    known = find_by_key(db, new.spki_sha256)
    if known is not None and known.udid != new.udid:
        raise RequestRefused(
            RefusalReason.IDENTITY_MISMATCH,
            "the key is that of a device with another identifier",
            detail=f"{known.udid}, not {new.udid}",
            device=known.udid,
        )


def _is_same(known: ListedDevice, new: ListedDevice) -> bool:
    """Whether two records are of one device; one that was let in may have several keys."""
    return known.spki_sha256 == new.spki_sha256 or (known.is_unlisted and new.is_unlisted)


def register(db: Transaction, registration: Registration, now: datetime) -> Device:
    """Add a device that :func:`require_free` found nothing against, unless it is there already.

    :raises RequestRefused: ``QUOTA_EXCEEDED``.
    """
    udid = registration.device.udid
    known = find_by_udid(db, udid)
    if known is not None:
        return known
    quotas.take_for_good(db, registration.quotas, now)
    add_devices(db, [registration.device], now)
    added = find_by_udid(db, udid)
    assert added is not None
    registered = replace(added, state=registration.state)
    history = change(
        db,
        added,
        registered,
        step="",
        actor=_ENROLLMENT_ACTOR,
        reason=registration.reason,
    )
    return replace(registered, history=history)


def change(
    db: Transaction, before: Device, after: Device, *, step: str, actor: str, reason: str
) -> int:
    """Replace ``before`` by ``after``, and note who did it and why.

    Every change of the state or the owner of a device that is listed already is made here.

    :param before: the device as it is now.
    :param step: what was done, empty for its first certificate.
    :return: the number of the entry in its history.
    """
    values = (
        after.udid,
        step,
        before.state.value,
        after.state.value,
        after.owner,
        actor,
        reason,
        to_column(after.changed_at),
    )
    history = db.insert(
        "INSERT INTO device_history "
        "(udid, step, from_state, to_state, owner, actor, reason, changed_at, mac) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, HISTORY.code(db.seals, None, *values, before.history)),
        numbered="id",
    )
    db.execute(
        "UPDATE devices SET state = ?, owner = ?, changed_at = ?, history = ?, claims = ?, mac = ? "
        "WHERE udid = ?",
        (
            after.state.value,
            after.owner,
            to_column(after.changed_at),
            history,
            after.claims,
            seal(db.seals, after, history),
            after.udid,
        ),
    )
    journal.append(
        db,
        Event.DEVICE_CHANGED,
        after.changed_at,
        device=after.udid,
        reference=history,
        step=step,
        before=before.state.value,
        after=after.state.value,
        owner=after.owner,
        actor=actor,
        reason=reason,
    )
    return history


def count_claims(db: Transaction, device: Device, more: int) -> None:
    """Note how many claims a device holds now.

    :param device: as it is now.
    :param more: how many more than before.
    """
    counted = replace(device, claims=device.claims + more)
    # As with any change, the owner of whom the list speaks is in the row from now on.
    db.execute(
        "UPDATE devices SET owner = ?, claims = ?, mac = ? WHERE udid = ?",
        (counted.owner, counted.claims, seal(db.seals, counted, counted.history), counted.udid),
    )


def note_certificate(db: Transaction, device: Device, now: datetime, *, claims: int) -> None:
    """Note that a device has a certificate: if it is its first, a listed one is enrolled.

    :param claims: how many claims it took for it that are not counted yet.
    """
    if device.state is not DeviceState.LISTED:
        if claims:
            count_claims(db, device, claims)
    else:
        enrolled = replace(
            device, state=DeviceState.ENROLLED, changed_at=now, claims=device.claims + claims
        )
        change(
            db,
            device,
            enrolled,
            step="",
            actor=_ENROLLMENT_ACTOR,
            reason="a certificate was issued",
        )
