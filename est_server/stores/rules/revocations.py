"""Revoked certificates and the CRLs that tell of them; inside a transaction of the caller.

A row of ``revocations`` is an entry of a CRL. Whatever changes what a CA's CRL has to say counts
in ``revocation_counts``, in the same transaction, so that nobody who compares the counts misses
anything.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from est_server.revocations import (
    CrlStatus,
    PublishedCrl,
    RevocationReason,
    RevokedCertificate,
    issuer_of,
)
from est_server.stores.rules import sealed_issuances
from est_server.stores.rules.sealed_issuances import Issuance
from est_server.stores.rules.sealed_rows import REVOCATIONS
from est_server.stores.rules.values import Row, from_column, to_column
from est_server.stores.seals import tampered
from est_server.stores.transaction import Transaction

_STATUS_COLUMNS = "number, sha256, this_update, next_update, changes"


class _Row(NamedTuple):
    issuance: int
    issuer: bytes | None
    serial: str
    not_after: int
    reason: str
    revoked_at: int


class Page(NamedTuple):
    """Some entries of a CRL, and the number after which the next page begins."""

    entries: list[RevokedCertificate]
    last: int | None


def add_entry(db: Transaction, issued: Issuance, reason: RevocationReason, now: datetime) -> None:
    """Have CRLs say that a certificate is revoked, or on hold.

    What is revoked already stays so since when it was; of its reasons, ``KEY_COMPROMISE`` stays.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    issuer = issuer_of(sealed_issuances.parsed(db, issued))
    before = db.execute(f"{REVOCATIONS.select} WHERE issuance = ?", (issued.number,)).fetchone()
    code, since = reason.value, to_column(now)
    if before is not None:
        known = _Row(*REVOCATIONS.opened(db, before))
        if known.reason != RevocationReason.CERTIFICATE_HOLD:
            since = known.revoked_at
            if reason is not RevocationReason.KEY_COMPROMISE:
                code = known.reason
    _write(db, _Row(issued.number, issuer, issued.serial, issued.not_after, code, since))
    _count(db, issuer)


def release_hold(db: Transaction, device: str) -> int:
    """Take the certificates of ``device`` off hold; how many there were.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    rows = db.execute(
        f"{REVOCATIONS.select} WHERE issuance IN "
        "(SELECT number FROM issuances WHERE device = ? AND status = 'issued')",
        (device,),
    ).fetchall()
    known = [_Row(*REVOCATIONS.opened(db, row)) for row in rows]
    held = [row for row in known if row.reason == RevocationReason.CERTIFICATE_HOLD]
    for row in held:
        db.execute("DELETE FROM revocations WHERE issuance = ?", (row.issuance,))
        if row.issuer is not None:
            _count(db, row.issuer)
    return len(held)


def count_changes(db: Transaction, issuer: bytes) -> int:
    """See :meth:`est_server.revocations.RevocationRegistry.count_changes`."""
    row = db.execute("SELECT changes FROM revocation_counts WHERE issuer = ?", (issuer,)).fetchone()
    return 0 if row is None else int(row[0])


def page(db: Transaction, issuer: bytes, valid_at: datetime, after: int, size: int) -> Page:
    """Some entries of the CRL of ``issuer``: those among the next ``size`` after number ``after``.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    # Of all issuers, expired ones too: where somebody has edited a row to be none of this CRL's,
    # SQL would leave it out unseen.
    rows = [_Row(*REVOCATIONS.opened(db, row)) for row in REVOCATIONS.page(db, after, size)]
    listed = [
        RevokedCertificate(
            int(row.serial, 16), from_column(row.revoked_at), RevocationReason(row.reason)
        )
        for row in rows
        if row.issuer == issuer and row.not_after >= to_column(valid_at)
    ]
    return Page(listed, rows[-1].issuance if rows else None)


def attribute(db: Transaction) -> None:
    """Find out the issuers of certificates that were revoked before issuers were noted.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    rows = db.execute(f"{REVOCATIONS.select} WHERE issuer IS NULL").fetchall()
    for row in rows:
        known = _Row(*REVOCATIONS.opened(db, row))
        issued = sealed_issuances.where(db, "number = ? AND status = 'issued'", known.issuance)
        if not issued:
            raise tampered(
                f"issuance {known.issuance} is revoked, and there is no such certificate"
            )
        issuer = issuer_of(sealed_issuances.parsed(db, issued[0]))
        _write(db, known._replace(issuer=issuer))
        _count(db, issuer)


def is_attributed(db: Transaction) -> bool:
    """Whether the issuers of all revoked certificates are known."""
    return db.execute("SELECT 1 FROM revocations WHERE issuer IS NULL LIMIT 1").fetchone() is None


def crl_status(db: Transaction, issuer: bytes) -> CrlStatus | None:
    """The status of the latest CRL of ``issuer``."""
    row = db.execute(f"SELECT {_STATUS_COLUMNS} FROM crls WHERE issuer = ?", (issuer,)).fetchone()
    return None if row is None else _status(row)


def find_crl(db: Transaction, issuer: bytes) -> PublishedCrl | None:
    """The latest CRL of ``issuer``."""
    # In one statement: each one of a read sees what was committed by then.
    row = db.execute(
        f"SELECT der, {_STATUS_COLUMNS} FROM crls WHERE issuer = ?", (issuer,)
    ).fetchone()
    return None if row is None else PublishedCrl(_status(row[1:]), row[0])


def publish_crl(
    db: Transaction, issuer: bytes, crl: PublishedCrl, *, replaces: CrlStatus | None
) -> bool:
    """See :meth:`est_server.revocations.RevocationRegistry.publish_crl`."""
    status = crl.status
    if crl_status(db, issuer) != replaces:
        return False
    db.execute("DELETE FROM crls WHERE issuer = ?", (issuer,))
    db.execute(
        "INSERT INTO crls (issuer, number, sha256, this_update, next_update, changes, der) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            issuer,
            status.number,
            status.sha256,
            to_column(status.this_update),
            to_column(status.next_update),
            status.changes,
            crl.der,
        ),
    )
    return True


def _write(db: Transaction, row: _Row) -> None:
    db.execute(
        "INSERT INTO revocations (issuance, issuer, serial, not_after, reason, revoked_at, mac) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (issuance) DO UPDATE SET "
        "issuer = excluded.issuer, reason = excluded.reason, revoked_at = excluded.revoked_at, "
        "mac = excluded.mac",
        (*row, REVOCATIONS.code(db.seals, *row)),
    )


def _count(db: Transaction, issuer: bytes) -> None:
    db.execute(
        "INSERT INTO revocation_counts (issuer, changes) VALUES (?, 1) "
        "ON CONFLICT (issuer) DO UPDATE SET changes = revocation_counts.changes + 1",
        (issuer,),
    )


def _status(row: Row) -> CrlStatus:
    number, sha256, this_update, next_update, changes = row
    return CrlStatus(number, sha256, from_column(this_update), from_column(next_update), changes)
