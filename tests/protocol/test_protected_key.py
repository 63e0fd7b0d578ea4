"""Keys encrypted for their client: round trips, what openssl makes of them, and abuse."""

from __future__ import annotations

import shutil
import subprocess
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from est_protocol import cms_algorithms, decrypt_key, pkcs10
from est_protocol.cms_algorithms import CAPABILITIES, NothingInCommon
from est_protocol.csr_rewriting import Request, add_attributes
from est_protocol.decrypt_key import ProtectionRequest
from est_protocol.errors import MessageError
from est_protocol.key_package import KeyGenerator, open_package, sign_package
from est_protocol.key_recipients import (
    DecryptionKey,
    Recipient,
    RecipientKey,
    SymmetricKey,
    allows_decryption,
    key_identifiers,
)
from est_protocol.keys import SigningKey, generate_key, spki_der
from est_protocol.protected_key import seal, unseal
from tests.pki import PRESENT, make_ca, make_key, make_leaf, make_name

LEAF = make_leaf(make_ca("issuing", make_ca("root")), "key generator")
GENERATOR = KeyGenerator(LEAF.key, LEAF.chain)
SHARED = SymmetricKey(b"kek 7", bytes(range(32)))

RsaOrEc = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def recipient_key(kind: str) -> RsaOrEc:
    key = generate_key(kind)
    assert isinstance(key, RsaOrEc)
    return key


@cache
def certificate_of(kind: str, *usages: str, identified: bool = True) -> x509.Certificate:
    key = recipient_key(kind)
    bits = ("digital_signature", "key_encipherment", "key_agreement", "encipher_only")
    builder = (
        x509.CertificateBuilder()
        .subject_name(make_name("recipient"))
        .issuer_name(make_name("recipient"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(PRESENT - timedelta(hours=1))
        .not_valid_after(PRESENT + timedelta(days=1))
    )
    if identified:
        ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(ski, critical=False)
    if usages:
        none = dict.fromkeys(
            ("content_commitment", "data_encipherment", "key_cert_sign", "crl_sign"), False
        )
        wanted = {bit: bit in usages for bit in bits}
        usage = x509.KeyUsage(**wanted, **none, decipher_only=False)
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(key, hashes.SHA256())


def recipients() -> list[tuple[str, Recipient, DecryptionKey, tuple[str, ...]]]:
    found: list[tuple[str, Recipient, DecryptionKey, tuple[str, ...]]] = [
        (f"shared-{size}", shared, shared, CAPABILITIES)
        for size in (16, 24, 32)
        for shared in [SymmetricKey(b"kek", bytes(range(size)))]
    ]
    for kind, capabilities in (
        ("rsa-2048", (cms_algorithms.RSA_OAEP,)),
        ("rsa-2048", (cms_algorithms.RSA_PKCS1, cms_algorithms.AES128_CBC)),
        ("ec-p256", CAPABILITIES),
        ("ec-p384", (cms_algorithms.ECDH_SHA384, cms_algorithms.AES192_WRAP)),
        ("ec-p521", (cms_algorithms.ECDH_SHA512, cms_algorithms.AES256_WRAP)),
    ):
        key, certificate = recipient_key(kind), certificate_of(kind)
        for identifier in (key_identifiers(certificate)[0], b"another name"):
            by = "ski" if identifier != b"another name" else "issuer"
            recipient = RecipientKey(identifier, key.public_key(), certificate)
            found.append((f"{kind}-{capabilities[0]}-{by}", recipient, key, capabilities))
    return found


every_recipient = pytest.mark.parametrize(
    ("recipient", "key", "capabilities"),
    [pytest.param(*rest, id=name) for name, *rest in recipients()],
)


def asking(recipient: Recipient, capabilities: tuple[str, ...]) -> ProtectionRequest:
    if isinstance(recipient, SymmetricKey):
        return ProtectionRequest(recipient.identifier, None, capabilities)
    return ProtectionRequest(None, recipient.identifier, capabilities)


def same_key(one: SigningKey, other: SigningKey) -> bool:
    return spki_der(one.public_key()) == spki_der(other.public_key())


@pytest.mark.conformance("SKG-15")
@pytest.mark.parametrize(
    ("octets", "wrap"),
    [
        (16, cms_algorithms.AES128_WRAP),
        (24, cms_algorithms.AES192_WRAP),
        (32, cms_algorithms.AES256_WRAP),
    ],
)
def test_a_shared_key_wraps_as_the_capabilities_say(octets: int, wrap: str) -> None:
    shared = SymmetricKey(b"x", bytes(octets))
    sealed = seal(make_key("a"), shared, asking(shared, (wrap,)), GENERATOR)
    [info] = cms.ContentInfo.load(sealed)["content"]["recipient_infos"]
    assert info.chosen["key_encryption_algorithm"]["algorithm"].dotted == wrap
    for other in {cms_algorithms.AES128_WRAP, cms_algorithms.AES256_WRAP} - {wrap}:
        with pytest.raises(NothingInCommon):
            seal(make_key("a"), shared, asking(shared, (other,)), GENERATOR)


@pytest.mark.conformance("SKG-14")
@every_recipient
@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "ed25519"])
def test_what_is_sealed_opens(
    recipient: Recipient, key: DecryptionKey, capabilities: tuple[str, ...], kind: str
) -> None:
    generated = generate_key(kind)
    opened = unseal(seal(generated, recipient, asking(recipient, capabilities), GENERATOR), key)
    assert same_key(opened.key, generated)
    assert opened.signer == LEAF.chain[0]
    assert set(opened.certificates) == set(LEAF.chain)


