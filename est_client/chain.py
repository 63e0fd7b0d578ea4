"""Certificate path validation outside a handshake (RFC 5280 section 6)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from OpenSSL import crypto

from est_protocol.errors import CertificateRejected


def verify_chain(
    certificate: x509.Certificate,
    *,
    anchors: Iterable[x509.Certificate],
    intermediates: Iterable[x509.Certificate],
    now: datetime,
) -> tuple[x509.Certificate, ...]:
    """Build and verify the path from ``certificate`` to one of ``anchors``.

    As in the handshake, any certificate will do as an anchor. Names and extended key usages are
    not looked at.

    :param intermediates: certificates that the path may pass; not trusted.
    :param now: the time at which every certificate of the path must be valid.
    :return: the path, ``certificate`` first and the anchor last.
    :raises CertificateRejected: there is no such path.
    """
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(now)
    for anchor in anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    context = crypto.X509StoreContext(
        store,
        crypto.X509.from_cryptography(certificate),
        [crypto.X509.from_cryptography(intermediate) for intermediate in intermediates],
    )
    try:
        path = context.get_verified_chain()
    except crypto.X509StoreContextError as error:
        subject = certificate.subject.rfc4514_string()
        raise CertificateRejected(f"the certificate of {subject!r}: {error}") from error
    return tuple(step.to_cryptography() for step in path)
