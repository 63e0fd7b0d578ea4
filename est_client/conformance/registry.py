"""All rows, in the order in which they are run."""

from __future__ import annotations

from est_client.conformance import (
    authentication_rows,
    block_rows,
    cacerts_rows,
    coap_rows,
    csrattrs_rows,
    discovery_rows,
    encrypted_key_rows,
    enroll_rows,
    generated_key_rows,
    http_rows,
    pop_rows,
    reenroll_rows,
    status_rows,
    tls_rows,
)
from est_client.conformance.rows import REGISTERED, Row
from est_protocol.messages import Transport

#: What uses something up comes last: renewals and generated keys supersede the certificate of the
#: run, and what is said about all answers of the run needs them to have been given.
_ORDER = [
    module.__name__
    for module in (
        tls_rows,
        http_rows,
        cacerts_rows,
        csrattrs_rows,
        authentication_rows,
        enroll_rows,
        pop_rows,
        coap_rows,
        discovery_rows,
        block_rows,
        reenroll_rows,
        generated_key_rows,
        encrypted_key_rows,
        status_rows,
    )
]


def all_rows(transport: Transport | None = None) -> tuple[Row, ...]:
    """The rows of one transport, or of both."""
    rows = sorted(REGISTERED, key=lambda row: _ORDER.index(row.check.__module__))
    return tuple(row for row in rows if transport is None or transport in row.transports)