@pytest.mark.conformance("SKG-14", "SKG-15", "SKG-16", "SKG-17")
@every_recipient
def test_openssl_opens_it_and_verifies_its_signature(
    recipient: Recipient, key: DecryptionKey, capabilities: tuple[str, ...], tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command here")
    generated = make_key("generated")
    sealed = seal(generated, recipient, asking(recipient, capabilities), GENERATOR)
    (tmp_path / "sealed").write_bytes(sealed)
    if isinstance(key, SymmetricKey):
        with_key = ["-secretkey", key.key.hex(), "-secretkeyid", key.identifier.hex()]
    else:
        assert isinstance(recipient, RecipientKey)
        assert recipient.certificate is not None
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "key").write_bytes(pem)
        (tmp_path / "cert").write_bytes(recipient.certificate.public_bytes(Encoding.PEM))
        with_key = ["-recip", str(tmp_path / "cert"), "-inkey", str(tmp_path / "key")]
    command = [openssl, "cms", "-inform", "DER", "-in", str(tmp_path / "sealed"), "-decrypt"]
    subprocess.run(
        [*command, *with_key, "-out", str(tmp_path / "signed")], check=True, capture_output=True
    )
    signed = (tmp_path / "signed").read_bytes()
    assert same_key(open_package(signed).key, generated)
    _openssl_verifies(openssl, signed, tmp_path)


def _openssl_verifies(openssl: str, signed: bytes, directory: Path) -> None:
    content = {"content_type": "signed_data", "content": cms.SignedData.load(signed)}
    (directory / "cms").write_bytes(cms.ContentInfo(content).dump())
    (root,) = make_ca("issuing", make_ca("root")).issuers
    (directory / "root").write_bytes(root.public_bytes(Encoding.PEM))
    command = [openssl, "cms", "-verify", "-inform", "DER", "-in", str(directory / "cms")]
    trust = ["-CAfile", str(directory / "root"), "-purpose", "any"]
    subprocess.run(
        [*command, *trust, "-out", str(directory / "package")], check=True, capture_output=True
    )


