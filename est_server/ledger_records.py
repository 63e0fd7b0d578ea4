"""What the ledger is told and tells; see :class:`est_server.interfaces.EnrollmentLedger`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509

from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_server.approvals import ApprovalTerms
from est_server.device_records import Registration
from est_server.quotas import Quota


class CertificateState(StrEnum):
    """The state of an issued certificate in the ledger."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate that this server issued.

    :param certificate: the certificate.
    :param sha256: SHA-256 (32 octets) over its DER octets.
    :param device: UDID of the device.
    :param label: the label it was issued under, ``None`` for the default.
    :param spki_sha256: hash of the certified key.
    :param state: a certificate is ``SUPERSEDED`` once a later one was issued to the device under
        the same label.
    :param issued_at: when.
    """

    certificate: x509.Certificate
    sha256: bytes
    device: str
    label: str | None
    spki_sha256: bytes
    state: CertificateState
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class EnrollmentIntent:
    """What is about to be issued, recorded before it is.

    :param request_key: 32 octets that are equal for two requests exactly if the second is a
        retry of the first: same client identity, operation, label, device and key. It does not
        depend on the CSR's octets, which change with every new channel.
    :param operation: ``SIMPLEENROLL`` takes the device's claim under the label;
        ``SIMPLEREENROLL`` does not, but succeeds ``predecessor``. ``SERVERKEYGEN`` does the
        latter if there is a ``predecessor``, else the former.
    :param label: the label, ``None`` for the default.
    :param device: UDID from the grant.
    :param spki_sha256: hash of the CSR's key; ``None`` for ``SERVERKEYGEN``, whose key is made
        once there is a ticket for it.
    :param predecessor: SHA-256 of the certificate being renewed; never ``None`` for
        ``SIMPLEREENROLL``.
    :param transport: how the request came.
    :param peer: the client's address, for the audit trail.
    :param reasons: the grant's reasons.
    :param requested_at: when.
    :param lost_since: for ``SERVERKEYGEN``, how long ago an answer to the same request may have
        been given for this one to be its retry; see :meth:`EnrollmentLedger.begin`.
    :param secret: number of the one-time secret that it uses up one use of.
    :param quotas: what it counts against.
    :param approval: what holds while it waits for an operator's approval; ``None``: it needs none.
    :param registration: the device, if it is to be registered with its first enrollment.
    :param serve_quarantined: whether the label serves devices in quarantine.
    :param client_certificate: SHA-256 of the certificate that the client presented, whoever
        issued it; ``None`` if there was none.
    :param client_keys: SPKI hashes of the keys that the client, and the device behind it, proved
        themselves by; empty if it was by a secret alone.
    :param owners: whose devices the label is for; ``None`` for everybody's.
    """

    request_key: bytes
    operation: Operation
    label: str | None
    device: str
    spki_sha256: bytes | None
    predecessor: bytes | None
    transport: Transport
    peer: str
    reasons: tuple[str, ...]
    requested_at: datetime
    lost_since: datetime | None = None
    secret: int | None = None
    quotas: tuple[Quota, ...] = ()
    approval: ApprovalTerms | None = None
    registration: Registration | None = None
    serve_quarantined: bool = False
    client_certificate: bytes | None = None
    client_keys: frozenset[bytes] = frozenset()
    owners: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class IssuanceTicket:
    """The right to issue one certificate for one intent; see :class:`EnrollmentLedger`."""

    number: int
    intent: EnrollmentIntent


@dataclass(frozen=True, slots=True)
class Claim:
    """A first enrollment that a device has made, or is making, under one label.

    :param issuance: its number in the ledger.
    :param taken_at: when.
    :param serial: that of the certificate, in hex; ``None`` while it is being worked on.
    """

    issuance: int
    taken_at: datetime
    serial: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused request, for the audit trail.

    ``reason`` is a :class:`~est_protocol.errors.RefusalReason` code, ``device`` the UDID where it
    was known by then.
    """

    operation: Operation | None
    label: str | None
    transport: Transport
    peer: str
    reason: str
    sentence: str
    detail: str
    device: str | None
    refused_at: datetime
