"""Is this the EST server that was meant? (RFC 7030 section 3.6, RFC 9525)"""

from __future__ import annotations

import ipaddress

import service_identity
from cryptography import x509
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)

from est_protocol import oid_names
from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import PeerNotTrusted

#: Marks the certificate of an EST server as one of its CA's (RFC 6402 section 2.10).
ID_KP_CMC_RA = x509.ObjectIdentifier(oid_names.ID_KP_CMC_RA)


def verify_server(server: PeerCredentials, host: str) -> AnchorSet:
    """Check that a server may be sent a request.

    Its chain must have verified, and its certificate must name ``host`` in subjectAltName; a
    common name never counts (RFC 9525 section 2). If the chain ended in the Explicit TA
    database, id-kp-cmcRA will do instead of the name (RFC 7030 section 3.6.1); in the Implicit
    one it will not (section 3.6.2).

    :param host: a DNS name or an IP address literal, as the URL has it.
    :return: the database that the server was verified by.
    :raises PeerNotTrusted: it must not be sent anything.
    """
    certificate = server.certificate
    if certificate is None:
        raise PeerNotTrusted("the server presented no certificate")
    if server.anchor_set is None or not server.is_verified:
        raise PeerNotTrusted(f"the server's certificate: {server.why_unverified()}")
    if server.anchor_set is AnchorSet.EXPLICIT and is_registration_authority(certificate):
        return server.anchor_set
    _verify_name(certificate, host)
    return server.anchor_set


def is_registration_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate carries id-kp-cmcRA (RFC 6402 section 2.10).

    :raises PeerNotTrusted: its extensions do not decode.
    """
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    except ValueError as error:
        raise PeerNotTrusted("the server's certificate has unreadable extensions") from error
    return ID_KP_CMC_RA in usages


def server_name(host: str) -> str | None:
    """What stands in the server_name extension for ``host``: names only (RFC 6066 section 3)."""
    return None if _is_ip_address(host) else host.rstrip(".")


def _verify_name(certificate: x509.Certificate, host: str) -> None:
    try:
        if _is_ip_address(host):
            verify_certificate_ip_address(certificate, host)
        else:
            verify_certificate_hostname(certificate, host)
    except (
        service_identity.VerificationError,
        service_identity.CertificateError,
        ValueError,
    ) as error:
        raise PeerNotTrusted(f"the server's certificate does not name {host!r}") from error


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