@pytest.mark.conformance("SKG-15", "SKG-16", "SKG-17")
@every_recipient
def test_the_recipient_info_is_as_rfc_7030_says(
    recipient: Recipient, key: DecryptionKey, capabilities: tuple[str, ...]
) -> None:
    sealed = seal(make_key("a"), recipient, asking(recipient, capabilities), GENERATOR)
    enveloped = cms.ContentInfo.load(sealed)["content"]
    [info] = enveloped["recipient_infos"]
    kind, value = info.name, info.chosen
    if isinstance(recipient, SymmetricKey):
        assert (kind, value["version"].native) == ("kekri", "v4")
        assert value["kekid"]["key_identifier"].native == recipient.identifier
        return
    assert recipient.certificate is not None
    by_ski = recipient.identifier == key_identifiers(recipient.certificate)[0]
    if isinstance(key, rsa.RSAPrivateKey):
        assert (kind, value["version"].native) == ("ktri", "v2" if by_ski else "v0")
        rid = value["rid"]
    else:
        assert (kind, value["version"].native) == ("kari", "v3")
        rid = value["recipient_encrypted_keys"][0]["rid"]
    assert (rid.name == "issuer_and_serial_number") != by_ski
    assert enveloped["version"].native == ("v0" if value["version"].native == "v0" else "v2")


@pytest.mark.conformance("SKG-20")
@pytest.mark.parametrize(
    ("kind", "capabilities", "octets"),
    [
        ("ec-p256", CAPABILITIES[1:], 24),
        ("ec-p256", (cms_algorithms.AES128_CBC, cms_algorithms.AES256_CBC), 16),
        ("ec-p384", (cms_algorithms.AES128_CBC, cms_algorithms.AES256_CBC), 32),
        ("ec-p521", (cms_algorithms.AES192_CBC,), 24),
        ("ec-p256", (), 16),
        ("ec-p384", (), 24),
        ("rsa-4096", (), 16),
    ],
)
def test_the_content_cipher_matches_the_key(
    kind: str, capabilities: tuple[str, ...], octets: int
) -> None:
    strengths = {"ec-p256": 128, "ec-p384": 192, "ec-p521": 256, "rsa-4096": 128}
    if not kind.startswith("rsa"):
        key = generate_key(kind).public_key()
        assert cms_algorithms.security_strength(key) == strengths[kind]
    cipher = cms_algorithms.content_cipher(capabilities, strengths[kind])
    assert cms_algorithms.CONTENT_CIPHERS[cipher] == octets


@pytest.mark.parametrize(
    ("recipient", "capabilities"),
    [
        (SHARED, (cms_algorithms.AES128_WRAP,)),
        (SymmetricKey(b"odd", bytes(17)), CAPABILITIES),
        (RecipientKey(b"x", make_key("x").public_key()), (cms_algorithms.AES256_WRAP,)),
        (RecipientKey(b"x", make_key("x").public_key()), (cms_algorithms.ECDH_SHA256,)),
        (
            RecipientKey(b"x", recipient_key("rsa-2048").public_key()),
            (cms_algorithms.AES256_CBC,),
        ),
        (RecipientKey(b"x", generate_key("ed25519").public_key()), CAPABILITIES),
    ],
)
def test_nothing_in_common_is_an_error(recipient: Recipient, capabilities: tuple[str, ...]) -> None:
    with pytest.raises(NothingInCommon):
        seal(make_key("a"), recipient, asking(recipient, capabilities), GENERATOR)


def test_another_key_opens_nothing() -> None:
    sealed = seal(make_key("a"), SHARED, asking(SHARED, CAPABILITIES), GENERATOR)
    others: list[DecryptionKey] = [
        SymmetricKey(b"kek 8", SHARED.key),
        SymmetricKey(SHARED.identifier, bytes(32)),
        SymmetricKey(SHARED.identifier, bytes(16)),
        make_key("x"),
        recipient_key("rsa-2048"),
    ]
    for key in others:
        with pytest.raises(MessageError):
            unseal(sealed, key)
    recipient = RecipientKey(b"x", make_key("x").public_key())
    sealed = seal(make_key("a"), recipient, asking(recipient, CAPABILITIES), GENERATOR)
    with pytest.raises(MessageError):
        unseal(sealed, make_key("y"))


