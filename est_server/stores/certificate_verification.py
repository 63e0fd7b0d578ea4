"""The records of certificates, and what CRLs say of them, against the journal and each other."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cryptography import x509

from est_protocol.keys import spki_sha256
from est_server.device_records import DeviceState
from est_server.journal import Entry, Event
from est_server.ledger_records import CertificateState
from est_server.revocations import RevocationReason, issuer_of
from est_server.stores.rules.values import Row, to_column
from est_server.stores.transaction import Transaction

_PAGE = 500

#: What the journal says of certificates; the latest of each device and label.
SCRATCH = (
    """
    CREATE TABLE issued (
        number INTEGER PRIMARY KEY,
        device TEXT,
        label  TEXT,
        sha256 BLOB NOT NULL
    )
    """,
    "CREATE INDEX issued_by_sha256 ON issued (sha256)",
    """
    CREATE TABLE latest (
        device TEXT,
        label  TEXT,
        number INTEGER NOT NULL,
        PRIMARY KEY (device, label)
    )
    """,
    "CREATE TABLE revoked (number INTEGER PRIMARY KEY, reason TEXT NOT NULL, since INTEGER)",
    """
    CREATE TABLE begun (
        number      INTEGER PRIMARY KEY,
        operation   TEXT,
        key         BLOB,
        predecessor BLOB
    )
    """,
)

_RECORDS = """
SELECT i.number, i.device, i.label, i.serial, i.not_after, i.spki_sha256, i.operation,
    i.predecessor, i.sha256, i.state, i.certificate,
    d.state, d.changed_at, r.issuer, r.serial, r.not_after, r.reason, r.revoked_at
FROM issuances i LEFT JOIN devices d ON d.udid = i.device
LEFT JOIN revocations r ON r.issuance = i.number
WHERE i.number > ? AND i.status = 'issued' ORDER BY i.number LIMIT ?
"""

_ORPHANS = """
SELECT issuance FROM revocations r WHERE NOT EXISTS
    (SELECT 1 FROM issuances i WHERE i.number = r.issuance AND i.status = 'issued')
