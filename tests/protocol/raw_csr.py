"""Certification requests with whatever in them, signed as they are."""

from __future__ import annotations

from asn1crypto import algos, core
from asn1crypto.x509 import Name
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from est_protocol.keys import spki_der
from tests.pki import make_key

KEY = make_key("raw request")
CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
SUBJECT_ALT_NAME = "2.5.29.17"

SUBJECT = bytes(Name.build({"common_name": "device"}).dump())
VERSION_1 = b"\x02\x01\x00"


def tagged(tag: int, *parts: bytes) -> bytes:
    """A DER element with ``parts`` as its content."""
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 128 + len(digits)]) + digits + content


def sequence(*parts: bytes) -> bytes:
    """A DER SEQUENCE."""
    return tagged(0x30, *parts)


def oid(dotted: str) -> bytes:
    """A DER OBJECT IDENTIFIER."""
    return bytes(core.ObjectIdentifier(dotted).dump())


def bit_string(octets: bytes) -> bytes:
    """A DER BIT STRING of whole octets."""
    return tagged(0x03, b"\x00", octets)


def attribute(kind: str, *values: bytes) -> bytes:
    """An attribute; the values are DER."""
    return sequence(oid(kind), tagged(0x31, *values))


def extension_request(*extensions: tuple[str, bytes]) -> bytes:
    """An extensionRequest attribute of extensions by OID and DER value."""
    encoded = [sequence(oid(kind), tagged(0x04, value)) for kind, value in extensions]
    return attribute(EXTENSION_REQUEST, sequence(*encoded))


def raw_csr(
    *attributes: bytes,
    version: bytes = VERSION_1,
    subject: bytes = SUBJECT,
    spki: bytes | None = None,
) -> bytes:
    """A request of the given parts, signed with :data:`KEY`."""
    spki = spki or spki_der(KEY.public_key())
    info = sequence(version, subject, spki, tagged(0xA0, *attributes))
    algorithm = bytes(algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}).dump())
    signature = KEY.sign(info, ec.ECDSA(hashes.SHA256()))
    return sequence(info, algorithm, bit_string(signature))


def rsa_spki(modulus: int, exponent: int) -> bytes:
    """The SubjectPublicKeyInfo of an RSA key of any numbers."""
    numbers = (bytes(core.Integer(number).dump()) for number in (modulus, exponent))
    algorithm = sequence(oid("1.2.840.113549.1.1.1"), b"\x05\x00")
    return sequence(algorithm, bit_string(sequence(*numbers)))


def ec_spki(point: bytes) -> bytes:
    """The SubjectPublicKeyInfo of an encoded point that claims to be on P-256."""
    algorithm = sequence(oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7"))
    return sequence(algorithm, bit_string(point))


def explicit_ec_spki(point: bytes, generator: bytes) -> bytes:
    """The same, with P-256's parameters spelt out but for the generator."""
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    seed = bytes.fromhex("c49d360886e704936a6678e1139d26b7819f7e90")
    field = sequence(oid("1.2.840.10045.1.1"), bytes(core.Integer(prime).dump()))
    coefficients = (tagged(0x04, (n % prime).to_bytes(32, "big")) for n in (-3, b))
    curve = sequence(*coefficients, bit_string(seed))
    numbers = bytes(core.Integer(order).dump()), b"\x02\x01\x01"
    parameters = sequence(b"\x02\x01\x01", field, curve, tagged(0x04, generator), *numbers)
    return sequence(sequence(oid("1.2.840.10045.2.1"), parameters), bit_string(point))