def test_a_package_that_another_signed_does_not_open() -> None:
    impostor = make_leaf(None, "key generator", key=make_key("impostor"))
    signed = sign_package(make_key("a"), KeyGenerator(impostor.key, LEAF.chain))
    with pytest.raises(MessageError):
        open_package(signed)


@every_recipient
@given(data=st.data())
def test_mutated_octets_raise_message_errors_only(
    recipient: Recipient, key: DecryptionKey, capabilities: tuple[str, ...], data: st.DataObject
) -> None:
    octets = bytearray(_sealed(recipient, capabilities))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, min(len(octets) - 1, 400)))] = data.draw(
            st.integers(0, 255)
        )
    try:
        unseal(bytes(octets), key)
    except MessageError:
        return


@cache
def _sealed_by_index(index: int) -> bytes:
    _, recipient, _, capabilities = recipients()[index]
    return seal(make_key("a"), recipient, asking(recipient, capabilities), GENERATOR)


def _sealed(recipient: Recipient, capabilities: tuple[str, ...]) -> bytes:
    wanted = (recipient, capabilities)
    index = [(entry[1], entry[3]) for entry in recipients()].index(wanted)
    return _sealed_by_index(index)


@given(st.data())
def test_mutated_packages_raise_message_errors_only(data: st.DataObject) -> None:
    octets = bytearray(_package())
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        open_package(bytes(octets))
    except MessageError:
        return


@cache
def _package() -> bytes:
    return sign_package(make_key("a"), GENERATOR)


@given(st.binary(max_size=200))
def test_random_octets_raise_message_errors_only(octets: bytes) -> None:
    with pytest.raises(MessageError):
        unseal(octets, SHARED)
    with pytest.raises(MessageError):
        open_package(octets)


# -- Whose keys may decrypt ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "usages", "allowed"),
    [
        ("ec-p256", (), True),
        ("ec-p256", ("digital_signature",), False),
        ("ec-p256", ("digital_signature", "key_agreement"), True),
        ("ec-p256", ("key_agreement", "encipher_only"), False),
        ("rsa-2048", ("key_encipherment",), True),
        ("rsa-2048", ("digital_signature",), False),
    ],
)
def test_the_usage_of_a_certified_key(kind: str, usages: tuple[str, ...], allowed: bool) -> None:
    assert allows_decryption(certificate_of(kind, *usages)) is allowed


def test_a_certificate_without_key_identifier_has_a_computed_one() -> None:
    named, unnamed = certificate_of("ec-p256"), certificate_of("ec-p256", identified=False)
    assert key_identifiers(unnamed) == key_identifiers(named)[:1]


# -- The attributes of a CSR ---------------------------------------------------------------------

identifiers = st.binary(min_size=1, max_size=40)
oids = st.sampled_from([*CAPABILITIES, "1.2.3.4"])


@pytest.mark.conformance("SKG-12")
@given(identifiers, st.booleans(), st.lists(oids, max_size=12).map(tuple))
def test_what_is_written_into_a_csr_is_read_back(
    identifier: bytes, symmetric: bool, capabilities: tuple[str, ...]
) -> None:
    request = ProtectionRequest(
        identifier if symmetric else None, None if symmetric else identifier, capabilities
    )
    key = make_key("csr")
    csr = decrypt_key.write(pkcs10.build(key, make_name("x")), request, key)
    assert csr.proves_possession()
    assert csr.subject == make_name("x")
    assert decrypt_key.read(csr.der) == request


@pytest.mark.parametrize("kind", ["ec-p384", "ed25519", "rsa-2048"])
def test_a_csr_of_any_key_is_signed_anew(kind: str) -> None:
    key = generate_key(kind)
    request = ProtectionRequest(b"x", None, CAPABILITIES)
    assert decrypt_key.write(pkcs10.build(key, make_name("x")), request, key).proves_possession()


def test_a_csr_that_asks_for_nothing() -> None:
    assert decrypt_key.read(pkcs10.build(make_key("csr"), make_name("x")).der) is None


