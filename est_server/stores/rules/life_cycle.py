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
from est_server.stores.rules.values import from_column, is_storable
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
    return DeviceChange(after, ended, released)


def history(db: Transaction, udid: str) -> list[HistoryEntry]:
    """What became of a device, the oldest first."""
    if not is_storable(udid):
        return []
    rows = db.execute(
        "SELECT step, from_state, to_state, owner, actor, reason, changed_at "
        "FROM device_history WHERE udid = ? ORDER BY id",
        (udid,),
    ).fetchall()
    return [
        HistoryEntry(
            LifeCycleStep(step) if step else None,
            DeviceState(before),
            DeviceState(after),
            owner,
            actor,
            reason,
            from_column(when),
        )
        for step, before, after, owner, actor, reason, when in rows
    ]


def _state_after(db: Transaction, step: LifeCycleStep, device: Device) -> DeviceState:
    after = state_after(step, device.state, _last_living(db, device.udid))
    enrolled = step is LifeCycleStep.RELEASE and certificates.certified_keys(db, device.udid)
    return DeviceState.ENROLLED if enrolled else after


def _last_living(db: Transaction, udid: str) -> DeviceState:
    """The last state from which a device was brought to another, and in which it may enroll."""
    living = [state.value for state in DeviceState if state.may_enroll]
    row = db.execute(
        "SELECT from_state FROM device_history WHERE udid = ? "
        f"AND from_state IN ({', '.join('?' for _ in living)}) ORDER BY id DESC LIMIT 1",
        (udid, *living),
    ).fetchone()
    return DeviceState.LISTED if row is None else DeviceState(row[0])


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
        for number, _ in good:
            revocations.add_entry(db, number, RevocationReason.CERTIFICATE_HOLD, now)
        return len(good)
    code = order.revocation
    assert code is not None
    if code is RevocationReason.KEY_COMPROMISE:
        for key in (device.listed.spki_sha256, *certificates.certified_keys(db, device.udid)):
            administration.compromise(
                db, key, device.udid, actor=order.actor, reason=order.reason, now=now
            )
        return len(good)
    for _, sha256 in good:
        administration.revoke_certificate(
            db, sha256, actor=order.actor, reason=order.reason, code=code, now=now
        )
    return len(good)
