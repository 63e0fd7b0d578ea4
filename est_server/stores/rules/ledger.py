"""The ledger's rules, each function inside a transaction that its caller began.

A certificate is issued in two transactions, with the authority's work between them, or in one, if
the authority takes no time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from cryptography import x509

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Pending
from est_server.device_records import Device
from est_server.journal import Event
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate
from est_server.stores.rules import attempts, certificates, claims, registry, rights, standing
from est_server.stores.rules.attempts import Worker
from est_server.stores.rules.certificates import Made
from est_server.stores.rules.rights import Right
from est_server.stores.transaction import Transaction

Begun = IssuanceTicket | IssuedCertificate | Pending | RequestRefused


class Fresh(NamedTuple):
    """A certificate that was issued, and the number of its issuance."""

    number: int
    issued: IssuedCertificate


def begin(db: Transaction, intent: EnrollmentIntent, worker: Worker, now: datetime) -> Begun:
    """See :meth:`est_server.interfaces.EnrollmentLedger.begin`.

    A refusal that is returned, not raised, is to be raised once what was written is kept.
    """
    right = rights.require(db, intent, worker, now)
    if not isinstance(right, Right):
        return right
    number = attempts.begin(db, intent, worker, right.event, now)
    if right.event is Event.CLAIMED:
        claims.take(db, intent, number, now, counted=right.device is not None)
        if right.device is not None:
            registry.count_claims(db, right.device, 1)
    return IssuanceTicket(number, intent)


def issue(
    db: Transaction,
    intent: EnrollmentIntent,
    certify: Callable[[], x509.Certificate],
    worker: Worker,
    now: datetime,
) -> Fresh | IssuedCertificate | Pending | Exception:
    """See :meth:`est_server.interfaces.EnrollmentLedger.issue`.

    An error that is returned, not raised, is to be raised once what was written is kept.
    """
    right = rights.require(db, intent, worker, now)
    if not isinstance(right, Right):
        return right
    try:
        made = Made.of(certify())
        _require_certified_key(intent, made)
    except Exception as error:
        number = attempts.begin(db, intent, worker, right.event, now)
        attempts.abandon(db, number, repr(error), now)
        return error
    attempts.supersede(db, intent)
    number = attempts.issue(db, intent, made, worker, right.event, now)
    is_first = right.event is Event.CLAIMED
    if is_first:
        claims.take(db, intent, number, now, counted=right.device is not None)
    return Fresh(number, _issued(db, intent, made, right.device, now, claims=int(is_first)))


def complete(
    db: Transaction, ticket: IssuanceTicket, certificate: x509.Certificate, now: datetime
) -> IssuedCertificate:
    """See :meth:`est_server.interfaces.EnrollmentLedger.complete`."""
    intent, made = ticket.intent, Made.of(certificate)
    row = db.execute(
        "SELECT status, sha256 FROM issuances WHERE number = ?", (ticket.number,)
    ).fetchone()
    if row is None or row[0] == "abandoned" or (row[0] == "issued" and row[1] != made.sha256):
        raise _taken_over(ticket, made)
    if row[0] == "issued":
        recorded = certificates.find(db, made.sha256)
        assert recorded is not None
        return recorded
    _require_certified_key(intent, made)
    device = standing.require_for(db, intent)
    if claims.holder(db, intent, device) != ticket.number:
        rights.require_kept(db, intent, device)
    attempts.supersede(db, intent)
    attempts.complete(db, intent, ticket.number, made, now)
    return _issued(db, intent, made, device, now, claims=0)


def abandon(db: Transaction, number: int, *, reason: str, now: datetime, kept: int) -> None:
    """See :meth:`est_server.interfaces.EnrollmentLedger.abandon`.

    :param kept: how many abandoned rows stay for the audit trail.
    """
    attempts.abandon(db, number, reason, now)
    attempts.prune(db, number, kept)


def _issued(
    db: Transaction,
    intent: EnrollmentIntent,
    made: Made,
    device: Device | None,
    now: datetime,
    *,
    claims: int,
) -> IssuedCertificate:
    if device is not None:
        registry.note_certificate(db, device, now, claims=claims)
    return made.record(intent, now)


def _require_certified_key(intent: EnrollmentIntent, made: Made) -> None:
    if intent.spki_sha256 not in (None, made.spki_sha256):
        raise RequestRefused(
            RefusalReason.INTERNAL_ERROR,
            "the server made a mistake",
            detail=f"certificate {made.serial} is for another key than asked for",
        )


def _taken_over(ticket: IssuanceTicket, made: Made) -> RequestRefused:
    # The certificate exists but never leaves the server; the audit trail must name it.
    return RequestRefused(
        RefusalReason.TRY_LATER,
        "the request took too long; send it again",
        detail=f"issuance {ticket.number} was given up; discarded certificate with serial "
        f"{made.serial}, SHA-256 {made.sha256.hex()}",
        retry_after=rights.WORKING_RETRY_AFTER,
    )
