"""Certification requests: what decodes, what proves possession, and what can only be refused."""

from __future__ import annotations

from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.csr_attributes import ExtensionTemplate
from est_protocol.errors import MessageError
from est_protocol.keys import defect_of, generate_key, key_kind, spki_der, spki_sha256
from est_protocol.oid_names import KEY_USAGE
from est_protocol.pkcs10 import CertificationRequest, build
from tests.pki import make_key, make_name
from tests.protocol import raw_csr
from tests.protocol.raw_csr import (
    CHALLENGE_PASSWORD,
    KEY,
    SUBJECT_ALT_NAME,
    attribute,
    ec_spki,
    explicit_ec_spki,
    extension_request,
    rsa_spki,
    sequence,
    tagged,
)
from tests.vectors import rfc_vector

BINDING = ChannelBinding(ChannelBindingType.TLS_UNIQUE, bytes(range(12)))
#: The generator of P-256, uncompressed.
GENERATOR = ec.derive_private_key(1, ec.SECP256R1())

UTF8, PRINTABLE, TELETEX, IA5, UNIVERSAL, BMP = 12, 19, 20, 22, 28, 30


def uncompressed(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def decode(octets: bytes) -> CertificationRequest:
    return CertificationRequest.decode(octets)


def password(tag: int, octets: bytes) -> bytes:
    return attribute(CHALLENGE_PASSWORD, tagged(tag, octets))


# -- round trips --------------------------------------------------------------------------------


@cache
def request(kind: str) -> CertificationRequest:
    names = (
        x509.DNSName("device.example"),
        x509.UniformResourceIdentifier("urn:device:1"),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), b"\x05\x00"),
    )
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.COMMON_NAME, "device"),
        ]
    )
    return build(generate_key(kind), subject, subject_alt_names=names, binding=BINDING)


@pytest.mark.conformance("SE-05")
@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "ec-p521", "ed25519", "rsa-2048"])
def test_what_is_built_decodes_and_proves_possession(kind: str) -> None:
    built = request(kind)
    decoded = decode(built.der)
    assert decoded.der == built.der
    assert decoded.proves_possession()
    assert key_kind(decoded.public_key) == kind
    assert decoded.key_sha256 == built.key_sha256 == spki_sha256(decoded.public_key)
    assert decoded.subject == built.subject
    assert decoded.subject_alt_names == built.subject_alt_names
    assert decoded.challenges.challenge_password is not None
    assert BINDING.matches(decoded.challenges.challenge_password)


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=16))
def test_any_common_name_survives(text: str) -> None:
    built = build(KEY, make_name(text))
    assert decode(built.der).subject == make_name(text)


# -- possession ---------------------------------------------------------------------------------


@pytest.mark.conformance("POP-21")
def test_a_signature_by_another_key_proves_nothing() -> None:
    other = spki_der(make_key("somebody else").public_key())
    assert decode(raw_csr.raw_csr()).proves_possession()
    assert not decode(raw_csr.raw_csr(spki=other)).proves_possession()


@pytest.mark.conformance("POP-21")
@given(st.integers(0, 1 << 30))
def test_a_changed_bit_anywhere_proves_nothing(position: int) -> None:
    octets = bytearray(request("ed25519").der)
    position %= len(octets) * 8
    octets[position // 8] ^= 1 << position % 8
    try:
        changed = decode(bytes(octets))
    except MessageError:
        return
    assert not changed.proves_possession()


def test_a_signature_of_broken_octets_is_refused() -> None:
    octets = bytearray(request("ed25519").der)
    unused_bits = len(octets) - len(x509.load_der_x509_csr(bytes(octets)).signature) - 1
    assert octets[unused_bits] == 0
    octets[unused_bits] = 1
    octets[-1] &= 0xFE  # An unused bit has to be zero.
    with pytest.raises(MessageError, match="whole octets"):
        decode(bytes(octets))


@pytest.mark.conformance("SE-06")
def test_a_key_whose_usage_is_not_to_sign_may_sign_its_request() -> None:
    """RFC 7030 section 4.2.1: once, for the sake of the proof."""
    key = generate_key("rsa-2048")
    encipherment = ExtensionTemplate(KEY_USAGE, True, b"\x03\x02\x05\x20")
    built = build(key, make_name("device"), extensions=[encipherment])
    assert decode(built.der).proves_possession()


@pytest.mark.conformance("POP-06")
def test_the_binding_stands_in_challenge_password_as_base64() -> None:
    der = build(KEY, make_name("device"), binding=BINDING).der
    attributes = x509.load_der_x509_csr(der).attributes
    password = attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD)
    assert password.value == b"AAECAwQFBgcICQoL"


