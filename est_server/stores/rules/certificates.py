"""The certificates among the issuances; each function inside a transaction of the caller."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol.keys import spki_sha256
from est_protocol.operations import Operation
from est_server.ledger_records import CertificateState, EnrollmentIntent, IssuedCertificate
from est_server.stores.rules import sealed_issuances
from est_server.stores.rules.sealed_issuances import CERTIFICATE_COLUMNS, Issuance
from est_server.stores.rules.values import Row, is_storable, label_column, to_column
from est_server.stores.transaction import Transaction

#: What :attr:`Made.columns` is for.
MADE_COLUMNS = "certificate, sha256, serial, not_after, spki_sha256"


class Recorded(NamedTuple):
    """A certificate, and the number of its issuance."""

    number: int
    issued: IssuedCertificate


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate that is to be recorded."""

    certificate: x509.Certificate
    der: bytes
    sha256: bytes
    spki_sha256: bytes

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Made:
        """What is recorded of ``certificate``."""
        der = certificate.public_bytes(Encoding.DER)
        key = spki_sha256(certificate.public_key())
        return cls(certificate, der, hashlib.sha256(der).digest(), key)

    @property
    def serial(self) -> str:
        """Its serial number in hexadecimal digits."""
        return f"{self.certificate.serial_number:x}"

    @property
    def columns(self) -> Row:
        """Its columns."""
        not_after = to_column(self.certificate.not_valid_after_utc)
        return self.der, self.sha256, self.serial, not_after, self.spki_sha256

    def record(self, intent: EnrollmentIntent, now: datetime) -> IssuedCertificate:
        """Its record, once it is the active certificate that ``intent`` asked for."""
        return IssuedCertificate(
            certificate=self.certificate,
            sha256=self.sha256,
            device=intent.device,
            label=intent.label,
            spki_sha256=self.spki_sha256,
            state=CertificateState.ACTIVE,
            issued_at=now,
        )


def find(db: Transaction, sha256: bytes) -> IssuedCertificate | None:
    """The record of the certificate with this hash."""
    row = db.execute(
        f"SELECT {CERTIFICATE_COLUMNS} FROM issuances WHERE sha256 = ?", (sha256,)
    ).fetchone()
    return None if row is None else sealed_issuances.certificate(db, row)


def find_renewable(
    db: Transaction, spki_sha256: bytes, label: str | None, lost_since: datetime
) -> IssuedCertificate | None:
    """See :meth:`est_server.interfaces.EnrollmentLedger.find_renewable`."""
    rows = db.execute(
        f"SELECT {CERTIFICATE_COLUMNS} FROM issuances "
        "WHERE status = 'issued' AND spki_sha256 = ? AND state = 'active' AND label = ? LIMIT 2",
        (spki_sha256, label_column(label)),
    ).fetchall()
    if len(rows) != 1:
        return None
    found = sealed_issuances.opened(db, rows[0][:-1])
    active = sealed_issuances.record(found, rows[0][-1])
    if found.operation == Operation.SIMPLEREENROLL.value and active.issued_at >= lost_since:
        renewed = None if found.predecessor is None else find(db, found.predecessor)
        if renewed is not None and renewed.spki_sha256 == spki_sha256:
            return renewed
    return active


def find_repeated(db: Transaction, intent: EnrollmentIntent, now: datetime) -> Recorded | None:
    """The certificate that answered the same request before, if it is still of use."""
    if intent.operation is Operation.SERVERKEYGEN:
        # The certificate would be of no use to its client without the key, which is gone.
        return None
    row = db.execute(
        f"SELECT {CERTIFICATE_COLUMNS} FROM issuances "
        "WHERE device = ? AND label = ? AND state = 'active'",
        (intent.device, label_column(intent.label)),
    ).fetchone()
    if row is None:
        return None
    found = sealed_issuances.opened(db, row[:-1])
    # The request key stands for all that follows it here. Comparing the rest as well keeps a
    # caller that computes too weak a key from being handed another request's certificate.
    # Compared here, not in SQL: where a value decides which partial index fits, SQLite compiles
    # the statement anew for each value, which takes 45 us.
    is_repeated = (
        found.request_key,
        found.operation,
        found.spki_sha256,
        found.predecessor,
    ) == (intent.request_key, intent.operation.value, intent.spki_sha256, intent.predecessor)
    if not is_repeated or found.not_after <= to_column(now):
        return None
    return Recorded(found.number, sealed_issuances.record(found, row[-1]))


def page(
    db: Transaction, *, device: str | None, serial: str | None, after: int, size: int
) -> tuple[list[IssuedCertificate], int | None]:
    """The next ``size`` certificates after number ``after``, and the number of the last."""
    if not is_storable(device or ""):
        return [], None
    rows = db.execute(
        f"SELECT {CERTIFICATE_COLUMNS} FROM issuances WHERE status = 'issued' "
        f"{'AND device = ? ' if device is not None else ''}"
        f"{'AND serial = ? ' if serial is not None else ''}"
        "AND number > ? ORDER BY number LIMIT ?",
        (*(value for value in (device, serial) if value is not None), after, size),
    ).fetchall()
    return (
        [sealed_issuances.certificate(db, row) for row in rows],
        rows[-1][0] if rows else None,
    )


def good_ones(db: Transaction, device: str, now: datetime) -> list[Issuance]:
    """Each certificate of ``device`` that has not ended, superseded ones included: they verify like
    any other."""
    every = sealed_issuances.where(db, "device = ? AND status = 'issued'", device)
    return [issued for issued in every if _is_good(issued, now)]


def certified_keys(db: Transaction, device: str) -> list[bytes]:
    """The SPKI hashes of all keys that were ever certified for ``device``."""
    every = sealed_issuances.where(db, "device = ? AND status = 'issued'", device)
    return list(dict.fromkeys(issued.spki_sha256 for issued in every))


def of_key(db: Transaction, key: bytes, now: datetime) -> list[Issuance]:
    """Each certificate for the key that has not ended, whosever it is."""
    every = sealed_issuances.where(db, "spki_sha256 = ? AND status = 'issued'", key)
    return [issued for issued in every if _is_good(issued, now)]


def _is_good(issued: Issuance, now: datetime) -> bool:
    # Not left to SQL: a row that says otherwise since somebody edited it has to be looked at.
    return issued.state != CertificateState.REVOKED and issued.not_after > to_column(now)
