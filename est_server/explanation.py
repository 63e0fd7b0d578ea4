"""What would be decided about a request, and why, in words for an operator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography import x509

from est_protocol.messages import Transport
from est_server.device_records import Device
from est_server.interfaces import DeviceRegistry
from est_server.ledger_administration import LedgerAdministration
from est_server.ledger_records import Claim
from est_server.preview import Preview
from est_server.service import EnrollmentService
from est_server.supposition import Supposition

_NAME_KINDS: dict[type[x509.GeneralName], str] = {
    x509.DNSName: "dns",
    x509.UniformResourceIdentifier: "uri",
    x509.IPAddress: "ip",
    x509.RFC822Name: "email",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be decided about a supposed request.

    :param udid: the device that it is about, as far as that is known.
    :param device: the same, if it is listed.
    :param claim: the claim of that device under the label.
    """

    supposed: Supposition
    preview: Preview
    udid: str | None
    device: Device | None
    claim: Claim | None

    def as_dict(self) -> dict[str, Any]:
        """The same as what JSON can say; what is not known is ``None``."""
        request = self.supposed.request
        return {
            "outcome": self.preview.outcome.value,
            "operation": request.operation.value,
            "label": request.label,
            "transport": request.transport.value,
            **self._refusal(),
            "device": self._device(),
            "claim": self._claim(),
            "certificate": self._certificate(),
            "repeats": self._repeats(),
            "assumptions": list(self.supposed.assumptions),
        }

    def as_text(self) -> str:
        """The same as lines for people."""
        said = self.as_dict()
        status = said["status"]
        lines = [" ".join(filter(None, (said["outcome"], said["reason"], status)))]
        rows = [
            ("request", f"{said['operation']} over {said['transport']}, {self._label_text()}"),
            ("client sees", said["sentence"]),
            ("detail", said["detail"]),
            ("retry after", f"{said['retry_after']} s" if said["retry_after"] else None),
            *self._record_rows(said),
        ]
        lines += [f"  {name:<12} {text}" for name, text in rows if text]
        lines += ["", "Taken for granted, since nobody was asked:"]
        lines += [f"  - {assumption}" for assumption in self.supposed.assumptions]
        lines.append("  - the certificate authority does as it is told")
        return "\n".join(lines)

    def _record_rows(self, said: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
        if device := said["device"]:
            since = f"since {device['since']}"
            yield "device", f"{device['udid']}: {device['state']} {since}"
            yield "listed key", device["key_sha256"]
        elif self.udid is not None:
            yield "device", f"{self.udid}: not listed"
        if self.udid is not None:
            yield "claim", _claim_text(said["claim"])
        if certificate := said["certificate"]:
            yield "because", "; ".join(certificate["reasons"])
            yield "subject", certificate["subject"] or "(empty)"
            yield "names", ", ".join(certificate["subject_alt_names"])
            yield "validity", certificate["validity"]
            yield "key", self._key_text(certificate)
        yield "repeats", said["repeats"] and f"certificate {said['repeats']}"

    def _label_text(self) -> str:
        label = self.supposed.request.label
        return "no label" if label is None else f"label {label!r}"

    def _key_text(self, certificate: dict[str, Any]) -> str:
        sha256, kind = certificate["key_sha256"], certificate["key_kind"] or "kind unknown"
        if sha256 is None:
            return f"generated here, {kind}"
        listed = self.device is not None and sha256 == self.device.listed.spki_sha256.hex()
        return f"{sha256} ({kind}{', the listed key' if listed else ''})"

    def _refusal(self) -> dict[str, Any]:
        refused, pending = self.preview.refused, self.preview.pending
        if refused is None:
            waits = pending.retry_after if pending else None
            status = self._status((202, (5, 3))) if pending else None
            nothing = dict.fromkeys(("reason", "sentence", "detail"))
            return {**nothing, "status": status, "retry_after": waits}
        return {
            "reason": refused.reason.value,
            "sentence": refused.sentence,
            "detail": refused.detail or None,
            "status": self._status(refused.status),
            "retry_after": refused.retry_after,
        }

    def _status(self, status: tuple[int, tuple[int, int]]) -> str:
        http, coap = status
        if self.supposed.request.transport is Transport.HTTPS:
            return str(http)
        return f"{coap[0]}.{coap[1]:02d}"

    def _device(self) -> dict[str, Any] | None:
        if self.device is None:
            return None
        return {
            "udid": self.device.udid,
            "state": self.device.state.value,
            "since": self.device.changed_at.isoformat(timespec="seconds"),
            "key_sha256": self.device.listed.spki_sha256.hex(),
            "attributes": dict(self.device.listed.attributes),
        }

    def _claim(self) -> dict[str, Any] | None:
        if self.claim is None:
            return None
        return {
            "issuance": self.claim.issuance,
            "taken_at": self.claim.taken_at.isoformat(timespec="seconds"),
            "serial": self.claim.serial,
        }

    def _certificate(self) -> dict[str, Any] | None:
        """What was granted, whether or not the ledger then refuses it."""
        decision = self.preview.decision
        if decision is None:
            return None
        grant, delivery = decision.grant, decision.delivery
        key = decision.intent.spki_sha256
        return {
            "device": grant.device,
            "reasons": list(decision.intent.reasons),
            "subject": grant.subject.rfc4514_string(),
            "subject_alt_names": [_name_text(name) for name in grant.subject_alt_names],
            "validity": _duration(decision.validity),
            "key_sha256": key.hex() if key else None,
            "key_kind": delivery.kind if delivery else self.supposed.key_kind,
        }

    def _repeats(self) -> str | None:
        repeats = self.preview.repeats
        return f"{repeats.certificate.serial_number:x}" if repeats else None


async def explain(
    service: EnrollmentService,
    registry: DeviceRegistry,
    ledger: LedgerAdministration,
    supposed: Supposition,
    *,
    udid: str | None = None,
) -> Explanation:
    """Ask ``service`` what it would decide, and the records what they know of the device.

    :param udid: the device that asks, where it is known before.
    """
    request = supposed.request
    preview = await service.preview(request, supposed.peer, stand_in=supposed.stand_in)
    if preview.decision is not None:
        udid = preview.decision.grant.device
    elif preview.refused is not None:
        udid = preview.refused.device or udid
    if udid is None and supposed.client_key is not None:
        device = await registry.find_by_key(supposed.client_key)
    else:
        device = None if udid is None else await registry.find_by_udid(udid)
    udid = device.udid if device else udid
    claim = None if udid is None else await ledger.find_claim(udid, request.label)
    return Explanation(supposed, preview, udid, device, claim)


def _claim_text(claim: dict[str, Any] | None) -> str:
    if claim is None:
        return "free"
    by = f"certificate {claim['serial']}" if claim["serial"] else "a request under way"
    return f"taken at {claim['taken_at']} by issuance {claim['issuance']}, {by}"


def _duration(validity: timedelta) -> str:
    return f"{validity.days} d" if not validity % timedelta(days=1) else str(validity)


def _name_text(name: x509.GeneralName) -> str:
    return f"{_NAME_KINDS.get(type(name), type(name).__name__)}:{name.value}"