OCTETS, WRONG_TYPE, CAPABLE = b"\x04\x01x", b"\x0c\x01x", b"\x30\x00"


@pytest.mark.conformance("SKG-12")
@pytest.mark.parametrize(
    "attributes",
    [
        [(decrypt_key.DECRYPT_KEY_IDENTIFIER, OCTETS)],
        [(decrypt_key.ASYMMETRIC_DECRYPT_KEY_IDENTIFIER, OCTETS)],
        [(decrypt_key.SMIME_CAPABILITIES, CAPABLE)],
        [
            (decrypt_key.DECRYPT_KEY_IDENTIFIER, OCTETS),
            (decrypt_key.ASYMMETRIC_DECRYPT_KEY_IDENTIFIER, OCTETS),
            (decrypt_key.SMIME_CAPABILITIES, CAPABLE),
        ],
        [
            (decrypt_key.DECRYPT_KEY_IDENTIFIER, OCTETS),
            (decrypt_key.DECRYPT_KEY_IDENTIFIER, OCTETS),
            (decrypt_key.SMIME_CAPABILITIES, CAPABLE),
        ],
        [
            (decrypt_key.DECRYPT_KEY_IDENTIFIER, WRONG_TYPE),
            (decrypt_key.SMIME_CAPABILITIES, CAPABLE),
        ],
        [
            (decrypt_key.DECRYPT_KEY_IDENTIFIER, b"\x04\x00"),
            (decrypt_key.SMIME_CAPABILITIES, CAPABLE),
        ],
        [
            (decrypt_key.DECRYPT_KEY_IDENTIFIER, OCTETS),
            (decrypt_key.SMIME_CAPABILITIES, OCTETS),
        ],
        [
            (decrypt_key.DECRYPT_KEY_IDENTIFIER, OCTETS),
            (decrypt_key.SMIME_CAPABILITIES, b"\x30\x02\x05\x00"),
        ],
    ],
)
def test_half_a_wish_is_an_error(attributes: list[tuple[str, bytes]]) -> None:
    with pytest.raises(MessageError):
        decrypt_key.read(csr_with(attributes))


@given(st.data())
def test_mutated_csrs_raise_message_errors_only(data: st.DataObject) -> None:
    octets = bytearray(_asking_csr())
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        decrypt_key.read(bytes(octets))
    except MessageError:
        return


@cache
def _asking_csr() -> bytes:
    key = make_key("csr")
    request = ProtectionRequest(b"x", None, CAPABILITIES)
    return decrypt_key.write(pkcs10.build(key, make_name("x")), request, key).der


def test_a_csr_of_an_unknown_version_is_refused() -> None:
    octets = bytearray(_asking_csr())
    octets[octets.index(b"\x02\x01\x00") + 2] = 119
    with pytest.raises(MessageError):
        decrypt_key.read(bytes(octets))


def test_the_key_wrap_of_a_key_agreement_is_a_capability() -> None:
    # SEQUENCE { dhSinglePass-stdDH-sha256kdf, SEQUENCE { id-aes128-wrap } }
    capability = bytes.fromhex(
        "3014 0606 2b8104010b01 300b 0609 608648016503040105".replace(" ", "")
    )
    capability = bytes([0x30, len(capability) - 2]) + capability[2:]
    value = bytes([0x30, len(capability)]) + capability
    csr = csr_with(
        [(decrypt_key.DECRYPT_KEY_IDENTIFIER, OCTETS), (decrypt_key.SMIME_CAPABILITIES, value)]
    )
    request = decrypt_key.read(csr)
    assert request is not None
    assert request.capabilities == (cms_algorithms.ECDH_SHA256, cms_algorithms.AES128_WRAP)


def csr_with(attributes: list[tuple[str, bytes]]) -> bytes:
    """A CSR with these attributes, octet for octet; its signature is not right any more."""
    der = pkcs10.build(make_key("csr"), make_name("x")).der
    request = Request.load(der)
    for oid, value in attributes:
        add_attributes(request, {oid: value})
    return bytes(request.dump(force=True))
