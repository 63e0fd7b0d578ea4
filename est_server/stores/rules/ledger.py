"""The ledger's rules, each function inside a transaction that its caller began.

An attempt to issue is one row of ``issuances``, and its number is the fencing token: taking over
from a dead attempt abandons its row and makes a new one, so whatever comes late from the old
attempt finds its row abandoned and is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.keys import spki_sha256
from est_protocol.messages import Pending
from est_protocol.operations import Operation
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.journal import Event
from est_server.ledger_records import (
    CertificateState,
    Claim,
    EnrollmentIntent,
    IssuanceTicket,
    IssuedCertificate,
)
from est_server.stores.rules import approvals, journal, quotas, registry, secrets, standing
from est_server.stores.rules.values import (
    CERTIFICATE_COLUMNS,
    from_column,
    issued_certificate,
    label_column,
    to_column,
)
from est_server.stores.transaction import Transaction

#: Seconds after which a client whose request is being worked on should ask again.
_WORKING_RETRY_AFTER = 5

#: Abandoned rows are counted once in so many abandonments, not each time.
_PRUNE_EVERY = 64

#: Stands in ``spki_sha256`` until the key is made.
_NO_KEY_YET = bytes(32)


Begun = IssuanceTicket | IssuedCertificate | Pending | RequestRefused


@dataclass(slots=True)
class Worker:
    """Who begins attempts: one open store.

    :param owner: identifies it among all that share the database.
    :param lease: how long others leave its attempts alone.
    :param held: numbers of attempts whose tickets are in the hands of a caller. The writer's
        thread adds to it, the event loop takes away; a set is safe for that.
    """

    owner: str
    lease: timedelta
    held: set[int] = field(default_factory=set)


def begin(db: Transaction, intent: EnrollmentIntent, worker: Worker, now: datetime) -> Begun:
    """See :meth:`est_server.interfaces.EnrollmentLedger.begin`.

    A refusal that is returned, not raised, is to be raised once what was written is kept.
    """
    # What is refused leaves no trace: the caller undoes what was written before an exception.
    standing.require_for(db, intent)
    if intent.registration is not None:
        registry.require_free(db, intent.registration)
    issued = _already_issued(db, intent, now)
    if issued is not None:
        return issued
    rivals = _living_rivals(db, intent, worker, now)
    if any(request_key == intent.request_key for request_key in rivals):
        raise _working("the same request is being worked on")
    takes_claim = _require_right(db, intent)
    if rivals:
        raise _working("another request of this device is being worked on")
    if not takes_claim:
        return IssuanceTicket(_insert_attempt(db, intent, worker, Event.BEGUN, now), intent)
    if intent.secret is not None:
        secrets.require_use_left(db, intent.secret, now)
    if intent.approval is not None:
        # Nobody is to decide about what cannot be.
        quotas.require_left(db, intent.quotas, now)
        if not approvals.is_approved(db, intent, intent.approval, now):
            return Pending(intent.approval.seconds)
    if intent.registration is not None:
        held = standing.quarantine(registry.register(db, intent.registration, now), intent)
        if held is not None:
            # The operator who is to release it has to find it.
            return held
    number = _insert_attempt(db, intent, worker, Event.CLAIMED, now)
    _take(db, intent, number, now)
    return IssuanceTicket(number, intent)


def _take(db: Transaction, intent: EnrollmentIntent, number: int, now: datetime) -> None:
    """Take, in the name of an attempt, the claim and all that a claim takes."""
    db.execute(
        "INSERT INTO claims (device, label, issuance) VALUES (?, ?, ?)",
        (intent.device, label_column(intent.label), number),
    )
    if intent.secret is not None:
        secrets.take_use(db, intent.secret, number)
    quotas.take(db, intent.quotas, number, now)
    if intent.approval is not None:
        approvals.use(db, intent, number)


def complete(
    db: Transaction, ticket: IssuanceTicket, certificate: x509.Certificate, now: datetime
) -> IssuedCertificate:
    """See :meth:`est_server.interfaces.EnrollmentLedger.complete`."""
    intent = ticket.intent
    der = certificate.public_bytes(Encoding.DER)
    sha256 = hashlib.sha256(der).digest()
    row = db.execute(
        "SELECT status, sha256 FROM issuances WHERE number = ?", (ticket.number,)
    ).fetchone()
    if row is None or row[0] == "abandoned" or (row[0] == "issued" and row[1] != sha256):
        raise _taken_over(ticket, certificate, sha256)
    if row[0] == "in-progress":
        _require_certified_key(intent, certificate)
        device = standing.require_for(db, intent)
        if _claim(db, intent) != ticket.number:
            _require_right(db, intent)
        issued = _record_certificate(db, ticket, der, certificate, sha256, now)
        if device is not None:
            registry.mark_enrolled(db, device, now)
        return issued
    recorded = find_certificate(db, sha256)
    assert recorded is not None
    return recorded


def abandon(db: Transaction, number: int, *, reason: str, now: datetime, kept: int) -> None:
    """See :meth:`est_server.interfaces.EnrollmentLedger.abandon`.

    :param kept: how many abandoned rows stay for the audit trail.
    """
    _abandon_attempt(db, number, reason, now)
    if number % _PRUNE_EVERY == 0:
        db.execute(
            "DELETE FROM issuances WHERE status = 'abandoned' AND number <= "
            "(SELECT number FROM issuances WHERE status = 'abandoned' "
            "ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (kept,),
        )


def find_certificate(db: Transaction, sha256: bytes) -> IssuedCertificate | None:
    """The record of the certificate with this hash."""
    row = db.execute(
        f"SELECT {CERTIFICATE_COLUMNS} FROM issuances WHERE sha256 = ?", (sha256,)
    ).fetchone()
    return None if row is None else issued_certificate(row)


def find_renewable(
    db: Transaction, spki_sha256: bytes, label: str | None, lost_since: datetime
) -> IssuedCertificate | None:
    """See :meth:`est_server.interfaces.EnrollmentLedger.find_renewable`."""
    rows = db.execute(
        f"SELECT {CERTIFICATE_COLUMNS}, operation, predecessor FROM issuances "
        "WHERE status = 'issued' AND spki_sha256 = ? AND state = 'active' AND label = ? LIMIT 2",
        (spki_sha256, label_column(label)),
    ).fetchall()
    if len(rows) != 1:
        return None
    *columns, operation, predecessor = rows[0]
    active = issued_certificate(tuple(columns))
    if operation == Operation.SIMPLEREENROLL.value and active.issued_at >= lost_since:
        renewed = find_certificate(db, predecessor)
        if renewed is not None and renewed.spki_sha256 == spki_sha256:
            return renewed
    return active


# What life-cycle orders need


def good_certificates(db: Transaction, device: str, now: datetime) -> list[tuple[int, bytes]]:
    """Number and SHA-256 of each certificate of ``device`` that has not ended, superseded ones
    included: they verify like any other."""
    return db.execute(
        "SELECT number, sha256 FROM issuances WHERE device = ? AND status = 'issued' "
        "AND state <> 'revoked' AND not_after > ? ORDER BY number",
        (device, to_column(now)),
    ).fetchall()


def certified_keys(db: Transaction, device: str) -> list[bytes]:
    """The SPKI hashes of all keys that were ever certified for ``device``."""
    rows = db.execute(
        "SELECT DISTINCT spki_sha256 FROM issuances WHERE device = ? AND status = 'issued'",
        (device,),
    ).fetchall()
    return [key for (key,) in rows]


def certificates_of_key(db: Transaction, key: bytes, now: datetime) -> list[bytes]:
    """SHA-256 of each certificate for the key that has not ended, whosever it is."""
    rows = db.execute(
        "SELECT sha256 FROM issuances WHERE spki_sha256 = ? AND status = 'issued' "
        "AND state <> 'revoked' AND not_after > ? ORDER BY number",
        (key, to_column(now)),
    ).fetchall()
    return [sha256 for (sha256,) in rows]


def abandon_all(db: Transaction, device: str, *, reason: str, now: datetime) -> None:
    """Give up every attempt of ``device`` that is under way."""
    rows = db.execute(
        "SELECT number FROM issuances WHERE device = ? AND status = 'in-progress'", (device,)
    ).fetchall()
    for (number,) in rows:
        _abandon_attempt(db, number, reason, now)


def release_all(db: Transaction, device: str, *, actor: str, reason: str, now: datetime) -> int:
    """Let ``device`` make a first enrollment again under every label; how many it had made."""
    rows = db.execute(
        "SELECT issuance, label FROM claims WHERE device = ? ORDER BY issuance", (device,)
    ).fetchall()
    for number, label in rows:
        release(db, number)
        journal.append(
            db,
            Event.RELEASED,
            now,
            device=device,
            label=label,
            reference=number,
            actor=actor,
            reason=reason,
        )
    return len(rows)


def release(db: Transaction, number: int) -> None:
    """Let the first enrollment be made again that took its claim with issuance ``number``."""
    db.execute("DELETE FROM claims WHERE issuance = ?", (number,))
    quotas.give_back(db, number)


def find_claim(db: Transaction, device: str, label: str | None) -> Claim | None:
    """See :meth:`est_server.ledger_administration.LedgerAdministration.find_claim`."""
    row = db.execute(
        "SELECT issuance, requested_at, serial FROM claims "
        "JOIN issuances ON issuances.number = claims.issuance "
        "WHERE claims.device = ? AND claims.label = ?",
        (device, label_column(label)),
    ).fetchone()
    return None if row is None else Claim(row[0], from_column(row[1]), row[2])


# What begin and complete require


def _require_right(db: Transaction, intent: EnrollmentIntent) -> bool:
    """Require a right to a certificate; whether a claim has to be taken for it."""
    if intent.operation is Operation.SIMPLEREENROLL or intent.predecessor is not None:
        if not _answer_was_lost(db, intent, since=0):
            _require_active_predecessor(db, intent)
        return False
    claim = _claim(db, intent)
    if claim is None:
        journal.require_no_claim(db, intent.device, label_column(intent.label))
        return True
    if _answer_was_lost(db, intent, since=claim):
        return False
    (key,) = db.execute("SELECT spki_sha256 FROM issuances WHERE number = ?", (claim,)).fetchone()
    another = intent.spki_sha256 not in (None, key)
    raise AlarmingRefusal(
        AlarmKind.SECOND_KEY if another else AlarmKind.SECOND_ENROLLMENT,
        RefusalReason.ALREADY_CLAIMED,
        "the device has made its first enrollment already",
        detail=f"device {intent.device}: claimed by issuance {claim} with "
        f"{'another key, ' if another else ''}{key.hex()}",
    )


def _claim(db: Transaction, intent: EnrollmentIntent) -> int | None:
    """The number of the issuance that took the claim of (device, label)."""
    row = db.execute(
        "SELECT issuance FROM claims WHERE device = ? AND label = ?",
        (intent.device, label_column(intent.label)),
    ).fetchone()
    return None if row is None else int(row[0])


def _answer_was_lost(db: Transaction, intent: EnrollmentIntent, *, since: int) -> bool:
    """Whether the client may be without the generated key that the active certificate is for.

    :param since: the number of the first issuance that counts.
    """
    if intent.operation is not Operation.SERVERKEYGEN or intent.lost_since is None:
        return False
    first, active = db.execute(
        "SELECT min(finished_at), max(CASE WHEN state = 'active' THEN 1 ELSE 0 END) FROM issuances "
        "WHERE request_key = ? AND operation = 'serverkeygen' AND status = 'issued' "
        "AND device = ? AND label = ? AND predecessor IS NOT DISTINCT FROM ? AND number >= ?",
        (
            intent.request_key,
            intent.device,
            label_column(intent.label),
            intent.predecessor,
            since,
        ),
    ).fetchone()
    return bool(active) and first >= to_column(intent.lost_since)


def _require_active_predecessor(db: Transaction, intent: EnrollmentIntent) -> None:
    row = db.execute(
        "SELECT device, label, state FROM issuances WHERE sha256 = ?", (intent.predecessor,)
    ).fetchone()
    if row is None:
        raise RequestRefused(
            RefusalReason.CERTIFICATE_UNKNOWN, "the certificate was not issued by this server"
        )
    device, label, state = row
    if (device, label) != (intent.device, label_column(intent.label)):
        raise RequestRefused(
            RefusalReason.IDENTITY_MISMATCH,
            "the certificate was issued to another device or under another label",
            detail=f"it was issued to device {device} under label {label!r}",
        )
    if state == CertificateState.REVOKED:
        raise RequestRefused(RefusalReason.CERTIFICATE_REVOKED, "the certificate is revoked")
    if state != CertificateState.ACTIVE:
        raise AlarmingRefusal(
            AlarmKind.OLD_CERTIFICATE,
            RefusalReason.CERTIFICATE_SUPERSEDED,
            "the certificate was renewed already",
        )


def _require_certified_key(intent: EnrollmentIntent, certificate: x509.Certificate) -> None:
    if intent.spki_sha256 not in (None, spki_sha256(certificate.public_key())):
        raise RequestRefused(
            RefusalReason.INTERNAL_ERROR,
            "the server made a mistake",
            detail=f"certificate {certificate.serial_number:x} is for another key than asked for",
        )


# Attempts


def _already_issued(
    db: Transaction, intent: EnrollmentIntent, now: datetime
) -> IssuedCertificate | None:
    if intent.operation is Operation.SERVERKEYGEN:
        # The certificate would be of no use to its client without the key, which is gone.
        return None
    row = db.execute(
        f"SELECT {CERTIFICATE_COLUMNS}, not_after, request_key, operation, spki_sha256, "
        "predecessor FROM issuances WHERE device = ? AND label = ? AND state = 'active'",
        (intent.device, label_column(intent.label)),
    ).fetchone()
    if row is None:
        return None
    *columns, not_after, request_key, operation, spki, predecessor = row
    # The request key stands for all that follows it here. Comparing the rest as well keeps a
    # caller that computes too weak a key from being handed another request's certificate.
    # Compared here, not in SQL: where a value decides which partial index fits, SQLite compiles
    # the statement anew for each value, which takes 45 us.
    is_repeated = (request_key, operation, spki, predecessor) == (
        intent.request_key,
        intent.operation.value,
        intent.spki_sha256,
        intent.predecessor,
    )
    if not is_repeated or not_after <= to_column(now):
        return None
    return issued_certificate(tuple(columns))


def _living_rivals(
    db: Transaction, intent: EnrollmentIntent, worker: Worker, now: datetime
) -> list[bytes]:
    """Request keys of attempts that stand in the way; dead ones are cleared away."""
    rows: list[tuple[Any, ...]] = db.execute(
        "SELECT number, request_key, owner, lease_until FROM issuances "
        "WHERE status = 'in-progress' AND request_key = ? "
        "UNION ALL SELECT number, request_key, owner, lease_until FROM issuances "
        "WHERE status = 'in-progress' AND device = ? AND label = ?",
        (intent.request_key, intent.device, label_column(intent.label)),
    ).fetchall()
    living = []
    # The request itself may be there twice; to abandon it once more changes nothing.
    for number, request_key, owner, lease_until in rows:
        if lease_until <= to_column(now):
            _abandon_attempt(db, number, "the lease ran out", now)
        elif owner == worker.owner and number not in worker.held:
            _abandon_attempt(db, number, "the process that began it is gone", now)
        else:
            living.append(request_key)
    return living


def _insert_attempt(
    db: Transaction, intent: EnrollmentIntent, worker: Worker, event: Event, now: datetime
) -> int:
    number = db.insert(
        "INSERT INTO issuances (request_key, operation, device, label, spki_sha256, predecessor, "
        "transport, peer, reasons, requested_at, owner, lease_until, status) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'in-progress')",
        (
            intent.request_key,
            intent.operation.value,
            intent.device,
            label_column(intent.label),
            intent.spki_sha256 or _NO_KEY_YET,
            intent.predecessor,
            intent.transport.value,
            intent.peer,
            json.dumps(intent.reasons, ensure_ascii=False),
            to_column(intent.requested_at),
            worker.owner,
            to_column(now + worker.lease),
        ),
        numbered="number",
    )
    journal.append(
        db,
        event,
        now,
        device=intent.device,
        label=label_column(intent.label),
        reference=number,
        operation=intent.operation.value,
        transport=intent.transport.value,
        peer=intent.peer,
        key=None if intent.spki_sha256 is None else intent.spki_sha256.hex(),
        predecessor=None if intent.predecessor is None else intent.predecessor.hex(),
        secret=intent.secret if event is Event.CLAIMED else None,
        reasons="; ".join(intent.reasons),
    )
    return number


def _abandon_attempt(db: Transaction, number: int, reason: str, now: datetime) -> None:
    changed = db.execute(
        "UPDATE issuances SET status = 'abandoned', finished_at = ?, outcome = ? "
        "WHERE number = ? AND status = 'in-progress' RETURNING device, label",
        (to_column(now), reason, number),
    ).fetchone()
    if changed is not None:
        device, label = changed
        journal.append(
            db, Event.ABANDONED, now, device=device, label=label, reference=number, reason=reason
        )
        release(db, number)
        secrets.give_back_use(db, number)
        approvals.give_back(db, number)


def _record_certificate(
    db: Transaction,
    ticket: IssuanceTicket,
    der: bytes,
    certificate: x509.Certificate,
    sha256: bytes,
    now: datetime,
) -> IssuedCertificate:
    intent = ticket.intent
    spki = intent.spki_sha256 or spki_sha256(certificate.public_key())
    db.execute(
        "UPDATE issuances SET state = 'superseded' "
        "WHERE device = ? AND label = ? AND state = 'active'",
        (intent.device, label_column(intent.label)),
    )
    db.execute(
        "UPDATE issuances SET status = 'issued', state = 'active', finished_at = ?, "
        "certificate = ?, sha256 = ?, serial = ?, not_after = ?, spki_sha256 = ? WHERE number = ?",
        (
            to_column(now),
            der,
            sha256,
            f"{certificate.serial_number:x}",
            to_column(certificate.not_valid_after_utc),
            spki,
            ticket.number,
        ),
    )
    journal.append(
        db,
        Event.ISSUED,
        now,
        device=intent.device,
        label=label_column(intent.label),
        serial=f"{certificate.serial_number:x}",
        reference=ticket.number,
        sha256=sha256.hex(),
    )
    return IssuedCertificate(
        certificate=certificate,
        sha256=sha256,
        device=intent.device,
        label=intent.label,
        spki_sha256=spki,
        state=CertificateState.ACTIVE,
        issued_at=now,
    )


def _working(sentence: str) -> RequestRefused:
    return RequestRefused(RefusalReason.TRY_LATER, sentence, retry_after=_WORKING_RETRY_AFTER)


def _taken_over(
    ticket: IssuanceTicket, certificate: x509.Certificate, sha256: bytes
) -> RequestRefused:
    # The certificate exists but never leaves the server; the audit trail must name it.
    return RequestRefused(
        RefusalReason.TRY_LATER,
        "the request took too long; send it again",
        detail=f"issuance {ticket.number} was given up; discarded certificate with serial "
        f"{certificate.serial_number:x}, SHA-256 {sha256.hex()}",
        retry_after=_WORKING_RETRY_AFTER,
    )
