"""The server with a ledger that writes nothing, to see what the ledger costs; for benchmarks only.

``python -m tests.benchmarks.without_ledger serve --config FILE``
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_protocol.keys import spki_sha256
from est_server.cli import main
from est_server.ledger_records import (
    CertificateState,
    EnrollmentIntent,
    IssuanceTicket,
    IssuedCertificate,
)
from est_server.stores.store import Store

_numbers = itertools.count(1)


async def _begin(self: Store, intent: EnrollmentIntent) -> IssuanceTicket:
    return IssuanceTicket(next(_numbers), intent)


async def _issue(
    self: Store,
    intent: EnrollmentIntent,
    certify: Callable[[], x509.Certificate],
    *,
    now: datetime,
) -> IssuedCertificate:
    return _issued(intent, certify(), now)


async def _complete(
    self: Store, ticket: IssuanceTicket, certificate: x509.Certificate, *, now: datetime
) -> IssuedCertificate:
    return _issued(ticket.intent, certificate, now)


def _issued(
    intent: EnrollmentIntent, certificate: x509.Certificate, now: datetime
) -> IssuedCertificate:
    return IssuedCertificate(
        certificate=certificate,
        sha256=certificate.fingerprint(hashes.SHA256()),
        device=intent.device,
        label=intent.label,
        spki_sha256=intent.spki_sha256 or spki_sha256(certificate.public_key()),
        state=CertificateState.ACTIVE,
        issued_at=now,
    )


if __name__ == "__main__":
    patched = cast("dict[str, object]", {"begin": _begin, "issue": _issue, "complete": _complete})
    for name, method in patched.items():
        setattr(Store, name, method)
    raise SystemExit(main())
