"""Audit rows, and what an operator may do to the ledger; inside a transaction of the caller."""

from __future__ import annotations

from datetime import datetime

from est_server.approvals import Approval
from est_server.journal import Event
from est_server.ledger_records import CertificateState, IssuedCertificate, Refusal
from est_server.revocations import RevocationReason
from est_server.stores.rules import (
    approvals,
    attempts,
    certificates,
    claims,
    journal,
    revocations,
    sealed_issuances,
    standing,
)
from est_server.stores.rules.values import (
    label_column,
    to_column,
)
from est_server.stores.transaction import Transaction

#: Octets of the network end up in these texts, so each is cut to this many characters.
_TEXT_LIMIT = 512

#: Rows of refusals that go when one comes, where fewer are kept than before.
_DROPPED_AT_ONCE = 16


def record_refusal(db: Transaction, refusal: Refusal, *, kept: int, left_out: int | None) -> int:
    """Add a row to the audit trail, and drop what is too many; the number of the row.

    :param kept: rows that stay.
    :param left_out: how many refusals before it are not in the journal; ``None``: nor is this one.
    """
    number = db.insert(
        "INSERT INTO refusals (operation, label, transport, peer, reason, sentence, detail, "
        "device, refused_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            None if refusal.operation is None else refusal.operation.value,
            _cut(refusal.label),
            refusal.transport.value,
            _cut(refusal.peer),
            refusal.reason,
            _cut(refusal.sentence),
            _cut(refusal.detail),
            _cut(refusal.device),
            to_column(refusal.refused_at),
        ),
        numbered="id",
    )
    db.execute(
        "DELETE FROM refusals WHERE id IN (SELECT id FROM refusals WHERE id <= ? LIMIT ?)",
        (number - kept, _DROPPED_AT_ONCE),
    )
    if left_out is not None:
        journal.append(
            db,
            Event.REFUSED,
            refusal.refused_at,
            device=_cut(refusal.device),
            label=_cut(label_column(refusal.label)),
            reference=number,
            operation=None if refusal.operation is None else refusal.operation.value,
            transport=refusal.transport.value,
            peer=_cut(refusal.peer),
            code=refusal.reason,
            detail=_cut(refusal.detail),
            left_out=left_out,
        )
    return int(number)


def revoke_certificate(
    db: Transaction,
    sha256: bytes,
    *,
    actor: str,
    reason: str,
    code: RevocationReason,
    now: datetime,
) -> IssuedCertificate:
    """See :meth:`est_server.ledger_administration.LedgerAdministration.revoke_certificate`.

    A compromised key takes every other certificate for it along.
    """
    issued = _revoke(db, sha256, code, actor, reason, now)
    if code is RevocationReason.KEY_COMPROMISE:
        compromise(db, issued.spki_sha256, issued.device, actor=actor, reason=reason, now=now)
    return issued


def _revoke(
    db: Transaction, sha256: bytes, code: RevocationReason, actor: str, reason: str, now: datetime
) -> IssuedCertificate:
    found = sealed_issuances.find(db, sha256)
    if found is None:
        raise KeyError(sha256.hex())
    sealed_issuances.change_state(db, found, CertificateState.REVOKED)
    revocations.add_entry(db, found, code, now)
    issued = certificates.find(db, sha256)
    assert issued is not None
    _note(db, "revoke", issued.device, issued.label, sha256, actor, reason, now)
    journal.append(
        db,
        Event.REVOKED,
        now,
        device=issued.device,
        label=label_column(issued.label),
        serial=f"{issued.certificate.serial_number:x}",
        reference=found.number,
        code=code.value,
        actor=actor,
        reason=reason,
    )
    return issued


def compromise(
    db: Transaction, key: bytes, device: str, *, actor: str, reason: str, now: datetime
) -> None:
    """Have ``key`` get nothing any more, and what it has got end."""
    standing.mark_compromised(db, key, device, now)
    for issued in certificates.of_key(db, key, now):
        _revoke(db, issued.sha256, RevocationReason.KEY_COMPROMISE, actor, reason, now)


def release_claim(
    db: Transaction,
    device: str,
    label: str | None,
    *,
    actor: str,
    reason: str,
    now: datetime,
    kept: int,
) -> bool:
    """See :meth:`est_server.ledger_administration.LedgerAdministration.release_claim`."""
    row = db.execute(
        "SELECT issuance FROM claims WHERE device = ? AND label = ?", (device, label_column(label))
    ).fetchone()
    if row is None:
        return False
    attempts.abandon(db, row[0], f"claim released by {actor}", now)
    attempts.prune(db, row[0], kept)
    claims.release(db, row[0])
    journal.append(
        db,
        Event.RELEASED,
        now,
        device=device,
        label=label_column(label),
        reference=row[0],
        actor=actor,
        reason=reason,
    )
    _note(db, "release-claim", device, label, None, actor, reason, now)
    return True


def decide_approval(
    db: Transaction, number: int, *, approve: bool, actor: str, reason: str, now: datetime
) -> Approval:
    """See :meth:`est_server.approvals.ApprovalQueue.decide_approval`."""
    decided = approvals.decide(db, number, approve=approve, actor=actor, reason=reason, now=now)
    action = "approve" if approve else "deny"
    _note(db, action, decided.device, decided.label, None, actor, reason, now)
    journal.append(
        db,
        Event.APPROVED if approve else Event.DENIED,
        now,
        device=decided.device,
        label=label_column(decided.label),
        reference=number,
        key=None if decided.spki_sha256 is None else decided.spki_sha256.hex(),
        actor=actor,
        reason=reason,
    )
    return decided


def _note(
    db: Transaction,
    action: str,
    device: str,
    label: str | None,
    sha256: bytes | None,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    db.execute(
        "INSERT INTO ledger_history (action, device, label, sha256, actor, reason, done_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (action, device, label_column(label), sha256, actor, reason, to_column(now)),
    )


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    # Lone surrogates come from undecodable octets in a path; databases take UTF-8 only, and
    # PostgreSQL takes it without NUL.
    text = text[:_TEXT_LIMIT].replace("\0", "\\x00")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
