"""Certificate path validation outside a handshake (RFC 5280 section 6)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

from cryptography import x509
from OpenSSL import crypto

from est_protocol.errors import CertificateRejected
from est_protocol.issuers import is_issued_by
from est_protocol.secure_channel.bindings import forget_errors


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
    try:
        own = crypto.X509.from_cryptography(certificate)
        path = crypto.X509StoreContext(store, own, _usable(intermediates)).get_verified_chain()
    except (crypto.X509StoreContextError, crypto.Error) as error:
        subject = certificate.subject.rfc4514_string()
        why = error if isinstance(error, crypto.X509StoreContextError) else "OpenSSL cannot read it"
        raise CertificateRejected(f"the certificate of {subject!r}: {why}") from error
    finally:
        forget_errors()
    return tuple(step.to_cryptography() for step in path)


def _usable(intermediates: Iterable[x509.Certificate]) -> list[crypto.X509]:
    """Those that a path may pass, as OpenSSL has them."""
    usable = []
    for certificate in intermediates:
        # A self-signed certificate leads nowhere, and OpenSSL does not turn back.
        if not is_self_signed(certificate):
            # What OpenSSL cannot read concerns nobody but those whose path it is on.
            with suppress(crypto.Error):
                usable.append(crypto.X509.from_cryptography(certificate))
    return usable


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether a certificate is signed with the key that it carries."""
    return is_issued_by(certificate, certificate)
