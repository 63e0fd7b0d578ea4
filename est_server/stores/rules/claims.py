"""First enrollments, which a device makes once under each label; in a transaction of the caller.

With a claim goes what it counts against: a use of a secret, quotas, an approval.

The sealed row of a device says how many claims it holds, so one that is gone shows as long as the
device is there. A device that is on no list has no row: of its claims the journal alone knows.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from est_server.device_records import Device
from est_server.journal import Event
from est_server.ledger_records import Claim, EnrollmentIntent
from est_server.stores.rules import (
    approvals,
    journal,
    quotas,
    registry,
    sealed_issuances,
    secrets,
)
from est_server.stores.rules.sealed_issuances import Issuance
from est_server.stores.rules.sealed_rows import CLAIMS
from est_server.stores.rules.values import from_column, label_column
from est_server.stores.seals import tampered
from est_server.stores.transaction import Transaction

_OF_DEVICE = f"{CLAIMS.select} WHERE device = ?"


class _Row(NamedTuple):
    issuance: int
    device: str
    label: str
    counted: int


def holder(db: Transaction, intent: EnrollmentIntent, device: Device | None) -> int | None:
    """The number of the issuance that took the claim of (device, label).

    :param device: the device as it is now, if it has a row, which says how many claims there are.
    :raises RequestRefused: ``RECORD_TAMPERED``: a claim of the device is gone, or was not taken.
    """
    rows = db.execute(_OF_DEVICE, (intent.device,)).fetchall()
    held = [_Row(*CLAIMS.opened(db, row)) for row in rows]
    if device is not None and db.seals.is_keyed:
        counted = sum(claim.counted for claim in held)
        if counted != device.claims:
            raise tampered(
                f"device {device.udid}: it holds {device.claims} claims, {counted} are there",
                device=device.udid,
            )
    label = label_column(intent.label)
    return next((claim.issuance for claim in held if claim.label == label), None)


def take(
    db: Transaction, intent: EnrollmentIntent, number: int, now: datetime, *, counted: bool
) -> None:
    """Take, in the name of an attempt, the claim and all that a claim takes.

    :param counted: whether the device has a row, in which the caller counts the claim.
    """
    values = (number, intent.device, label_column(intent.label), int(counted))
    db.execute(
        "INSERT INTO claims (issuance, device, label, counted, mac) VALUES (?, ?, ?, ?, ?)",
        (*values, CLAIMS.code(db.seals, *values)),
    )
    if intent.secret is not None:
        secrets.take_use(db, intent.secret, number)
    quotas.take(db, intent.quotas, number, now)
    if intent.approval is not None:
        approvals.use(db, intent, number)


def release(db: Transaction, number: int) -> None:
    """Let the first enrollment be made again that took its claim with issuance ``number``.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    row = db.execute(f"{CLAIMS.select} WHERE issuance = ?", (number,)).fetchone()
    if row is not None:
        claim = _Row(*CLAIMS.opened(db, row))
        db.execute("DELETE FROM claims WHERE issuance = ?", (number,))
        device = registry.find_by_udid(db, claim.device) if claim.counted else None
        if device is not None:
            registry.count_claims(db, device, -1)
    quotas.give_back(db, number)


def release_all(db: Transaction, device: str, *, actor: str, reason: str, now: datetime) -> int:
    """Let ``device`` make a first enrollment again under every label; how many it had made."""
    rows = db.execute(
        "SELECT issuance, label FROM claims WHERE device = ? ORDER BY issuance", (device,)
    ).fetchall()
    # Each is checked where it is released.
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
        f"{CLAIMS.select} WHERE device = ? AND label = ?", (device, label_column(label))
    ).fetchone()
    if row is None:
        return None
    number = _Row(*CLAIMS.opened(db, row)).issuance
    requested_at, _, issued = _attempt(db, number)
    return Claim(number, from_column(requested_at), None if issued is None else issued.serial)


def key(db: Transaction, number: int) -> bytes:
    """The hash of the key for which issuance ``number`` took its claim."""
    _, asked_for, issued = _attempt(db, number)
    return asked_for if issued is None else issued.spki_sha256


def _attempt(db: Transaction, number: int) -> tuple[int, bytes, Issuance | None]:
    """When the attempt that holds a claim was asked for, with which key, and what it came to."""
    row = db.execute(
        "SELECT requested_at, spki_sha256 FROM issuances WHERE number = ?", (number,)
    ).fetchone()
    if row is None:
        raise tampered(f"issuance {number}, which holds a claim, is gone")
    issued = sealed_issuances.where(db, "number = ? AND status = 'issued'", number)
    return (*row, issued[0] if issued else None)