@pytest.mark.conformance("SE-07", "PQ-06")
@pytest.mark.parametrize("kind", [x25519.X25519PrivateKey, mlkem.MLKEM768PrivateKey])
def test_a_key_that_cannot_sign_proves_nothing(
    kind: type[x25519.X25519PrivateKey | mlkem.MLKEM768PrivateKey],
) -> None:
    spki = spki_der(kind.generate().public_key())
    assert not decode(raw_csr.raw_csr(spki=spki)).proves_possession()


# -- challengePassword --------------------------------------------------------------------------


@pytest.mark.conformance("POP-07")
@pytest.mark.parametrize(
    ("tag", "octets", "text"),
    [
        (PRINTABLE, b"abc", "abc"),
        (UTF8, "äbc".encode(), "äbc"),
        (IA5, b"a@b", "a@b"),
        (UTF8, b"x" * 255, "x" * 255),
    ],
)
def test_a_password_of_any_usual_type_is_read(tag: int, octets: bytes, text: str) -> None:
    assert decode(raw_csr.raw_csr(password(tag, octets))).challenges.challenge_password == text


@pytest.mark.parametrize(
    "attributes",
    [
        [password(TELETEX, b"abc")],
        [password(BMP, b"\x00a")],
        [password(UNIVERSAL, b"\x00\x00\x00a")],
        [password(0x04, b"abc")],
        [password(0x30, b"\x02\x01\x00")],
        [password(UTF8, b"\xff")],
        [password(UTF8, b"")],
        [password(UTF8, b"x" * 256)],
        [password(PRINTABLE, b"\xe4")],
        [attribute(CHALLENGE_PASSWORD)],
        [attribute(CHALLENGE_PASSWORD, tagged(PRINTABLE, b"a"), tagged(PRINTABLE, b"b"))],
        [password(PRINTABLE, b"abc"), password(PRINTABLE, b"abd")],
        [password(UTF8, b"abc"), password(PRINTABLE, b"abc")],
    ],
    ids=lambda attributes: attributes[0].hex()[-12:] + f"-{len(attributes)}",
)
def test_a_password_that_is_odd_or_there_twice_is_refused(attributes: list[bytes]) -> None:
    with pytest.raises(MessageError):
        decode(raw_csr.raw_csr(*sorted(attributes)))


# -- names and extensions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        b"",
        b"\x05\x00",
        sequence(b"\x87\x05abcde"),
        sequence(b"\xa3\x02\x05\x00"),
        sequence(b"\xa5\x02\x05\x00"),
        sequence(b"\x82\x02\xff\xfe"),
    ],
    ids=["nothing", "null", "short address", "x400", "ediParty", "not utf-8"],
)
def test_alternative_names_that_do_not_decode_are_refused(names: bytes) -> None:
    with pytest.raises(MessageError):
        decode(raw_csr.raw_csr(extension_request((SUBJECT_ALT_NAME, names))))


def test_two_of_the_same_extension_or_attribute_are_refused() -> None:
    one, two = (sequence(tagged(0x82, name)) for name in (b"one.example", b"two.example"))
    twice = extension_request((SUBJECT_ALT_NAME, one), (SUBJECT_ALT_NAME, two))
    with pytest.raises(MessageError):
        decode(raw_csr.raw_csr(twice))
    requests = sorted(extension_request((SUBJECT_ALT_NAME, name)) for name in (one, two))
    with pytest.raises(MessageError, match="two"):
        decode(raw_csr.raw_csr(*requests))


