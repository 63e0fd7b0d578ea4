"""What the tests of the stores put in: a clock, intents and certificates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from est_protocol.keys import spki_sha256
from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_server.device_records import ListDescription, ListedDevice
from est_server.ledger_records import EnrollmentIntent, Refusal
from est_server.life_cycle import DeviceOrder, LifeCycleStep
from est_server.revocations import RevocationReason
from est_server.stores.integrity_key import IntegrityKey
from tests.pki import PRESENT, make_ca, make_key, make_leaf

#: The key that the rows of the tests' stores are sealed with.
INTEGRITY_KEY = IntegrityKey(bytes(range(32)))


@dataclass
class FakeClock:
    """Time that passes when it is told to."""

    time: datetime = PRESENT

    def now(self) -> datetime:
        """The current time."""
        return self.time

    def advance(self, **amount: float) -> None:
        """Let time pass; takes what :class:`datetime.timedelta` takes."""
        self.time += timedelta(**amount)


def digest(text: str) -> bytes:
    """32 octets that are equal for equal texts."""
    return hashlib.sha256(text.encode()).digest()


def first_enrollment(
    device: str = "device-1", *, key: str = "a", label: str | None = None
) -> EnrollmentIntent:
    """The intent of a first enrollment; the same request for the same arguments."""
    return EnrollmentIntent(
        request_key=digest(f"enroll {device} {key} {label}"),
        operation=Operation.SIMPLEENROLL,
        label=label,
        device=device,
        spki_sha256=spki_sha256(make_key(key).public_key()),
        predecessor=None,
        transport=Transport.HTTPS,
        peer="127.0.0.1:4711",
        reasons=("listed",),
        requested_at=PRESENT,
    )


def renewal(
    predecessor: bytes, device: str = "device-1", *, key: str = "b", label: str | None = None
) -> EnrollmentIntent:
    """The intent of a renewal; the same request for the same arguments."""
    return EnrollmentIntent(
        request_key=digest(f"renew {device} {key} {label} {predecessor.hex()}"),
        operation=Operation.SIMPLEREENROLL,
        label=label,
        device=device,
        spki_sha256=spki_sha256(make_key(key).public_key()),
        predecessor=predecessor,
        transport=Transport.COAPS,
        peer="127.0.0.1:4711",
        reasons=("renewal",),
        requested_at=PRESENT,
    )


def generated_key(
    device: str = "device-1",
    *,
    predecessor: bytes | None = None,
    label: str | None = None,
    client: str = "a",
    lost_since: datetime | None = PRESENT,
) -> EnrollmentIntent:
    """The intent of a request for a generated key; the same request for the same arguments."""
    return EnrollmentIntent(
        request_key=digest(f"generate {device} {client} {label} {predecessor!r}"),
        operation=Operation.SERVERKEYGEN,
        label=label,
        device=device,
        spki_sha256=None,
        predecessor=predecessor,
        transport=Transport.HTTPS,
        peer="127.0.0.1:4711",
        reasons=("listed",),
        requested_at=PRESENT,
        lost_since=lost_since,
    )


def certificate(key: str = "a", *, lifetime: timedelta = timedelta(days=90)) -> x509.Certificate:
    """A fresh certificate for the key of that name."""
    ca = make_ca("ledger")
    leaf = make_leaf(ca, "device", key=make_key(key), not_after=PRESENT + lifetime)
    return leaf.chain[0]


def listed(number: int, **attributes: str) -> ListedDevice:
    """A row of a device list; the same for the same arguments."""
    return ListedDevice(f"device-{number}", digest(f"key {number}"), attributes)


def order(
    step: LifeCycleStep,
    device: str = "device-1",
    *,
    code: RevocationReason | None = None,
    owner: str | None = None,
) -> DeviceOrder:
    """An operator's order; a transfer is to ``owner`` or somebody."""
    if step is LifeCycleStep.TRANSFER and owner is None:
        owner = "somebody"
    return DeviceOrder(device, step, "operator", "because", code, owner)


def refusal(detail: str = "") -> Refusal:
    """A refused request."""
    return Refusal(
        operation=Operation.SIMPLEENROLL,
        label=None,
        transport=Transport.HTTPS,
        peer="127.0.0.1:4711",
        reason="unknown-device",
        sentence="the device is not listed",
        detail=detail,
        device=None,
        refused_at=PRESENT,
    )


def describe(name: str = "list-1") -> ListDescription:
    """What a list called ``name`` is as a whole; the same list for the same name."""
    return ListDescription(name, digest(f"octets of {name}"), "acme", PRESENT)
