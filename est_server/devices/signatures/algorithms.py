"""The signatures that are believed, over digests made elsewhere.

RSA with PKCS#1 v1.5 or PSS, 2048 bits or more; ECDSA over P-256, P-384 and P-521; Ed25519 where
what is signed is small; SHA-256, SHA-384 and SHA-512. Nothing else: no SHA-1, no MAC, no
signature that is none.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from est_protocol.keys import PublicKey, key_kind
from est_protocol.signatures import Hash

RSA_BITS = 2048
_CURVES = ("ec-p256", "ec-p384", "ec-p521")
_CERTIFICATE_HASHES = ("sha256", "sha384", "sha512")


class Scheme(Enum):
    """How a digest is signed."""

    ECDSA = "ecdsa"
    PKCS1 = "rsa-pkcs1"
    PSS = "rsa-pss"
    ED25519 = "ed25519"


class Algorithm(NamedTuple):
    """A scheme with its hash.

    :param salt_octets: of PSS.
    """

    scheme: Scheme
    hash: Hash
    salt_octets: int = 0


def weakness(key: PublicKey) -> str | None:
    """Why nothing is believed that is signed with ``key``, or ``None``."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < RSA_BITS:
            return f"an RSA key of {key.key_size} bits is too weak"
    elif key_kind(key) not in (*_CURVES, "ed25519"):
        return f"keys of kind {key_kind(key)} are not accepted for signing lists"
    return None


def weakness_of_certificate(certificate: x509.Certificate) -> str | None:
    """Why a certificate is not believed, beside its key, or ``None``."""
    algorithm = certificate.signature_hash_algorithm
    if algorithm is not None and algorithm.name not in _CERTIFICATE_HASHES:
        return f"a certificate that is signed over {algorithm.name} is not accepted"
    return weakness(certificate.public_key())


def verifies_digest(key: PublicKey, algorithm: Algorithm, signature: bytes, digest: bytes) -> bool:
    """Whether ``signature`` is by the private half of ``key``, over octets with that digest.

    A key that is too weak, or not of the algorithm's kind, verifies nothing.
    """
    if weakness(key) is not None:
        return False
    prehashed = Prehashed(algorithm.hash)
    try:
        if algorithm.scheme is Scheme.ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, digest, ec.ECDSA(prehashed))
        elif algorithm.scheme is Scheme.PKCS1 and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, digest, padding.PKCS1v15(), prehashed)
        elif algorithm.scheme is Scheme.PSS and isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(algorithm.hash), algorithm.salt_octets)
            key.verify(signature, digest, pss, prehashed)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, OverflowError):
        # OverflowError for the length of a salt that is no length.
        return False
    return True


def verifies(key: PublicKey, algorithm: Algorithm, signature: bytes, octets: bytes) -> bool:
    """The same over octets that are at hand; this is the way for Ed25519."""
    if algorithm.scheme is not Scheme.ED25519:
        context = hashes.Hash(algorithm.hash)
        context.update(octets)
        return verifies_digest(key, algorithm, signature, context.finalize())
    if not isinstance(key, ed25519.Ed25519PublicKey):
        return False
    try:
        key.verify(signature, octets)
    except InvalidSignature:
        return False
    return True