def test_a_country_of_three_letters_is_odd_but_a_wish() -> None:
    attribute_value = sequence(raw_csr.oid("2.5.4.6"), tagged(PRINTABLE, b"USA"))
    decoded = decode(raw_csr.raw_csr(subject=sequence(tagged(0x31, attribute_value))))
    assert decoded.subject.rfc4514_string() == "C=USA"


def test_a_subject_that_is_not_text_is_refused() -> None:
    attribute_value = sequence(raw_csr.oid("2.5.4.3"), tagged(UTF8, b"\xff"))
    with pytest.raises(MessageError):
        decode(raw_csr.raw_csr(subject=sequence(tagged(0x31, attribute_value))))


# -- keys ---------------------------------------------------------------------------------------


def test_the_hash_of_a_key_does_not_depend_on_how_its_point_is_written() -> None:
    point = uncompressed(KEY)
    compressed = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    explicit = explicit_ec_spki(point, uncompressed(GENERATOR))
    for spki in (ec_spki(compressed), explicit):
        decoded = decode(raw_csr.raw_csr(spki=spki))
        assert decoded.key_sha256 == spki_sha256(KEY.public_key())
        assert decoded.proves_possession()


def test_a_generator_of_the_senders_choice_is_refused() -> None:
    """Who chooses the generator knows a private key for any public one (CVE-2020-0601)."""
    forged = explicit_ec_spki(uncompressed(KEY), uncompressed(make_key("forged generator")))
    with pytest.raises(MessageError):
        decode(raw_csr.raw_csr(spki=forged))


@pytest.mark.parametrize(
    "point",
    [
        b"",
        b"\x00",
        b"\x04" + bytes(64),
        uncompressed(KEY)[:-1],
        uncompressed(KEY)[:-1] + bytes([uncompressed(KEY)[-1] ^ 1]),
        b"\x02" + b"\xff" * 32,
    ],
    ids=["nothing", "infinity", "zero", "short", "off the curve", "no such x"],
)
def test_a_point_that_is_not_on_the_curve_is_refused(point: bytes) -> None:
    with pytest.raises(MessageError):
        decode(raw_csr.raw_csr(spki=ec_spki(point)))


@pytest.mark.parametrize("exponent", [-3, 0, 1, 2])
def test_rsa_with_an_exponent_that_is_none_is_refused(exponent: int) -> None:
    with pytest.raises(MessageError):
        decode(raw_csr.raw_csr(spki=rsa_spki(2**2048 - 1, exponent)))


@pytest.mark.parametrize("modulus", [-(2**2047), 0, 1])
def test_rsa_with_a_modulus_that_is_none_is_refused(modulus: int) -> None:
    with pytest.raises(MessageError):
        decode(raw_csr.raw_csr(spki=rsa_spki(modulus, 65537)))


@pytest.mark.parametrize("bits", [512, 16384, 400_000])
def test_rsa_of_absurd_size_proves_nothing_but_has_a_kind_to_refuse_it_by(bits: int) -> None:
    decoded = decode(raw_csr.raw_csr(spki=rsa_spki(2**bits - 1, 3)))
    assert key_kind(decoded.public_key) == f"rsa-{bits}"
    assert not decoded.proves_possession()


def test_a_key_of_unknown_kind_is_refused() -> None:
    with pytest.raises(MessageError):
        decode(raw_csr.raw_csr(spki=sequence(sequence(raw_csr.oid("1.2.3.4")), b"\x03\x01\x00")))


# -- the frame ----------------------------------------------------------------------------------


