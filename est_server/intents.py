"""What is written down of a request before anything is issued, the same each time it comes."""

from __future__ import annotations

import hashlib
from datetime import datetime

from est_protocol.operations import Operation
from est_server.interfaces import IssuanceGrant
from est_server.ledger_records import EnrollmentIntent, IssuedCertificate
from est_server.rules import Exchange


def intent_of(
    exchange: Exchange, grant: IssuanceGrant, issued: IssuedCertificate | None
) -> EnrollmentIntent:
    """What the ledger is told about a request that is granted.

    :param issued: the certificate that the client authenticated with, if it is one of ours.
    """
    request, csr, authority = exchange.request, exchange.csr, exchange.registration_authority
    renewed = exchange.predecessor(issued)
    predecessor = renewed.sha256 if renewed else None
    # What stays the same when a client asks again over a new channel: its identity and its key.
    # Not the CSR's octets, which change with the channel binding.
    known = exchange.client_key
    user = exchange.user.name.encode() if exchange.user else b""
    identity = predecessor or known or hashlib.sha256(user).digest()
    parts = (
        request.operation.value.encode(),
        b"" if request.label is None else b"/" + request.label.encode(),
        grant.device.encode(),
        identity,
        exchange.key_sha256 or b"",
        # A certificate with the old names is no answer to who asks for new ones.
        *((csr.change_subject_name.encode(),) if csr.change_subject_name else ()),
    )
    digest = hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts))
    return EnrollmentIntent(
        request_key=digest.digest(),
        operation=request.operation,
        label=request.label,
        device=grant.device,
        spki_sha256=exchange.key_sha256,
        predecessor=predecessor,
        transport=request.transport,
        peer=exchange.peer.address,
        reasons=(*grant.reasons, *([f"through {authority.name}"] if authority else ())),
        requested_at=exchange.received_at,
        secret=None if renewed else grant.secret,
        quotas=() if renewed else grant.quotas,
        approval=None if renewed else grant.approval,
        registration=None if renewed else grant.registration,
        serve_quarantined=exchange.policy.serve_quarantined,
        lost_since=_lost_since(exchange),
        client_certificate=exchange.peer.certificate_sha256,
        client_keys=frozenset(key for key in (known, exchange.peer.key_sha256) if key is not None),
        owners=exchange.policy.owners,
    )


def order_id(intent: EnrollmentIntent, key_sha256: bytes) -> bytes:
    """What tells an authority one order from another: the request.

    And the key, where it is generated: that is another one at each attempt.
    """
    if intent.spki_sha256 is not None:
        return intent.request_key
    return hashlib.sha256(intent.request_key + key_sha256).digest()


def _lost_since(exchange: Exchange) -> datetime | None:
    generation = exchange.policy.key_generation
    if generation is None or exchange.request.operation is not Operation.SERVERKEYGEN:
        return None
    return exchange.received_at - generation.retry_window
