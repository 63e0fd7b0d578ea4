"""Revoked certificates and the CRLs that tell of them; inside a transaction of the caller.

A row of ``revocations`` is an entry of a CRL. Whatever changes what a CA's CRL has to say counts
in ``revocation_counts``, in the same transaction, so that nobody who compares the counts misses
anything.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from cryptography import x509

from est_server.revocations import (
    CrlStatus,
    PublishedCrl,
    RevocationReason,
    RevokedCertificate,
    issuer_of,
)
from est_server.stores.rules.values import Row, from_column, to_column
from est_server.stores.transaction import Transaction

_STATUS_COLUMNS = "number, sha256, this_update, next_update, changes"


class Page(NamedTuple):
    """Some entries of a CRL, and the number after which the next page begins."""

    entries: list[RevokedCertificate]
    last: int | None


def add_entry(db: Transaction, issuance: int, reason: RevocationReason, now: datetime) -> None:
    """Have CRLs say that the certificate of ``issuance`` is revoked, or on hold.

    What is revoked already stays so since when it was; of its reasons, ``KEY_COMPROMISE`` stays.
    """
    row = db.execute(
        "SELECT certificate, serial, not_after FROM issuances WHERE number = ?", (issuance,)
    ).fetchone()
    der, serial, not_after = row
    issuer = issuer_of(x509.load_der_x509_certificate(der))
    db.execute(
        "INSERT INTO revocations (issuance, issuer, serial, not_after, reason, revoked_at) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (issuance) DO UPDATE SET "
        "issuer = excluded.issuer, "
        "reason = CASE WHEN revocations.reason = 'certificate-hold' "
        "OR excluded.reason = 'key-compromise' THEN excluded.reason ELSE revocations.reason END, "
        "revoked_at = CASE WHEN revocations.reason = 'certificate-hold' "
        "THEN excluded.revoked_at ELSE revocations.revoked_at END",
        (issuance, issuer, serial, not_after, reason.value, to_column(now)),
    )
    _count(db, issuer)


def release_hold(db: Transaction, device: str) -> int:
    """Take the certificates of ``device`` off hold; how many there were."""
    rows = db.execute(
        "DELETE FROM revocations WHERE reason = 'certificate-hold' AND issuance IN "
        "(SELECT number FROM issuances WHERE device = ? AND status = 'issued') "
        "RETURNING issuer",
        (device,),
    ).fetchall()
    for (issuer,) in rows:
        _count(db, issuer)
    return len(rows)


def count_changes(db: Transaction, issuer: bytes) -> int:
    """See :meth:`est_server.revocations.RevocationRegistry.count_changes`."""
    row = db.execute("SELECT changes FROM revocation_counts WHERE issuer = ?", (issuer,)).fetchone()
    return 0 if row is None else int(row[0])


def page(db: Transaction, issuer: bytes, valid_at: datetime, after: int, size: int) -> Page:
    """Some entries of the CRL of ``issuer``: the next ``size`` after number ``after``."""
    rows = db.execute(
        "SELECT issuance, serial, reason, revoked_at FROM revocations "
        "WHERE issuer = ? AND not_after >= ? AND issuance > ? ORDER BY issuance LIMIT ?",
        (issuer, to_column(valid_at), after, size),
    ).fetchall()
    return Page([_entry(*row[1:]) for row in rows], rows[-1][0] if rows else None)


def attribute(db: Transaction) -> None:
    """Find out the issuers of certificates that were revoked before issuers were noted."""
    rows = db.execute(
        "SELECT r.issuance, i.certificate FROM revocations r "
        "JOIN issuances i ON i.number = r.issuance WHERE r.issuer IS NULL"
    ).fetchall()
    for issuance, der in rows:
        issuer = issuer_of(x509.load_der_x509_certificate(der))
        db.execute("UPDATE revocations SET issuer = ? WHERE issuance = ?", (issuer, issuance))
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


def _count(db: Transaction, issuer: bytes) -> None:
    db.execute(
        "INSERT INTO revocation_counts (issuer, changes) VALUES (?, 1) "
        "ON CONFLICT (issuer) DO UPDATE SET changes = revocation_counts.changes + 1",
        (issuer,),
    )


def _status(row: Row) -> CrlStatus:
    number, sha256, this_update, next_update, changes = row
    return CrlStatus(number, sha256, from_column(this_update), from_column(next_update), changes)


def _entry(serial: str, reason: str, revoked_at: int) -> RevokedCertificate:
    return RevokedCertificate(int(serial, 16), from_column(revoked_at), RevocationReason(reason))