@pytest.mark.conformance("HTTP-15", "HTTP-17")
@pytest.mark.parametrize(
    "octets",
    [
        b"",
        raw_csr.raw_csr() + b"\x00",
        raw_csr.raw_csr()[:-1],
        raw_csr.raw_csr(version=b"\x02\x01\xff"),
        raw_csr.raw_csr(version=b"\x02\x01\x01"),
        raw_csr.raw_csr(version=b"\x02\x02\x00\x00"),
        raw_csr.raw_csr(version=b""),
        b"\x30\x80" + raw_csr.raw_csr()[4:] + b"\x00\x00",
        b"\x30\x80" * 30_000,
    ],
    ids=["empty", "more", "less", "-1", "v2", "padded", "no version", "indefinite", "deep"],
)
def test_what_is_no_request_in_der_is_refused(octets: bytes) -> None:
    with pytest.raises(MessageError):
        decode(octets)


def use_every_part(octets: bytes) -> None:
    decoded = decode(octets)
    decoded.proves_possession()
    assert len(decoded.key_sha256) == 32
    assert decoded.subject.rfc4514_string() is not None
    assert len(frozenset(decoded.subject_alt_names)) <= 3
    assert decoded.directory_attributes is not None
    assert key_kind(decoded.public_key)


def refusal_of(octets: bytes) -> str:
    """The sentence of the refusal, empty if there is none."""
    try:
        use_every_part(octets)
    except MessageError as error:
        return str(error)
    return ""


@given(st.binary(max_size=300))
def test_random_octets_raise_message_error_only(octets: bytes) -> None:
    with pytest.raises(MessageError):
        use_every_part(octets)


@given(st.sampled_from(["ec-p256", "ed25519", "rsa-2048"]), st.data())
def test_changed_octets_raise_message_error_only(kind: str, data: st.DataObject) -> None:
    octets = bytearray(request(kind).der)
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    assert refusal_of(bytes(octets)).isprintable()


@given(st.binary(max_size=60), st.sampled_from([SUBJECT_ALT_NAME, "2.5.29.9", "2.5.29.15"]))
def test_extensions_of_random_octets_raise_message_error_only(value: bytes, kind: str) -> None:
    assert refusal_of(raw_csr.raw_csr(extension_request((kind, value)))).isprintable()


# -- the examples of the RFCs ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rfc7030_A3_simpleenroll_req.b64", "+rrCir/7+EYu50T4"),
        ("rfc7030_A4_serverkeygen_req.b64", "dFsAXmJnjokBtDvr"),
    ],
)
def test_the_requests_of_rfc_7030_decode_and_their_sha_1_proves_nothing(
    name: str, text: str
) -> None:
    decoded = decode(rfc_vector(name))
    assert decoded.challenges.challenge_password == text
    assert key_kind(decoded.public_key) == "rsa-2048"
    assert not decoded.proves_possession()


@pytest.mark.conformance("CD-13")
@pytest.mark.parametrize("name", ["rfc9148_A2_req.hex", "rfc9148_A3_req.hex"])
def test_the_requests_of_rfc_9148_decode_and_prove_possession(name: str) -> None:
    decoded = decode(rfc_vector(name))
    assert key_kind(decoded.public_key) == "ec-p256"
    assert decoded.proves_possession()


@pytest.mark.conformance("CD-13")
def test_the_password_in_rfc_9148_is_no_channel_binding() -> None:
    decoded = decode(rfc_vector("rfc9148_A2_req.hex"))
    assert decoded.challenges.challenge_password is not None
    assert not BINDING.matches(decoded.challenges.challenge_password)


MODULUS = 2**2048 - 1942289


@pytest.mark.parametrize(
    ("modulus", "exponent", "words"),
    [
        (MODULUS, 65537, None),
        (MODULUS, 2**256 - 1, None),
        (MODULUS, 3, "exponent"),
        (MODULUS, 2**256 + 1, "exponent"),
        (3 * 2**2046 + 3, 65537, "small prime"),
        (751 * (2**2040 + 1), 65537, "small prime"),
    ],
    ids=["usual", "largest", "small", "huge", "three", "751"],
)
def test_rsa_keys_that_nobody_should_rely_on(
    modulus: int, exponent: int, words: str | None
) -> None:
    csr = decode(raw_csr.raw_csr(spki=rsa_spki(modulus, exponent)))
    defect = defect_of(csr.public_key)
    assert (defect is None) if words is None else (defect is not None and words in defect)
