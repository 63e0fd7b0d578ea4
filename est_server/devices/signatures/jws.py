"""JSON Web Signatures (RFC 7515), as far as lists need them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from est_protocol.certs_only import decode_certificate
from est_protocol.errors import MessageError
from est_protocol.keys import PublicKey
from est_protocol.signatures import DIGEST_OIDS
from est_server.devices.refusals import SignatureRejected
from est_server.devices.signatures.algorithms import Algorithm, Scheme, verifies_digest
from est_server.devices.strict_json import NotStrictJson, load_object

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_SHA256, _SHA384, _SHA512 = DIGEST_OIDS.values()
#: RFC 7518 section 3.1, without the MACs and without "none".
ALGORITHMS = {
    "ES256": Algorithm(Scheme.ECDSA, _SHA256),
    "ES384": Algorithm(Scheme.ECDSA, _SHA384),
    "ES512": Algorithm(Scheme.ECDSA, _SHA512),
    "RS256": Algorithm(Scheme.PKCS1, _SHA256),
    "RS384": Algorithm(Scheme.PKCS1, _SHA384),
    "RS512": Algorithm(Scheme.PKCS1, _SHA512),
    "PS256": Algorithm(Scheme.PSS, _SHA256, 32),
    "PS384": Algorithm(Scheme.PSS, _SHA384, 48),
    "PS512": Algorithm(Scheme.PSS, _SHA512, 64),
}
#: The curve of each (RFC 7518 section 3.4), and the octets of each half of a signature.
CURVES = {"ES256": ("secp256r1", 32), "ES384": ("secp384r1", 48), "ES512": ("secp521r1", 66)}

#: Members of a header that point to a key; who believes them believes everybody.
_NAMES_A_KEY = ("jwk", "jku", "x5u")
_MAX_CERTIFICATES = 16


@dataclass(frozen=True, slots=True)
class Header:
    """A protected header.

    :param alg: a name in :data:`ALGORITHMS`.
    :param b64: whether the payload is signed in base64url (RFC 7797 section 3).
    :param signed_at: when it was signed, if it says so.
    :param certificates: those that it carries, not trusted.
    """

    alg: str
    b64: bool
    signed_at: datetime | None
    certificates: tuple[x509.Certificate, ...]


def decode_base64url(text: str, what: str) -> bytes:
    """The octets behind base64url without padding (RFC 7515 section 2).

    :raises SignatureRejected: it is something else.
    """
    try:
        if _BASE64URL.fullmatch(text):
            octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            if encode_base64url(octets) == text:
                return octets
    except binascii.Error:
        pass
    raise SignatureRejected(f"{what} of the JWS is not base64url")


def encode_base64url(octets: bytes) -> str:
    """``octets`` in base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def read_header(protected: str) -> Header:
    """Read and check a protected header.

    :raises SignatureRejected: its algorithm is weak or unknown, it brings its own key, or has
        critical members that are not understood.
    """
    try:
        members = load_object(decode_base64url(protected, "the protected header"))
    except NotStrictJson as error:
        raise SignatureRejected(f"the protected header of the JWS is {error}") from error
    alg = members.get("alg")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise SignatureRejected(_why_not(alg))
    for name in _NAMES_A_KEY:
        if name in members:
            raise SignatureRejected(f"the JWS names its own key ({name}), which proves nothing")
    return Header(alg, _b64(members), _signed_at(members), _certificates(members))


def _why_not(alg: object) -> str:
    if alg == "EdDSA":
        return "EdDSA in a JWS needs the whole list in memory; sign with CMS instead"
    return f"the algorithm {str(alg)[:20]!r} of the JWS is not one of {', '.join(ALGORITHMS)}"


def _b64(members: Mapping[str, object]) -> bool:
    critical = members.get("crit", ["b64"] if "b64" not in members else None)
    # A verifier that does not know b64 must refuse it, so it has to be critical (RFC 7797
    # section 6), and nothing else that may be critical is known here (RFC 7515 section 4.1.11).
    if critical != ["b64"] or ("crit" in members and "b64" not in members):
        raise SignatureRejected("the JWS has critical members that are not understood")
    b64 = members.get("b64", True)
    if not isinstance(b64, bool):
        raise SignatureRejected("b64 of the JWS is neither true nor false")
    return b64


def _signed_at(members: Mapping[str, object]) -> datetime | None:
    seconds = members.get("iat")
    if seconds is None:
        return None
    try:
        if isinstance(seconds, int | float) and not isinstance(seconds, bool):
            return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise SignatureRejected("iat of the JWS is no time")


def _certificates(members: Mapping[str, object]) -> tuple[x509.Certificate, ...]:
    chain = members.get("x5c", [])
    if not isinstance(chain, list) or len(chain) > _MAX_CERTIFICATES:
        raise SignatureRejected("x5c of the JWS is no list of certificates")
    try:
        return tuple(decode_certificate(base64.b64decode(text, validate=True)) for text in chain)
    except (MessageError, ValueError, TypeError) as error:
        raise SignatureRejected("x5c of the JWS has something else in it") from error


def jws_verifies(key: PublicKey, alg: str, signature: bytes, digest: bytes) -> bool:
    """Whether ``key`` made a signature in the form of RFC 7518 section 3.

    :param digest: of the signing input, by the hash of ``alg``.
    """
    if alg in CURVES:
        curve, half = CURVES[alg]
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != curve:
            return False
        if len(signature) != 2 * half:
            return False
        r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
        signature = encode_dss_signature(r, s)
    return verifies_digest(key, ALGORITHMS[alg], signature, digest)