ORDER BY issuance
"""


class _Record(NamedTuple):
    number: int
    device: str
    label: str
    serial: str
    not_after: int
    spki_sha256: bytes
    operation: str
    predecessor: bytes | None
    sha256: bytes
    state: str
    certificate: bytes


class _Device(NamedTuple):
    state: str | None
    changed_at: int | None


class _Revocation(NamedTuple):
    issuer: bytes | None
    serial: str
    not_after: int
    reason: str
    revoked_at: int


def remember(scratch: sqlite3.Connection, entry: Entry) -> None:
    """Take note of what an entry says of a certificate."""
    known = entry.known
    if entry.event in (Event.CLAIMED, Event.BEGUN):
        scratch.execute(
            "INSERT OR REPLACE INTO begun VALUES (?, ?, ?, ?)",
            (
                entry.reference,
                known.get("operation"),
                _octets(known.get("key")),
                _octets(known.get("predecessor")),
            ),
        )
    elif entry.event == Event.ISSUED:
        scratch.execute(
            "INSERT OR REPLACE INTO issued VALUES (?, ?, ?, ?)",
            (entry.reference, entry.device, entry.label, _octets(known["sha256"])),
        )
        scratch.execute(
            "INSERT OR REPLACE INTO latest VALUES (?, ?, ?)",
            (entry.device, entry.label, entry.reference),
        )
    elif entry.event == Event.REVOKED:
        # As in a CRL: the first reason stays, but for a compromised key.
        scratch.execute(
            "INSERT INTO revoked VALUES (?, ?, ?) ON CONFLICT (number) DO UPDATE SET "
            "reason = excluded.reason WHERE excluded.reason = 'key-compromise'",
            (entry.reference, known["code"], entry.when),
        )


def predecessor_findings(
    db: Transaction, scratch: sqlite3.Connection, entry: Entry
) -> Iterator[str]:
    """What is wrong with the certificate that an attempt, as its entry says, was to replace."""
    predecessor = _octets(entry.known.get("predecessor"))
    if predecessor is None:
        return
    row = scratch.execute(
        "SELECT device, label FROM issued WHERE sha256 = ?", (predecessor,)
    ).fetchone()
    if row is None:
        # It is older than the journal.
        row = db.execute(
            "SELECT device, label FROM issuances WHERE sha256 = ?", (predecessor,)
        ).fetchone()
    if row is not None and tuple(row) != (entry.device, entry.label):
        yield f"issuance {entry.reference}: replaces a certificate of another device or label"


def certificate_findings(
    db: Transaction, scratch: sqlite3.Connection, *, progress: Callable[[str, int], None]
) -> Iterator[str]:
    """What is wrong with records of certificates and of revocations, one sentence for each.

    :param scratch: has what :func:`remember` took note of.
    """
    after = 0
    while rows := db.execute(_RECORDS, (after, _PAGE)).fetchall():
        for row in rows:
            record, device, revocation = _split(row)
            for finding in (
                _against_journal(scratch, record),
                _against_certificate(record, revocation),
                _against_revocation(scratch, record, device, revocation),
            ):
                if finding is not None:
                    yield f"issuance {record.number}: {finding}"
        after = rows[-1][0]
        progress("certificates", after)
    for (number,) in db.execute(_ORPHANS):
        yield f"issuance {number}: is revoked, and there is no such certificate"


def _split(row: Row) -> tuple[_Record, _Device, _Revocation | None]:
    record, device = _Record(*row[:11]), _Device(*row[11:13])
    # The serial number is never missing where there is a row.
    return record, device, None if row[14] is None else _Revocation(*row[13:])


def _against_journal(scratch: sqlite3.Connection, record: _Record) -> str | None:
    begun = scratch.execute(
        "SELECT operation, coalesce(key, ?), predecessor FROM begun WHERE number = ?",
        (record.spki_sha256, record.number),
    ).fetchone()
    if begun not in (None, (record.operation, record.spki_sha256, record.predecessor)):
        return "its record was changed"
    possible = _states(scratch, record)
    if record.state in possible:
        return None
    return f"is {record.state}; the journal says {' or '.join(possible)}"


def _states(scratch: sqlite3.Connection, record: _Record) -> tuple[CertificateState, ...]:
    """The states that the certificate may have by what the journal knows."""
    issued, revoked, latest = scratch.execute(
        "SELECT EXISTS (SELECT 1 FROM issued WHERE number = ?), "
        "EXISTS (SELECT 1 FROM revoked WHERE number = ?), "
        "(SELECT number FROM latest WHERE device = ? AND label = ?)",
        (record.number, record.number, record.device, record.label),
    ).fetchone()
    if revoked:
        return (CertificateState.REVOKED,)
    if latest == record.number:
        return (CertificateState.ACTIVE,)
    if issued:
        return (CertificateState.SUPERSEDED,)
    if latest is not None:
        # It is older than the journal, which knows of its successor.
        return (CertificateState.SUPERSEDED, CertificateState.REVOKED)
    return tuple(CertificateState)


def _against_certificate(record: _Record, revocation: _Revocation | None) -> str | None:
    if hashlib.sha256(record.certificate).digest() != record.sha256:
        return "its certificate was changed"
    try:
        certificate = x509.load_der_x509_certificate(record.certificate)
        key = spki_sha256(certificate.public_key())
        serial, end = _named(certificate)
    except ValueError:
        return "its certificate is none"
    if (record.serial, record.not_after, record.spki_sha256) != (serial, end, key):
        return "its record says something else than its certificate"
    if revocation is None:
        return None
    issuer = issuer_of(certificate)
    # Those that an earlier schema knew as revoked have no issuer until somebody asks for a CRL.
    said = (revocation.issuer or issuer, revocation.serial, revocation.not_after)
    if said != (issuer, serial, end):
        return "its revocation says something else than its certificate"
    return None


def _named(certificate: x509.Certificate) -> tuple[str, int]:
    return f"{certificate.serial_number:x}", to_column(certificate.not_valid_after_utc)


def _against_revocation(
    scratch: sqlite3.Connection, record: _Record, device: _Device, revocation: _Revocation | None
) -> str | None:
    is_revoked = record.state == CertificateState.REVOKED
    # What had expired by then was not put on hold, and not taken off it.
    was_good = device.changed_at is not None and record.not_after > device.changed_at
    is_suspended = device.state == DeviceState.SUSPENDED
    if revocation is None:
        if is_revoked:
            return "is revoked, and not on the CRL"
        if is_suspended and was_good:
            return "its device is suspended, and it is not on hold"
        return None
    if revocation.reason == RevocationReason.CERTIFICATE_HOLD:
        if is_revoked or (was_good and not is_suspended):
            return "is on hold, and its device is not suspended"
        return None
    if not is_revoked:
        return "is on the CRL, and not revoked"
    # Where its beginning is in the journal, the first of its revocations is too.
    told = scratch.execute(
        "SELECT reason, since FROM revoked JOIN issued USING (number) WHERE number = ?",
        (record.number,),
    ).fetchone()
    if told not in (None, (revocation.reason, revocation.revoked_at)):
        return "its revocation was changed"
    return None


def _octets(digits: str | int | None) -> bytes | None:
    return bytes.fromhex(digits) if isinstance(digits, str) else None
