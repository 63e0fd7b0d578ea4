"""First enrollments, which a device makes once under each label; in a transaction of the caller.

With a claim goes what it counts against: a use of a secret, quotas, an approval.
"""

from __future__ import annotations

from datetime import datetime

from est_server.journal import Event
from est_server.ledger_records import Claim, EnrollmentIntent
from est_server.stores.rules import approvals, journal, quotas, secrets
from est_server.stores.rules.values import from_column, label_column
from est_server.stores.transaction import Transaction


def holder(db: Transaction, intent: EnrollmentIntent) -> int | None:
    """The number of the issuance that took the claim of (device, label)."""
    row = db.execute(
        "SELECT issuance FROM claims WHERE device = ? AND label = ?",
        (intent.device, label_column(intent.label)),
    ).fetchone()
    return None if row is None else int(row[0])


def take(db: Transaction, intent: EnrollmentIntent, number: int, now: datetime) -> None:
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


def release(db: Transaction, number: int) -> None:
    """Let the first enrollment be made again that took its claim with issuance ``number``."""
    db.execute("DELETE FROM claims WHERE issuance = ?", (number,))
    quotas.give_back(db, number)


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


def find(db: Transaction, device: str, label: str | None) -> Claim | None:
    """See :meth:`est_server.ledger_administration.LedgerAdministration.find_claim`."""
    row = db.execute(
        "SELECT issuance, requested_at, serial FROM claims "
        "JOIN issuances ON issuances.number = claims.issuance "
        "WHERE claims.device = ? AND claims.label = ?",
        (device, label_column(label)),
    ).fetchone()
    return None if row is None else Claim(row[0], from_column(row[1]), row[2])
