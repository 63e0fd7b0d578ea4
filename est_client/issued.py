"""What a client checks before it takes a certificate (RFC 7030 section 4.2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from est_protocol.chain import verify_chain
from est_protocol.errors import CertificateRejected
from est_protocol.keys import PublicKey, spki_der
from est_protocol.trust_anchors import CaCertificates


def accept_issued(
    certificates: Sequence[x509.Certificate],
    key: PublicKey,
    *,
    authority: CaCertificates | None,
    now: datetime,
) -> tuple[x509.Certificate, ...]:
    """Find the issued certificate among ``certificates`` and verify it.

    A server should send it alone, but some send its chain along, in any order; the key tells it
    from the rest.

    :param key: the key that was to be certified.
    :param authority: what /cacerts gave; ``None`` verifies nothing but the key.
    :param now: the time at which it must be valid.
    :return: the certificate, and those between it and the current trust anchor.
    :raises CertificateRejected: none is for ``key``, or it does not chain to the CA.
    """
    candidates = [c for c in certificates if _is_for(c, key)]
    if not candidates:
        raise CertificateRejected("the server issued no certificate for the key of the request")
    certificate = max(candidates, key=lambda c: c.not_valid_before_utc)
    if authority is None:
        return (certificate,)
    path = verify_chain(
        certificate,
        anchors=(authority.current,),
        intermediates=(*authority.others, *certificates),
        now=now,
    )
    return path[:-1]


def _is_for(certificate: x509.Certificate, key: PublicKey) -> bool:
    try:
        return spki_der(certificate.public_key()) == spki_der(key)
    except (UnsupportedAlgorithm, ValueError):
        return False
