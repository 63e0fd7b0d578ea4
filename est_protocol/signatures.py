"""Signatures outside certificates and channels: CSRs with attributes, signed key packages."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa

from est_protocol.keys import PublicKey, SigningKey

Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

_HASHES: dict[str, Hash] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
#: OIDs of the digest algorithms (RFC 5754 section 2).
DIGEST_OIDS = {
    "2.16.840.1.101.3.4.2.1": _HASHES["sha256"],
    "2.16.840.1.101.3.4.2.2": _HASHES["sha384"],
    "2.16.840.1.101.3.4.2.3": _HASHES["sha512"],
}

_HASHLESS = (
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
    mldsa.MLDSA44PublicKey,
    mldsa.MLDSA65PublicKey,
    mldsa.MLDSA87PublicKey,
)
#: Algorithms that a key determines (RFC 8410 section 3, RFC 9881 section 2).
_OIDS: tuple[tuple[type[SigningKey], str], ...] = (
    (ed25519.Ed25519PrivateKey, "1.3.101.112"),
    (ed448.Ed448PrivateKey, "1.3.101.113"),
    (mldsa.MLDSA44PrivateKey, "2.16.840.1.101.3.4.3.17"),
    (mldsa.MLDSA65PrivateKey, "2.16.840.1.101.3.4.3.18"),
    (mldsa.MLDSA87PrivateKey, "2.16.840.1.101.3.4.3.19"),
)


def digest_of(key: SigningKey) -> Hash:
    """The digest that goes with the strength of ``key`` (RFC 8419 section 3.1 for Ed25519, RFC
    9882 section 3.3 for ML-DSA)."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = key.curve.key_size
        return _HASHES["sha256" if size <= 256 else "sha384" if size <= 384 else "sha512"]
    return _HASHES["sha256" if isinstance(key, rsa.RSAPrivateKey) else "sha512"]


def digest_oid(algorithm: Hash) -> str:
    """The OID of a digest algorithm."""
    return next(oid for oid, known in DIGEST_OIDS.items() if known.name == algorithm.name)


def sign(key: SigningKey, octets: bytes, algorithm: Hash) -> bytes:
    """The signature over ``octets``; RSA with PKCS#1 v1.5. All but RSA and EC need no hash."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(octets, ec.ECDSA(algorithm))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(octets, padding.PKCS1v15(), algorithm)
    return key.sign(octets)


def verifies(key: PublicKey, signature: bytes, octets: bytes, algorithm: Hash) -> bool:
    """Whether ``signature`` over ``octets`` was made with the private half of ``key``."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, octets, ec.ECDSA(algorithm))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, octets, padding.PKCS1v15(), algorithm)
        elif isinstance(key, _HASHLESS):
            key.verify(signature, octets)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def algorithm_oid(key: SigningKey, algorithm: Hash) -> tuple[str, bool]:
    """The OID of the signature algorithm, and whether its parameters are NULL or absent."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return f"1.2.840.10045.4.3.{_rank(algorithm, 2)}", False
    if isinstance(key, rsa.RSAPrivateKey):
        return f"1.2.840.113549.1.1.{_rank(algorithm, 11)}", True
    return next(oid for kind, oid in _OIDS if isinstance(key, kind)), False


def _rank(algorithm: Hash, first: int) -> int:
    return first + list(_HASHES).index(algorithm.name)
