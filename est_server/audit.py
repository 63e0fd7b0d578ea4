"""The audit trail: one log record per answer, and refusals of proven clients in the ledger.

Records go to the logger ``est_server.audit`` with a dictionary as ``record.audit``: transport,
peer, operation, label, outcome, and where known device, serial, reason, sentence and detail; beside
the peer, who ended its channel in this server's place and the registration authority that it is.
"""

from __future__ import annotations

import logging

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import EstRequest, Transport
from est_protocol.operations import Operation
from est_server.interfaces import Clock, EnrollmentLedger
from est_server.ledger_records import IssuedCertificate, Refusal
from est_server.registration_authorities import RegistrationAuthority

_audit = logging.getLogger("est_server.audit")

#: Refusals that say something about a client or a device. The others are about octets; they
#: would let anybody who can connect fill the ledger, and are logged only.
_WORTH_RECORDING = frozenset(
    {
        RefusalReason.POP_LINKING_FAILED,
        RefusalReason.CERTIFICATE_NOT_TRUSTED,
        RefusalReason.CERTIFICATE_EXPIRED,
        RefusalReason.CERTIFICATE_REVOKED,
        RefusalReason.CERTIFICATE_SUPERSEDED,
        RefusalReason.CERTIFICATE_UNKNOWN,
        RefusalReason.UNKNOWN_DEVICE,
        RefusalReason.DEVICE_NOT_ACTIVE,
        RefusalReason.DEVICE_QUARANTINED,
        RefusalReason.ALREADY_CLAIMED,
        RefusalReason.QUOTA_EXCEEDED,
        RefusalReason.APPROVAL_DENIED,
        RefusalReason.IDENTITY_MISMATCH,
        RefusalReason.KEY_NOT_ALLOWED,
        RefusalReason.KEY_COMPROMISED,
        RefusalReason.NOT_AUTHORIZED,
        RefusalReason.RECORD_TAMPERED,
    }
)

#: Characters of one value. A label comes from the network and may be as long as a request line.
_LONGEST = 256


class AuditTrail:
    """Writes the audit trail of one service."""

    def __init__(self, ledger: EnrollmentLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    def answered(self, outcome: str, request: EstRequest, peer: PeerCredentials) -> None:
        """Note an answer that is no certificate."""
        _write(logging.INFO, outcome, _of(request, peer))

    def decided(
        self,
        outcome: str,
        request: EstRequest,
        peer: PeerCredentials,
        issued: IssuedCertificate | None,
        authority: RegistrationAuthority | None,
    ) -> None:
        """Note a certificate that was ``issued`` or ``replayed``, or is ``pending``."""
        fields = _of(request, peer)
        fields["registration_authority"] = authority.name if authority else None
        if issued is not None:
            fields |= {
                "device": issued.device,
                "serial": f"{issued.certificate.serial_number:x}",
                "key_sha256": issued.spki_sha256.hex(),
            }
        _write(logging.INFO, outcome, fields)

    def refused_by_transport(
        self,
        refused: RequestRefused,
        operation: Operation | None,
        label: str | None,
        transport: Transport,
        peer: PeerCredentials,
    ) -> None:
        """Note a refusal from before there was a request."""
        fields: dict[str, str | None] = {
            "transport": transport.value,
            "peer": peer.address,
            "terminated_by": peer.terminated_by or None,
            "operation": operation.value if operation else None,
            "label": label,
        }
        _write(logging.WARNING, "refused", fields | _why(refused))

    async def refused(
        self, refused: RequestRefused, request: EstRequest, peer: PeerCredentials
    ) -> None:
        """Note a refusal, in the ledger too if it says something about a client or a device.

        A ledger that cannot be written does not change the answer, which is no already.
        """
        _write(logging.WARNING, "refused", _of(request, peer) | _why(refused))
        if refused.reason not in _WORTH_RECORDING:
            return
        refusal = Refusal(
            operation=request.operation,
            label=request.label,
            transport=request.transport,
            peer=peer.address,
            reason=refused.reason.value,
            sentence=refused.sentence,
            detail=_with_authority(refused),
            device=refused.device,
            refused_at=self._clock.now(),
        )
        try:
            await self._ledger.record_refusal(refusal)
        except RequestRefused as unavailable:
            _audit.error("a refusal could not be recorded in the ledger: %s", unavailable)


def _of(request: EstRequest, peer: PeerCredentials) -> dict[str, str | None]:
    return {
        "transport": request.transport.value,
        "peer": peer.address,
        "terminated_by": peer.terminated_by or None,
        "operation": request.operation.value,
        "label": request.label,
    }


def _with_authority(refused: RequestRefused) -> str:
    """The detail for the ledger, which has no column for a registration authority."""
    name = refused.registration_authority
    return "; ".join(filter(None, (refused.detail, f"through {name}" if name else "")))


def _why(refused: RequestRefused) -> dict[str, str | None]:
    return {
        "registration_authority": refused.registration_authority,
        "device": refused.device,
        "reason": refused.reason.value,
        "sentence": refused.sentence,
        "detail": refused.detail or None,
    }


def _write(level: int, outcome: str, fields: dict[str, str | None]) -> None:
    known = {"outcome": outcome} | {key: value[:_LONGEST] for key, value in fields.items() if value}
    text = " ".join(f"{key}={value!r}" for key, value in known.items())
    _audit.log(level, "%s", text, extra={"audit": known})
