"""A key that the server generates: how it is asked for, and what is checked before it is taken.

RFC 7030 section 4.4, RFC 9148 section 4.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from est_client.issued import accept_issued
from est_protocol.chain import verify_chain
from est_protocol.cms_algorithms import CAPABILITIES
from est_protocol.decrypt_key import ProtectionRequest
from est_protocol.errors import CertificateRejected
from est_protocol.key_package import SignedKey, decode_private_key
from est_protocol.key_recipients import (
    DecryptionKey,
    SymmetricKey,
    allows_decryption,
    key_identifiers,
)
from est_protocol.messages import GeneratedKeyResponse
from est_protocol.protected_key import unseal
from est_protocol.secure_channel.context import LocalCredentials
from est_protocol.trust_anchors import CaCertificates


@dataclass(frozen=True, slots=True)
class Protection:
    """The encryption that a key is asked for with, beside the channel's.

    :param request: what goes into the CSR.
    :param key: what the answer is decrypted with.
    """

    request: ProtectionRequest
    key: DecryptionKey


def protection_by(identity: LocalCredentials, shared: SymmetricKey | None) -> Protection | None:
    """How a key can be encrypted for this client; ``None`` if it cannot.

    :param shared: a key that client and server share; without one the identity's certified key
        is taken, where it is of a kind that can decrypt and its certificate lets it.
    """
    if shared is not None:
        return Protection(ProtectionRequest(shared.identifier, None, CAPABILITIES), shared)
    if not identity.chain or not isinstance(
        identity.key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    ):
        return None
    certificate = identity.chain[0]
    if not allows_decryption(certificate):
        return None
    identifier = key_identifiers(certificate)[0]
    return Protection(ProtectionRequest(None, identifier, CAPABILITIES), identity.key)


def accept_generated(
    answer: GeneratedKeyResponse,
    protection: Protection | None,
    *,
    server: Sequence[x509.Certificate],
    authority: CaCertificates | None,
    now: datetime,
) -> LocalCredentials:
    """The key and its certificate, with what belongs between it and the trust anchor.

    :param server: the chain that the server authenticated with.
    :param authority: what /cacerts gave; ``None`` verifies nothing but the key.
    :raises CertificateRejected: the key is not encrypted although it was to be, not signed by
        whom it should be, or not the certificate's.
    :raises MessageError: it does not decode, or cannot be decrypted.
    """
    if answer.protected != (protection is not None):
        raise CertificateRejected(
            "the server sent the key encrypted, which nobody asked for"
            if answer.protected
            else "the server sent the key in the clear, although it was asked to encrypt it"
        )
    if protection is None:
        key = decode_private_key(answer.key)
    else:
        signed = unseal(answer.key, protection.key)
        _verify_signer(signed, server, authority, now)
        key = signed.key
    path = accept_issued(answer.certificates, key.public_key(), authority=authority, now=now)
    return LocalCredentials(key, path)


def _verify_signer(
    signed: SignedKey,
    server: Sequence[x509.Certificate],
    authority: CaCertificates | None,
    now: datetime,
) -> None:
    """Whoever generated the key is the server itself, or somebody of the same CA."""
    if server and signed.signer == server[0]:
        return
    if authority is None:
        raise CertificateRejected("the generated key is signed by somebody unknown")
    verify_chain(
        signed.signer,
        anchors=(authority.current,),
        intermediates=(*authority.others, *signed.certificates),
        now=now,
    )
