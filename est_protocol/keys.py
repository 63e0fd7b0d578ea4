"""Public keys as EST sees them: their SPKI octets, their hash, their kind."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
    PublicKeyTypes,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from est_protocol.errors import ConfigurationError

PublicKey = PublicKeyTypes | CertificatePublicKeyTypes

#: Post-quantum private keys (RFC 9881).
MlDsaKey = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey

#: Private keys that can authenticate a channel, sign a CSR or issue a certificate.
SigningKey = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | MlDsaKey
)

#: Kinds of key that :func:`generate_key` makes, by the names of :func:`key_kind`.
KEY_KINDS = (
    "ec-p256",
    "ec-p384",
    "ec-p521",
    "ed25519",
    "rsa-2048",
    "rsa-3072",
    "rsa-4096",
    "mldsa44",
    "mldsa65",
    "mldsa87",
)

#: FIPS 186-5 section 5.4: an odd public exponent between these, both excluded.
_SMALLEST_EXPONENT, _LARGEST_EXPONENT = 2**16, 2**256
#: The product of the primes up to 751, none of which may divide a modulus (CA/Browser Forum
#: Baseline Requirements section 6.1.6).
_SMALL_PRIMES = math.prod(
    n for n in range(2, 752) if all(n % d for d in range(2, math.isqrt(n) + 1))
)


def generate_key(kind: str = "ec-p256") -> SigningKey:
    """Make a private key.

    :param kind: one of :data:`KEY_KINDS`.
    :raises ConfigurationError: it is none of them.
    """
    if kind not in KEY_KINDS:
        raise ConfigurationError(f"unknown kind of key {kind!r}; known: {', '.join(KEY_KINDS)}")
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    if kind in _ML_DSA:
        return _ML_DSA[kind]()
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("rsa-")))


def spki_der(key: PublicKey) -> bytes:
    """The DER SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) of ``key``."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spki_sha256(key: PublicKey) -> bytes:
    """SHA-256 (32 octets) over the DER SubjectPublicKeyInfo; in hex, the default UDID."""
    return hashlib.sha256(spki_der(key)).digest()


def key_kind(key: PublicKey) -> str:
    """The kind of key by the names that configuration uses.

    ``ec-p256``, ``ec-p384``, ``ec-p521``, ``ed25519``, ``ed448``, ``rsa-2048`` and so on,
    ``mldsa44``, ``mldsa65`` and ``mldsa87`` (RFC 9881); other keys by their class name in lower
    case.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ec-{_CURVE_NAMES.get(key.curve.name, key.curve.name)}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(key, ed448.Ed448PublicKey):
        return "ed448"
    return type(key).__name__.lower().removesuffix("publickey")


def defect_of(key: PublicKey) -> str | None:
    """Why nobody should rely on ``key``, of whatever kind and size it is; ``None`` if nothing is
    known against it.

    An RSA key is looked at: an exponent that is small, even or huge, and a modulus that is divided
    by a small prime (FIPS 186-5 section 5.4). The points of elliptic curves are on their curve once
    they are decoded.
    """
    if not isinstance(key, rsa.RSAPublicKey):
        return None
    numbers = key.public_numbers()
    if not (_SMALLEST_EXPONENT < numbers.e < _LARGEST_EXPONENT and numbers.e % 2):
        return "its public exponent is not an odd number between 2^16 and 2^256"
    if math.gcd(numbers.n, _SMALL_PRIMES) != 1:
        return "its modulus is divided by a small prime"
    return None


_CURVES: dict[str, ec.EllipticCurve] = {
    "ec-p256": ec.SECP256R1(),
    "ec-p384": ec.SECP384R1(),
    "ec-p521": ec.SECP521R1(),
}
_ML_DSA: dict[str, Callable[[], SigningKey]] = {
    "mldsa44": mldsa.MLDSA44PrivateKey.generate,
    "mldsa65": mldsa.MLDSA65PrivateKey.generate,
    "mldsa87": mldsa.MLDSA87PrivateKey.generate,
}
_CURVE_NAMES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
