"""Rows of issuances that have a certificate, with the code that seals them; in a transaction of
the caller.

The code covers all that decides who may do what with the certificate, the SHA-256 of the
certificate itself among it, and not the number: so it goes into the statement that inserts the row.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cryptography import x509

from est_server.ledger_records import CertificateState, IssuedCertificate
from est_server.stores.rules.sealed_rows import ISSUANCES
from est_server.stores.rules.values import Row, from_column
from est_server.stores.seals import tampered
from est_server.stores.transaction import Transaction, Value

#: What :func:`opened` expects.
COLUMNS = ISSUANCES.read

#: What :func:`certificate` expects.
CERTIFICATE_COLUMNS = f"{COLUMNS}, certificate"

_ACTIVE = f"SELECT {COLUMNS} FROM issuances WHERE device = ? AND label = ? AND state = 'active'"


class Issuance(NamedTuple):
    """A row, which a server wrote; values as in the columns."""

    number: int
    sha256: bytes
    device: str
    label: str
    serial: str
    not_after: int
    spki_sha256: bytes
    request_key: bytes
    operation: str
    predecessor: bytes | None
    finished_at: int
    state: str


def opened(db: Transaction, row: Row) -> Issuance:
    """A row, once it is known to be what a server wrote.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    return Issuance(*ISSUANCES.opened(db, row))


def certificate(db: Transaction, row: Row) -> IssuedCertificate:
    """A row's certificate, once both are known to be what a server wrote.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    return record(opened(db, row[:-1]), row[-1])


def record(found: Issuance, der: bytes) -> IssuedCertificate:
    """The certificate of a row.

    :param der: what the row has for it.
    :raises RequestRefused: ``RECORD_TAMPERED``: it is another one.
    """
    return IssuedCertificate(
        certificate=_parsed(found, der),
        sha256=found.sha256,
        device=found.device,
        label=found.label or None,
        spki_sha256=found.spki_sha256,
        state=CertificateState(found.state),
        issued_at=from_column(found.finished_at),
    )


def where(db: Transaction, condition: str, *parameters: Value) -> list[Issuance]:
    """The rows for which a condition holds, by number.

    :raises RequestRefused: ``RECORD_TAMPERED``: one of them is not what a server wrote.
    """
    rows = db.execute(
        f"SELECT {COLUMNS} FROM issuances WHERE {condition} ORDER BY number", parameters
    ).fetchall()
    return [opened(db, row) for row in rows]


def find(db: Transaction, sha256: bytes | None) -> Issuance | None:
    """The row of the certificate with this hash.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    row = db.execute(f"SELECT {COLUMNS} FROM issuances WHERE sha256 = ?", (sha256,)).fetchone()
    return None if row is None else opened(db, row)


def find_active(db: Transaction, device: str, label: str) -> Issuance | None:
    """The row of the active certificate of a device under a label.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    row = db.execute(_ACTIVE, (device, label)).fetchone()
    return None if row is None else opened(db, row)


def parsed(db: Transaction, found: Issuance) -> x509.Certificate:
    """The certificate of a row.

    :raises RequestRefused: ``RECORD_TAMPERED``: it is another one.
    """
    (der,) = db.execute(
        "SELECT certificate FROM issuances WHERE number = ?", (found.number,)
    ).fetchone()
    return _parsed(found, der)


def change_state(db: Transaction, found: Issuance, state: CertificateState) -> None:
    """Write another state into a row."""
    changed = found._replace(state=state.value)
    db.execute(
        "UPDATE issuances SET state = ?, mac = ? WHERE number = ?",
        (changed.state, ISSUANCES.code(db.seals, *changed), changed.number),
    )


def _parsed(found: Issuance, der: bytes) -> x509.Certificate:
    if hashlib.sha256(der).digest() != found.sha256:
        raise tampered(
            f"certificate {found.serial!r}: the record has another certificate",
            device=found.device,
        )
    return x509.load_der_x509_certificate(der)
