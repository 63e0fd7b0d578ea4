"""What an operator's order does to a device, all in the transaction that its caller began."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from est_server.device_records import Device, DeviceState
from est_server.life_cycle import (
    DeviceChange,
    DeviceOrder,
    HistoryEntry,
    LifeCycleStep,
    state_after,
)
from est_server.revocations import RevocationReason
from est_server.stores.rules import (
    administration,
    attempts,
    certificates,
    claims,
    registry,
    revocations,
    standing,
)
from est_server.stores.rules.sealed_rows import HISTORY
from est_server.stores.rules.values import Row, from_column, is_storable
from est_server.stores.transaction import Transaction

#: Steps that leave alone what is under way.
_HARMLESS = (LifeCycleStep.SUSPEND, LifeCycleStep.RESUME, LifeCycleStep.RELEASE)


def change_device(db: Transaction, order: DeviceOrder, *, now: datetime) -> DeviceChange:
    """See :meth:`est_server.interfaces.DeviceRegistry.change_device`."""
    before = registry.find_by_udid(db, order.udid)
    if before is None:
        raise KeyError(order.udid)
    after = replace(
        before,
        state=_state_after(db, order.step, before),
        owner=order.owner or before.owner,
        changed_at=now,
    )
    registry.change(
        db, before, after, step=order.step.value, actor=order.actor, reason=order.reason
    )
    released = 0
    if order.step not in _HARMLESS:
        attempts.abandon_all(db, order.udid, reason=f"{order.step.value} by {order.actor}", now=now)
    if order.releases_claims:
        released = claims.release_all(
            db, order.udid, actor=order.actor, reason=order.reason, now=now
        )
    ended = _change_certificates(db, order, before, now)
    changed = registry.find_by_udid(db, order.udid)
    assert changed is not None
    return DeviceChange(changed, ended, released)


def history(db: Transaction, udid: str) -> list[HistoryEntry]:
    """What became of a device, the oldest first."""
    if not is_storable(udid):
        return []
    # Each is checked to come after the one before it, and the device's row to name the last one.
    registry.find_by_udid(db, udid)
    rows = db.execute(f"{HISTORY.select} WHERE udid = ? ORDER BY id", (udid,)).fetchall()
    return [_entry(HISTORY.opened(db, row)) for row in rows]


def _state_after(db: Transaction, step: LifeCycleStep, device: Device) -> DeviceState:
    after = state_after(step, device.state, _last_living(db, device.udid))
    enrolled = step is LifeCycleStep.RELEASE and certificates.certified_keys(db, device.udid)
    return DeviceState.ENROLLED if enrolled else after


def _last_living(db: Transaction, udid: str) -> DeviceState:
    """The last state from which a device was brought to another, and in which it may enroll."""
    states = [entry.before for entry in reversed(history(db, udid))]
    return next((state for state in states if state.may_enroll), DeviceState.LISTED)


def _entry(row: Row) -> HistoryEntry:
    _, _, step, before, after, owner, actor, reason, when, _ = row
    return HistoryEntry(
        LifeCycleStep(step) if step else None,
        DeviceState(before),
        DeviceState(after),
        owner,
        actor,
        reason,
        from_column(when),
    )


def _change_certificates(db: Transaction, order: DeviceOrder, device: Device, now: datetime) -> int:
    if order.step is LifeCycleStep.RESET:
        standing.forget_compromised(db, device.udid)
        return 0
    if order.step is LifeCycleStep.RELEASE:
        return 0
    if order.step is LifeCycleStep.RESUME:
        return revocations.release_hold(db, device.udid)
    good = certificates.good_ones(db, device.udid, now)
    if order.step is LifeCycleStep.SUSPEND:
        for issued in good:
            revocations.add_entry(db, issued, RevocationReason.CERTIFICATE_HOLD, now)
        return len(good)
    code = order.revocation
    assert code is not None
    if code is RevocationReason.KEY_COMPROMISE:
        for key in (device.listed.spki_sha256, *certificates.certified_keys(db, device.udid)):
            administration.compromise(
                db, key, device.udid, actor=order.actor, reason=order.reason, now=now
            )
        return len(good)
    for issued in good:
        administration.revoke_certificate(
            db, issued.sha256, actor=order.actor, reason=order.reason, code=code, now=now
        )
    return len(good)
