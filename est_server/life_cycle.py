"""The life of a listed device: what an operator may do in which state, and where it leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from est_protocol.errors import EstError
from est_server.device_records import Device, DeviceState
from est_server.revocations import RevocationReason

#: Characters of a name or a reason in an order.
LONGEST_TEXT = 512


class LifeCycleStep(StrEnum):
    """What an operator does to a device.

    ``SUSPEND``: shut out for now; its certificates are on hold. ``RESUME`` undoes it.
    ``REVOKE``: shut out, its certificates are revoked; only ``RESET`` brings it back.
    ``DECOMMISSION``: the end; its certificates are revoked, nothing brings it back.
    ``RESET``: after a factory reset or a repair it may make one more first enrollment under each
    label, and its keys are no longer held to be compromised. The certificate that it has stays
    good until the next one supersedes it.
    ``TRANSFER``: it has another owner, its certificates are revoked, and it may make one more
    first enrollment under each label that the new owner may use.
    ``RELEASE``: out of the quarantine in which a device begins that was registered by its birth
    certificate.
    """

    SUSPEND = "suspend"
    RESUME = "resume"
    REVOKE = "revoke"
    DECOMMISSION = "decommission"
    RESET = "reset"
    TRANSFER = "transfer"
    RELEASE = "release"


_IN_SERVICE = frozenset({DeviceState.LISTED, DeviceState.ENROLLED})
_QUARANTINED = frozenset({DeviceState.QUARANTINED})
_SUSPENDED = frozenset({DeviceState.SUSPENDED})
_REVOKED = frozenset({DeviceState.REVOKED})

#: In which states a step may be taken. What is decommissioned stays so.
_FROM: Mapping[LifeCycleStep, frozenset[DeviceState]] = {
    LifeCycleStep.SUSPEND: _IN_SERVICE | _QUARANTINED,
    LifeCycleStep.RESUME: _SUSPENDED,
    LifeCycleStep.REVOKE: _IN_SERVICE | _QUARANTINED | _SUSPENDED,
    LifeCycleStep.DECOMMISSION: _IN_SERVICE | _QUARANTINED | _SUSPENDED | _REVOKED,
    LifeCycleStep.RESET: _IN_SERVICE | _REVOKED,
    LifeCycleStep.TRANSFER: _IN_SERVICE,
    LifeCycleStep.RELEASE: _QUARANTINED,
}

#: Where a step leads; ``RESUME`` leads back to where the device was, and so does ``RESET`` if that
#: was the quarantine, which only ``RELEASE`` ends.
_TO: Mapping[LifeCycleStep, DeviceState] = {
    LifeCycleStep.SUSPEND: DeviceState.SUSPENDED,
    LifeCycleStep.REVOKE: DeviceState.REVOKED,
    LifeCycleStep.DECOMMISSION: DeviceState.DECOMMISSIONED,
    LifeCycleStep.RESET: DeviceState.LISTED,
    LifeCycleStep.TRANSFER: DeviceState.LISTED,
    LifeCycleStep.RELEASE: DeviceState.LISTED,
}

#: Steps after which every certificate of the device is revoked.
_REVOKING = frozenset({LifeCycleStep.REVOKE, LifeCycleStep.DECOMMISSION, LifeCycleStep.TRANSFER})

#: Steps after which the device may make a first enrollment again.
_RELEASING = frozenset({LifeCycleStep.RESET, LifeCycleStep.TRANSFER})


class StepNotPossible(EstError):
    """The device is not in a state in which the step may be taken; nothing was changed."""


@dataclass(frozen=True, slots=True)
class DeviceOrder:
    """An operator's order about one device.

    :param actor: who orders it, for the audit trail.
    :param reason: why, in words for the audit trail.
    :param code: for ``REVOKE``: why, in CRLs. With ``KEY_COMPROMISE`` neither the listed key nor
        any that was certified for the device gets a certificate until it is reset.
    :param owner: for ``TRANSFER``: the new owner.
    :raises ValueError: something is missing, or there that has no meaning.
    """

    udid: str
    step: LifeCycleStep
    actor: str
    reason: str
    code: RevocationReason | None = None
    owner: str | None = None

    def __post_init__(self) -> None:
        for text in (self.actor, self.reason, self.owner or "-"):
            if not 0 < len(text) <= LONGEST_TEXT or not text.isprintable():
                raise ValueError(f"not 1 to {LONGEST_TEXT} printable characters: {text!r}")
        if (self.step is LifeCycleStep.TRANSFER) != bool(self.owner):
            raise ValueError("transfer needs an owner, and nothing else does")
        if self.code is not None and self.step is not LifeCycleStep.REVOKE:
            raise ValueError("only revoke takes a code")
        if self.code is RevocationReason.CERTIFICATE_HOLD:
            raise ValueError("to put certificates on hold, suspend the device")

    @property
    def revocation(self) -> RevocationReason | None:
        """Why its certificates are to be revoked, in CRLs; ``None`` if they are not."""
        if self.step not in _REVOKING:
            return None
        if self.step is LifeCycleStep.REVOKE:
            return self.code or RevocationReason.UNSPECIFIED
        return RevocationReason.CESSATION_OF_OPERATION

    @property
    def releases_claims(self) -> bool:
        """Whether the device may make a first enrollment again."""
        return self.step in _RELEASING


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What an order changed.

    :param certificates: how many certificates were revoked, put on hold or taken off it.
    :param claims: how many first enrollments were made possible again.
    """

    device: Device
    certificates: int
    claims: int


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change in the life of a device.

    :param step: what was done; ``None`` for its first certificate, and for what was done before
        steps were noted.
    :param owner: the owner after it.
    """

    step: LifeCycleStep | None
    before: DeviceState
    after: DeviceState
    owner: str | None
    actor: str
    reason: str
    when: datetime


def state_after(step: LifeCycleStep, now: DeviceState, last_living: DeviceState) -> DeviceState:
    """The state that ``step`` leads to from the state ``now``.

    :param last_living: the state that a suspended or revoked device was in before it was shut
        out.
    :raises StepNotPossible: it may not be taken.
    """
    if now not in _FROM[step]:
        possible = ", ".join(sorted(state.value for state in _FROM[step]))
        raise StepNotPossible(
            f"cannot {step.value} a device that is {now.value}, only one that is {possible}"
        )
    still_held = now is DeviceState.REVOKED and last_living is DeviceState.QUARANTINED
    if step is LifeCycleStep.RESET and still_held:
        return last_living
    return _TO.get(step, last_living)
