"""What a CSR lacks of what was asked for."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from est_protocol import pkcs10
from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.csr_attributes import ExtensionTemplate, NameAttributeTemplate
from est_protocol.csr_wishes import CsrWishes
from est_protocol.oid_names import (
    EST_IDENTITY_LINKING,
    KEY_USAGE,
    OTP_CHALLENGE,
    SUBJECT_ALT_NAME,
    SUBJECT_DIRECTORY_ATTRIBUTES,
)
from est_protocol.unmet_wishes import unmet
from tests.pki import make_key, make_name

KEY = make_key("device")
BINDING = ChannelBinding(ChannelBindingType.TLS_UNIQUE, bytes(12))
ECDSA_SHA256 = "1.2.840.10045.4.3.2"
ECDSA_SHA384 = "1.2.840.10045.4.3.3"
MAC_ADDRESS = "1.3.6.1.1.1.1.22"
FRIENDLY_NAME = "1.2.840.113549.1.9.20"
DIGITAL_SIGNATURE = bytes.fromhex("03020780")
SUBJECT = x509.Name(
    [
        x509.NameAttribute(NameOID.COMMON_NAME, "pump 7"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "pumps"),
    ]
)
NAMES = (x509.DNSName("pump7.example"), x509.IPAddress(ip_address("192.0.2.7")))

CSR = pkcs10.build(
    KEY,
    SUBJECT,
    subject_alt_names=NAMES,
    extensions=[ExtensionTemplate(KEY_USAGE, True, DIGITAL_SIGNATURE)],
    attributes={FRIENDLY_NAME: "the pump", OTP_CHALLENGE: "secret"},
    binding=BINDING,
)
BARE = pkcs10.build(KEY, make_name("x"))


def _rdn(oid: str, value: bytes | None) -> tuple[NameAttributeTemplate]:
    return (NameAttributeTemplate(oid, value),)


def _extension(oid: str, value: bytes | None, *, critical: bool = False) -> CsrWishes:
    return CsrWishes(extensions=(ExtensionTemplate(oid, critical, value),))


OPEN_CN = _rdn("2.5.4.3", None)

MET = [
    CsrWishes(),
    CsrWishes(link=True, otp_challenge=True, key="ec-p256", attributes=(FRIENDLY_NAME,)),
    CsrWishes(key="ec", signature_algorithms=(ECDSA_SHA384, ECDSA_SHA256)),
    CsrWishes(subject=(OPEN_CN, _rdn("2.5.4.11", b"\x13\x05pumps"))),
    _extension(KEY_USAGE, DIGITAL_SIGNATURE, critical=True),
    _extension(KEY_USAGE, None),
    _extension(SUBJECT_ALT_NAME, None),
    _extension(SUBJECT_ALT_NAME, b"\x30\x11\x82\x0dpump7.example\x87\x00"),
]

LACKING = [
    (CsrWishes(link=True), "challengePassword with the channel binding"),
    (CsrWishes(identity_linking=True), "estIdentityLinking with the channel binding"),
    (CsrWishes(otp_challenge=True), "otpChallenge"),
    (CsrWishes(key="ec-p384"), "a key of kind ec-p384 (it is ec-p256)"),
    (CsrWishes(key="rsa"), "a key of kind rsa (it is ec-p256)"),
    (
        CsrWishes(signature_algorithms=(ECDSA_SHA384,)),
        "a signature by ecdsa-with-SHA384 (it is ecdsa-with-SHA256)",
    ),
    (CsrWishes(subject=(_rdn("2.5.4.3", b"\x0c\x01y"),)), "subject CN=y"),
    (CsrWishes(subject=(OPEN_CN, OPEN_CN)), "subject CN"),
    (CsrWishes(subject=(OPEN_CN, _rdn("2.5.4.3", b"\x0c\x01x"))), "subject CN"),
    (CsrWishes(subject=(_rdn("2.5.4.5", None),)), "subject serialNumber"),
    (_extension(KEY_USAGE, None), "extension keyUsage"),
    (CsrWishes(attributes=(MAC_ADDRESS,)), "attribute macAddress"),
]


@pytest.mark.parametrize("wishes", MET)
def test_a_csr_that_has_all_lacks_nothing(wishes: CsrWishes) -> None:
    assert unmet(wishes, CSR) == ()


@pytest.mark.parametrize(("wishes", "words"), LACKING)
def test_a_bare_csr_lacks(wishes: CsrWishes, words: str) -> None:
    assert unmet(wishes, BARE) == (words,)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (
            _extension(KEY_USAGE, bytes.fromhex("03020388")),
            "extension keyUsage with the value that was asked for",
        ),
        (
            _extension(SUBJECT_ALT_NAME, None, critical=True),
            "extension subjectAltName marked critical",
        ),
        (_extension(SUBJECT_ALT_NAME, b"\x30\x03\x82\x01x"), "subjectAltName dNSName x"),
        (
            _extension(SUBJECT_ALT_NAME, b"\x30\x06\x87\x04\x7f\0\0\x01"),
            "subjectAltName iPAddress 127.0.0.1",
        ),
        (_extension(SUBJECT_ALT_NAME, b"\x30\x02\x81\x00"), "subjectAltName of kind rfc822Name"),
        (
            _extension(SUBJECT_ALT_NAME, b"\x30\x04\x87\x00\x87\x00"),
            "subjectAltName of kind iPAddress",
        ),
    ],
)
def test_an_extension_that_is_there_may_still_lack(wishes: CsrWishes, words: str) -> None:
    assert unmet(wishes, CSR) == (words,)


def test_identity_linking_will_do_for_challenge_password() -> None:
    """RFC 7894 section 4: a client that may choose uses the one that is made for it."""
    csr = pkcs10.build(KEY, SUBJECT, binding=BINDING, linked_by=EST_IDENTITY_LINKING)
    assert csr.challenges.challenge_password is None
    assert csr.challenges.identity_linking == BINDING.challenge_password()
    assert unmet(CsrWishes(link=True, identity_linking=True), csr) == ()


def test_an_attribute_may_stand_among_the_directory_attributes() -> None:
    """Where RFC 9908 section 5.2 expects a MAC address."""
    value = bytes.fromhex("3014 3012 06072b060101010116 3107 1305 61613a6262")
    wishes = CsrWishes(attributes=(MAC_ADDRESS,))
    for octets, lacking in ((value, ()), (b"\x30\x03\x02\x01\x05", ("attribute macAddress",))):
        extension = ExtensionTemplate(SUBJECT_DIRECTORY_ATTRIBUTES, False, octets)
        assert unmet(wishes, pkcs10.build(KEY, SUBJECT, extensions=[extension])) == lacking


def test_values_are_copied_octet_for_octet() -> None:
    odd = bytes.fromhex("0303070080")
    csr = pkcs10.build(
        KEY, SUBJECT, extensions=[ExtensionTemplate("1.3.6.1.4.1.32473.1", True, odd)]
    )
    assert csr.extensions["1.3.6.1.4.1.32473.1"] == ExtensionTemplate(
        "1.3.6.1.4.1.32473.1", True, odd
    )


def test_an_extension_without_a_value_is_no_extension() -> None:
    with pytest.raises(ValueError, match="has no value"):
        pkcs10.build(KEY, SUBJECT, extensions=[ExtensionTemplate(KEY_USAGE, False, None)])


def test_a_wanted_signature_algorithm_is_used_if_the_key_can() -> None:
    algorithm = pkcs10.hash_of_algorithm(KEY, ["1.2.840.113549.1.1.11", ECDSA_SHA384])
    assert isinstance(algorithm, hashes.SHA384)
    csr = pkcs10.build(KEY, SUBJECT, algorithm=algorithm)
    assert csr.signature_algorithm == ECDSA_SHA384
    assert csr.proves_possession()
    with pytest.raises(LookupError):
        pkcs10.hash_of_algorithm(ec.generate_private_key(ec.SECP256R1()), ["1.2.3"])
