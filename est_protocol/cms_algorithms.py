"""The algorithms that encrypt a server-generated key, and the choice among them.

RFC 3565 (AES in CMS), RFC 3560 and 8017 (RSA), RFC 5753 (elliptic curves). AES-GCM is not among
them: RFC 7030 section 4.4.2 prescribes EnvelopedData, and RFC 5084 section 1 has GCM in
AuthEnvelopedData only. What is inside the envelope is signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from est_protocol.keys import PublicKey, key_kind

AES128_CBC = "2.16.840.1.101.3.4.1.2"
AES192_CBC = "2.16.840.1.101.3.4.1.22"
AES256_CBC = "2.16.840.1.101.3.4.1.42"
AES128_WRAP = "2.16.840.1.101.3.4.1.5"
AES192_WRAP = "2.16.840.1.101.3.4.1.25"
AES256_WRAP = "2.16.840.1.101.3.4.1.45"
RSA_PKCS1 = "1.2.840.113549.1.1.1"
RSA_OAEP = "1.2.840.113549.1.1.7"
ECDH_SHA256 = "1.3.132.1.11.1"
ECDH_SHA384 = "1.3.132.1.11.2"
ECDH_SHA512 = "1.3.132.1.11.3"

#: Octets of the key of each content encryption, and of each key wrap.
CONTENT_CIPHERS = {AES128_CBC: 16, AES192_CBC: 24, AES256_CBC: 32}
KEY_WRAPS = {AES128_WRAP: 16, AES192_WRAP: 24, AES256_WRAP: 32}
#: The hash of each key derivation (dhSinglePass-stdDH, X9.63).
KEY_AGREEMENTS: Mapping[str, hashes.HashAlgorithm] = {
    ECDH_SHA256: hashes.SHA256(),
    ECDH_SHA384: hashes.SHA384(),
    ECDH_SHA512: hashes.SHA512(),
}
KEY_TRANSPORTS = (RSA_OAEP, RSA_PKCS1)

#: All that this implementation decrypts, preferred first: what a client says it is capable of.
CAPABILITIES = (
    AES256_CBC,
    AES192_CBC,
    AES128_CBC,
    AES256_WRAP,
    AES192_WRAP,
    AES128_WRAP,
    ECDH_SHA256,
    ECDH_SHA384,
    ECDH_SHA512,
    RSA_OAEP,
)


class NothingInCommon(Exception):
    """No algorithm that the client is capable of will do."""


#: Bits of security, of Edwards curves and of ML-DSA (FIPS 204 section 4).
_STRENGTHS = {"ed25519": 128, "ed448": 224, "mldsa44": 128, "mldsa65": 192, "mldsa87": 256}


def security_strength(key: PublicKey) -> int:
    """Bits of security of a key (NIST SP 800-57 part 1, table 2)."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.key_size // 2 if key.curve.key_size < 512 else 256
    if isinstance(key, rsa.RSAPublicKey):
        return 256 if key.key_size >= 15360 else 192 if key.key_size >= 7680 else 128
    return _STRENGTHS[key_kind(key)]


def content_cipher(capabilities: Sequence[str], strength: int) -> str:
    """The content encryption for a key of ``strength`` bits.

    The first that is strong enough, else the strongest (RFC 7030 section 4.4.2 has it match
    where it can). A client that lists none knows AES-CBC (RFC 8551 section 2.7).
    """
    return _strong_enough(_sizes(capabilities, CONTENT_CIPHERS) or CONTENT_CIPHERS, strength)


def key_wrap(capabilities: Sequence[str], strength: int) -> str:
    """The key wrap to go with a content encryption key of ``strength`` bits.

    :raises NothingInCommon: the client knows none.
    """
    known = _sizes(capabilities, KEY_WRAPS)
    if not known:
        raise NothingInCommon("no AES key wrap is among the SMIMECapabilities")
    return _strong_enough(known, strength)


def key_wrap_of_size(capabilities: Sequence[str], octets: int) -> str:
    """The key wrap for a shared key of that size.

    :raises NothingInCommon: the client does not know it, or there is none.
    """
    for oid, size in _sizes(capabilities, KEY_WRAPS).items():
        if size == octets:
            return oid
    raise NothingInCommon("no AES key wrap for the shared key is among the SMIMECapabilities")


def key_agreement(capabilities: Sequence[str]) -> str:
    """The scheme of key agreement.

    :raises NothingInCommon: the client knows none.
    """
    for oid in capabilities:
        if oid in KEY_AGREEMENTS:
            return oid
    raise NothingInCommon("no ECDH scheme is among the SMIMECapabilities")


def key_transport(capabilities: Sequence[str]) -> str:
    """The scheme of key transport.

    :raises NothingInCommon: the client knows none.
    """
    for oid in capabilities:
        if oid in KEY_TRANSPORTS:
            return oid
    raise NothingInCommon("no RSA key transport is among the SMIMECapabilities")


def _sizes(capabilities: Sequence[str], known: Mapping[str, int]) -> dict[str, int]:
    return {oid: known[oid] for oid in capabilities if oid in known}


def _strong_enough(sizes: Mapping[str, int], strength: int) -> str:
    for oid, octets in sizes.items():
        if octets * 8 >= strength:
            return oid
    return max(sizes, key=lambda oid: sizes[oid])
