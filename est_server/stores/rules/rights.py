"""Who may have a certificate; each function inside a transaction of the caller."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Pending
from est_protocol.operations import Operation
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.device_records import Device
from est_server.journal import Event
from est_server.ledger_records import CertificateState, EnrollmentIntent, IssuedCertificate
from est_server.stores.rules import (
    approvals,
    attempts,
    certificates,
    claims,
    journal,
    quotas,
    registry,
    sealed_issuances,
    secrets,
    standing,
)
from est_server.stores.rules.attempts import Worker
from est_server.stores.rules.sealed_issuances import Issuance
from est_server.stores.rules.values import label_column, to_column
from est_server.stores.transaction import Transaction

#: Seconds after which a client whose request is being worked on should ask again.
WORKING_RETRY_AFTER = 5


class Right(NamedTuple):
    """The right to one certificate.

    :param event: ``CLAIMED`` if a claim has to be taken for it, else ``BEGUN``.
    :param device: the device that it is for, if the registry has it.
    """

    event: Event
    device: Device | None


def require(
    db: Transaction, intent: EnrollmentIntent, worker: Worker, now: datetime
) -> Right | IssuedCertificate | Pending | RequestRefused:
    """See :meth:`est_server.interfaces.EnrollmentLedger.begin`; nothing is taken yet.

    A refusal that is returned, not raised, is to be raised once what was written is kept.
    """
    # What is refused leaves no trace: the caller undoes what was written before an exception.
    device = standing.require_for(db, intent)
    if intent.registration is not None:
        registry.require_free(db, intent.registration)
    repeated = _repeated(db, intent, device, now)
    if repeated is not None:
        return repeated
    rivals, cleared = attempts.rivals(db, intent, worker, now)
    if cleared:
        # The claim of an attempt that was cleared away is not counted any more.
        device = registry.find_by_udid(db, intent.device)
    if any(request_key == intent.request_key for request_key in rivals):
        raise _working("the same request is being worked on")
    takes_claim = require_kept(db, intent, device)
    if rivals:
        raise _working("another request of this device is being worked on")
    if not takes_claim:
        return Right(Event.BEGUN, device)
    return _first_enrollment(db, intent, device, now)


def _repeated(
    db: Transaction, intent: EnrollmentIntent, device: Device | None, now: datetime
) -> IssuedCertificate | None:
    """The certificate that answered the same request before, unless its claim was given back."""
    repeated = certificates.find_repeated(db, intent, now)
    if repeated is None:
        return None
    if _is_first(intent) and claims.holder(db, intent, device) != repeated.number:
        return None
    return repeated.issued


def _first_enrollment(
    db: Transaction, intent: EnrollmentIntent, device: Device | None, now: datetime
) -> Right | Pending | RequestRefused:
    if intent.secret is not None:
        secrets.require_use_left(db, intent.secret, now)
    if intent.approval is not None:
        # Nobody is to decide about what cannot be.
        quotas.require_left(db, intent.quotas, now)
        if not approvals.is_approved(db, intent, intent.approval, now):
            return Pending(intent.approval.seconds)
    if intent.registration is not None:
        device = registry.register(db, intent.registration, now)
        held = standing.quarantine(device, intent)
        if held is not None:
            # The operator who is to release it has to find it.
            return held
    return Right(Event.CLAIMED, device)


def require_kept(db: Transaction, intent: EnrollmentIntent, device: Device | None) -> bool:
    """Require a claim that is free or that the request may use again, or a predecessor.

    :param device: the device as it is now, if it has a row.
    :return: whether the claim has to be taken.
    """
    if not _is_first(intent):
        if not _answer_was_lost(db, intent, since=0):
            _require_active_predecessor(db, intent)
        return False
    claim = claims.holder(db, intent, device)
    if claim is None:
        journal.require_no_claim(db, intent.device, label_column(intent.label))
        return True
    if _answer_was_lost(db, intent, since=claim):
        return False
    key = claims.key(db, claim)
    another = intent.spki_sha256 not in (None, key)
    raise AlarmingRefusal(
        AlarmKind.SECOND_KEY if another else AlarmKind.SECOND_ENROLLMENT,
        RefusalReason.ALREADY_CLAIMED,
        "the device has made its first enrollment already",
        detail=f"device {intent.device}: claimed by issuance {claim} with "
        f"{'another key, ' if another else ''}{key.hex()}",
    )


def _is_first(intent: EnrollmentIntent) -> bool:
    return intent.operation is not Operation.SIMPLEREENROLL and intent.predecessor is None


def _answer_was_lost(db: Transaction, intent: EnrollmentIntent, *, since: int) -> bool:
    """Whether the client may be without the generated key that the active certificate is for.

    :param since: the number of the first issuance that counts.
    """
    if intent.operation is not Operation.SERVERKEYGEN or intent.lost_since is None:
        return False
    same = sealed_issuances.where(
        db,
        "request_key = ? AND operation = 'serverkeygen' AND status = 'issued' "
        "AND device = ? AND label = ? AND predecessor IS NOT DISTINCT FROM ? AND number >= ?",
        intent.request_key,
        intent.device,
        label_column(intent.label),
        intent.predecessor,
        since,
    )
    active = next((issued for issued in same if issued.state == CertificateState.ACTIVE), None)
    if active is None:
        return False
    _require_present(db, active)
    return min(issued.finished_at for issued in same) >= to_column(intent.lost_since)


def _require_active_predecessor(db: Transaction, intent: EnrollmentIntent) -> None:
    issued = sealed_issuances.find(db, intent.predecessor)
    if issued is None:
        raise RequestRefused(
            RefusalReason.CERTIFICATE_UNKNOWN, "the certificate was not issued by this server"
        )
    if (issued.device, issued.label) != (intent.device, label_column(intent.label)):
        raise RequestRefused(
            RefusalReason.IDENTITY_MISMATCH,
            "the certificate was issued to another device or under another label",
            detail=f"it was issued to device {issued.device} under label {issued.label!r}",
        )
    if issued.state == CertificateState.REVOKED:
        raise RequestRefused(RefusalReason.CERTIFICATE_REVOKED, "the certificate is revoked")
    if issued.state != CertificateState.ACTIVE:
        raise AlarmingRefusal(
            AlarmKind.OLD_CERTIFICATE,
            RefusalReason.CERTIFICATE_SUPERSEDED,
            "the certificate was renewed already",
        )
    _require_present(db, issued)


def _require_present(db: Transaction, active: Issuance) -> None:
    """Require that the journal knows of nothing that came after an active certificate: its row may
    be one that was genuine once."""
    journal.require_latest_issued(db, active.device, active.label, active.sha256)
    journal.require_not_revoked(db, active.device, active.label, active.serial)


def _working(sentence: str) -> RequestRefused:
    return RequestRefused(RefusalReason.TRY_LATER, sentence, retry_after=WORKING_RETRY_AFTER)
