"""Registration authorities: clients that enroll on behalf of devices (RFC 7030 section 3.7).

A client is one if its certificate was issued by the EST CA, has the extended key usage
id-kp-cmcRA (RFC 6402 section 2.10), and is one that the label names. A certificate of anybody else
confers nothing, whatever it says of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import MessageError
from est_protocol.issuers import is_issued_by
from est_protocol.oid_names import ID_KP_CMC_RA
from est_protocol.x509_decoding import decoding_x509

_CMC_RA = x509.ObjectIdentifier(ID_KP_CMC_RA)

#: Clients of which is remembered what was found out; the others are looked at anew.
_REMEMBERED = 1024


# Compared by identity: a name takes 20 us to hash, and one policy is asked about all requests.
@dataclass(frozen=True, slots=True, eq=False)
class RegistrationAuthorityPolicy:
    """Which clients are registration authorities of a label, and what they may do beside first
    enrollments.

    :param subjects: subjects of their certificates, which the CA of the label itself has to have
        issued.
    :param certificates: SHA-256 (32 octets) of their certificates, of any CA of this server.
    :param foreign_linking: take CSRs that are linked to another channel: the registration
        authority has verified them against its own (RFC 7030 section 3.5).
    :param renewals: renew on behalf of a device, which is known by the key of its certificate.
    :param retry_window: how long after a renewal a repeated request is answered with what the
        first one got, because the answer may have been lost.
    """

    subjects: frozenset[x509.Name] = frozenset()
    certificates: frozenset[bytes] = frozenset()
    foreign_linking: bool = False
    renewals: bool = False
    retry_window: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class RegistrationAuthority:
    """The registration authority that a request came through.

    :param certificate: its own certificate, which verified.
    :param name: its subject, for the audit trail.
    """

    certificate: x509.Certificate
    name: str


def claims_to_be_authority(peer: PeerCredentials) -> bool:
    """Whether a certificate of the EST CA says that the client is a registration authority."""
    if peer.anchor_set is not AnchorSet.OPERATIONAL or not peer.is_verified:
        return False
    return peer.certificate is not None and _has_usage(peer.certificate)


def recognize(
    peer: PeerCredentials,
    policy: RegistrationAuthorityPolicy,
    ca_certificates: Sequence[x509.Certificate],
) -> RegistrationAuthority | None:
    """The registration authority that ``peer`` is, or ``None`` for any other client.

    Whether its certificate has been revoked is not known here.

    :param ca_certificates: those of the label's CA.
    """
    certificate = peer.certificate
    if certificate is None or not claims_to_be_authority(peer):
        return None
    return _recognized(certificate, policy, tuple(ca_certificates))


# Such a client sends one request after the other, and this takes 140 us.
@lru_cache(maxsize=_REMEMBERED)
def _recognized(
    certificate: x509.Certificate,
    policy: RegistrationAuthorityPolicy,
    ca_certificates: tuple[x509.Certificate, ...],
) -> RegistrationAuthority | None:
    # Several CAs of one server may issue the same name.
    named = certificate.subject in policy.subjects and any(
        is_issued_by(certificate, issuer) for issuer in ca_certificates
    )
    if named or certificate.fingerprint(hashes.SHA256()) in policy.certificates:
        return RegistrationAuthority(certificate, certificate.subject.rfc4514_string())
    return None


@lru_cache(maxsize=_REMEMBERED)
def _has_usage(certificate: x509.Certificate) -> bool:
    try:
        with decoding_x509("the client certificate"):
            usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (MessageError, x509.ExtensionNotFound):
        return False
    return _CMC_RA in usages.value
