"""What the local CA issues, judged by openssl and by cryptography's own path validation."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_protocol.keys import PublicKey, SigningKey, generate_key
from est_server.authorities.building import key_usage
from est_server.authorities.creation import CMC_RA, NewCa, create_ca, issue_server_certificate
from est_server.authorities.local import LocalAuthority
from est_server.authorities.signers.file import FileSigner, passphrase_from_environment
from est_server.authorities.signers.key import KeySigner
from est_server.interfaces import IssuanceOrder
from est_server.profiles import CertificateProfile
from tests.pki import make_ca, make_key, make_name

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
KINDS = ["ec-p256", "ec-p384", "rsa-3072", "ed25519"]


def new_ca(kind: str = "ec-p256") -> NewCa:
    return ca_of(kind)


@cache
def ca_of(kind: str) -> NewCa:
    return create_ca("Test", now=NOW - timedelta(days=10), key_kind=kind)


@cache
def key_of(kind: str) -> SigningKey:
    return generate_key(kind)


def authority(kind: str = "ec-p256") -> LocalAuthority:
    ca = new_ca(kind)
    return LocalAuthority(KeySigner(ca.issuing_key), ca.issuing, [ca.root])


def order(
    *,
    key: PublicKey | None = None,
    subject: x509.Name | None = None,
    names: tuple[x509.GeneralName, ...] = (),
    validity: timedelta = timedelta(days=90),
    profile: CertificateProfile | None = None,
    now: datetime = NOW,
) -> IssuanceOrder:
    return IssuanceOrder(
        order_id=bytes(32),
        public_key=key or make_key("device").public_key(),
        subject=make_name("device 1") if subject is None else subject,
        subject_alt_names=names,
        validity=validity,
        profile=profile or CertificateProfile(),
        label=None,
        pop_linked=True,
        now=now,
    )


def verify_with_openssl(
    folder: Path, leaf: x509.Certificate, chain: Sequence[x509.Certificate], purpose: str
) -> None:
    *between, root = chain
    for name, certificates in (("leaf", [leaf]), ("between", between), ("root", [root])):
        pem = b"".join(c.public_bytes(Encoding.PEM) for c in certificates)
        (folder / f"{name}.pem").write_bytes(pem)
    command = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose]
    command += ["-attime", str(int(NOW.timestamp())), "-CAfile", "root.pem"]
    command += ["-untrusted", "between.pem", "leaf.pem"]
    finished = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr + finished.stdout


async def issue(kind: str = "ec-p256", **changes: object) -> x509.Certificate:
    return await authority(kind).issue(order(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_key_that_signs_in_no_time_issues_at_once(kind: str) -> None:
    assert authority(kind).can_issue_now() == kind.startswith("e")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_certificate_verifies_everywhere(tmp_path: Path, kind: str) -> None:
    names = (x509.DNSName("device-1.example"),)
    leaf = await issue(kind, names=names)
    chain = await authority(kind).ca_certificates(None)
    verify_with_openssl(tmp_path, leaf, chain, "sslclient")
    if kind != "ed25519":  # not in the web PKI's list of algorithms, which cryptography keeps to
        verifier = (
            verification.PolicyBuilder()
            .store(verification.Store([chain[-1]]))
            .time(NOW)
            .build_client_verifier()
        )
        assert verifier.verify(leaf, list(chain[:-1])).chain[-1] == chain[-1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_device_key_of_any_kind_is_certified(tmp_path: Path, kind: str) -> None:
    leaf = await issue(key=key_of(kind).public_key())
    assert leaf.public_key() == key_of(kind).public_key()
    verify_with_openssl(tmp_path, leaf, await authority().ca_certificates(None), "sslclient")


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_certificate_verifies_everywhere(tmp_path: Path, kind: str) -> None:
    ca = new_ca(kind)
    leaf = issue_server_certificate(
        KeySigner(ca.issuing_key),
        ca.issuing,
        make_key("server").public_key(),
        ["est.example", "127.0.0.1", "::1"],
        now=NOW,
    )
    verify_with_openssl(tmp_path, leaf, [ca.issuing, ca.root], "sslserver")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["est.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, CMC_RA}
    if kind != "ed25519":
        verifier = (
            verification.PolicyBuilder()
            .store(verification.Store([ca.root]))
            .time(NOW)
            .build_server_verifier(x509.IPAddress(ip_address("127.0.0.1")))
        )
        assert verifier.verify(leaf, [ca.issuing])[-1] == ca.root


@pytest.mark.conformance("SE-13")
async def test_nothing_but_the_order_is_in_the_certificate() -> None:
    leaf = await issue(names=(x509.DNSName("device-1.example"),))
    assert leaf.version is x509.Version.v3
    assert leaf.subject == make_name("device 1")
    assert leaf.issuer == new_ca().issuing.subject
    assert leaf.signature_hash_algorithm is not None
    assert leaf.signature_hash_algorithm.name == "sha256"
    found = {type(e.value): e.critical for e in leaf.extensions}
    assert found == {
        x509.SubjectKeyIdentifier: False,
        x509.AuthorityKeyIdentifier: False,
        x509.BasicConstraints: True,
        x509.KeyUsage: True,
        x509.ExtendedKeyUsage: False,
        x509.SubjectAlternativeName: False,
    }
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage == key_usage({"digital_signature"})
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


async def test_the_key_identifiers_lead_from_the_certificate_to_its_issuer() -> None:
    leaf = await issue()
    issuer = new_ca().issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    authority_key = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert authority_key.value.key_identifier == issuer.value.digest


@pytest.mark.parametrize(
    ("kind", "name"), [("ec-p256", "sha256"), ("ec-p384", "sha384"), ("rsa-3072", "sha256")]
)
async def test_the_hash_goes_with_the_signing_key(kind: str, name: str) -> None:
    algorithm = (await issue(kind)).signature_hash_algorithm
    assert algorithm is not None
    assert algorithm.name == name


async def test_serial_numbers_are_positive_random_and_fit_20_octets() -> None:
    serials = [(await issue()).serial_number for _ in range(20)]
    assert len(set(serials)) == 20
    assert all(0 < serial < 1 << 159 for serial in serials)
    assert max(serials).bit_length() > 144


async def test_the_alternative_names_are_critical_without_a_subject(tmp_path: Path) -> None:
    name = x509.UniformResourceIdentifier("urn:device:1")
    leaf = await issue(subject=x509.Name([]), names=(name,))
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    verify_with_openssl(tmp_path, leaf, await authority().ca_certificates(None), "sslclient")


async def test_a_certificate_without_any_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="subject"):
        await issue(subject=x509.Name([]))


async def test_validity_starts_in_the_past_and_lasts_as_ordered() -> None:
    profile = CertificateProfile(backdate=timedelta(minutes=7))
    leaf = await issue(profile=profile, validity=timedelta(days=3))
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=7)
    assert leaf.not_valid_after_utc == NOW + timedelta(days=3)


@pytest.mark.parametrize("validity", [timedelta(days=365 * 40), timedelta.max])
async def test_no_certificate_outlives_its_issuer(validity: timedelta) -> None:
    profile = CertificateProfile(backdate=timedelta.max)
    leaf = await issue(validity=validity, profile=profile)
    assert leaf.not_valid_after_utc == new_ca().issuing.not_valid_after_utc
    assert leaf.not_valid_before_utc == new_ca().issuing.not_valid_before_utc


@pytest.mark.parametrize("days", [-12, 365 * 10])
async def test_nothing_is_issued_while_a_ca_certificate_is_not_valid(days: int) -> None:
    with pytest.raises(RequestRefused) as refused:
        await issue(now=NOW + timedelta(days=days))
    assert refused.value.reason is RefusalReason.INTERNAL_ERROR


@pytest.mark.parametrize("validity", [timedelta(0), timedelta(days=-1)])
async def test_a_validity_that_is_none_is_refused(validity: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="validity"):
        await issue(validity=validity)


@pytest.mark.parametrize(
    ("usages", "sentence"),
    [
        ({"key_cert_sign"}, "CA certificates only"),
        ({"crl_sign", "digital_signature"}, "CA certificates only"),
        ({"digitalSignature"}, "no such key usage"),
        ({"encipher_only"}, "key_agreement"),
    ],
)
async def test_key_usages_that_cannot_be_are_refused(usages: set[str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        await issue(profile=CertificateProfile(key_usages=frozenset(usages)))


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        ("rsa-2048", {"digital_signature", "key_encipherment"}),
        ("ec-p256", {"digital_signature", "key_agreement"}),
        ("ed25519", {"digital_signature"}),
    ],
)
async def test_a_key_gets_the_usages_that_it_is_able_to(kind: str, bits: set[str]) -> None:
    usages = frozenset({"digital_signature", "key_encipherment", "key_agreement"})
    profile = CertificateProfile(key_usages=usages)
    leaf = await issue(key=key_of(kind).public_key(), profile=profile)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert {bit for bit in usages if getattr(usage, bit)} == bits


async def test_a_key_that_is_able_to_none_of_the_usages_is_refused() -> None:
    profile = CertificateProfile(key_usages=frozenset({"key_encipherment"}))
    with pytest.raises(RequestRefused) as refused:
        await issue(profile=profile)
    assert refused.value.reason is RefusalReason.KEY_NOT_ALLOWED


# -- the CA itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_root_and_issuing_ca_constrain_what_is_below_them(kind: str) -> None:
    ca = new_ca(kind)
    for certificate, below in ((ca.root, 1), (ca.issuing, 0)):
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=below)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert usage.value.crl_sign
        assert not usage.value.digital_signature
        assert certificate.serial_number > 0
    assert ca.root.subject != ca.issuing.subject
    assert ca.issuing.not_valid_after_utc <= ca.root.not_valid_after_utc


@pytest.mark.conformance("CA-05", "CA-06")
async def test_ca_certificates_are_the_chain_up_to_the_root() -> None:
    ca = new_ca()
    assert await authority().ca_certificates("any") == (ca.issuing, ca.root)


def test_a_root_may_issue_itself() -> None:
    ca = make_ca("lone root")
    assert LocalAuthority(KeySigner(ca.key), ca.certificate)


def test_another_key_than_that_of_the_certificate_is_refused() -> None:
    ca = new_ca()
    with pytest.raises(ConfigurationError, match="not the key"):
        LocalAuthority(KeySigner(ca.root_key), ca.issuing, [ca.root])


@pytest.mark.conformance("CA-05")
def test_a_chain_that_does_not_reach_a_root_is_refused() -> None:
    ca = new_ca()
    with pytest.raises(ConfigurationError, match="self-signed root"):
        LocalAuthority(KeySigner(ca.issuing_key), ca.issuing)


def test_a_chain_of_another_ca_is_refused() -> None:
    ca, other = new_ca(), new_ca("ec-p384")
    with pytest.raises(ConfigurationError, match="not issued by"):
        LocalAuthority(KeySigner(ca.issuing_key), ca.issuing, [other.root])


async def test_a_certificate_that_is_no_ca_cannot_issue() -> None:
    leaf = await issue()
    with pytest.raises(ConfigurationError, match="no CA certificate"):
        LocalAuthority(KeySigner(make_key("device")), leaf, [new_ca().issuing, new_ca().root])


def test_a_path_length_that_is_exceeded_is_refused() -> None:
    ca = new_ca()
    chain = [ca.issuing, ca.issuing, ca.root]
    with pytest.raises(ConfigurationError, match="allows 0"):
        LocalAuthority(KeySigner(ca.issuing_key), chain[0], chain[1:])


@pytest.mark.parametrize(
    "hosts",
    [[], [""], ["*.example"], ["bücher.example"], ["a b"], ["10.0.0.0/8"], ["1.2.3.999"], ["-a"]],
)
def test_what_names_no_host_is_refused(hosts: list[str]) -> None:
    ca = new_ca()
    key = make_key("server").public_key()
    with pytest.raises(ConfigurationError):
        issue_server_certificate(KeySigner(ca.issuing_key), ca.issuing, key, hosts, now=NOW)


def test_a_host_name_too_long_for_a_common_name_is_an_alternative_name(tmp_path: Path) -> None:
    ca = new_ca()
    host = "a" * 40 + "." + "b" * 40 + ".example"
    leaf = issue_server_certificate(
        KeySigner(ca.issuing_key), ca.issuing, make_key("server").public_key(), [host], now=NOW
    )
    assert not leaf.subject.rdns
    verify_with_openssl(tmp_path, leaf, [ca.issuing, ca.root], "sslserver")


def test_a_ca_with_a_name_too_long_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="common name"):
        create_ca("x" * 70, now=NOW)


def test_unknown_kinds_of_key_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="ec-p256"):
        create_ca("Test", now=NOW, key_kind="rsa-512")


# -- the key file -------------------------------------------------------------------------------


def write_key(
    folder: Path, *, mode: int = 0o600, encryption: KeySerializationEncryption | None = None
) -> Path:
    path = folder / "ca.key"
    pem = new_ca().issuing_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()
    )
    path.write_bytes(pem)
    os.chmod(path, mode)
    return path


def test_a_key_file_signs(tmp_path: Path) -> None:
    ca = new_ca()
    signer = FileSigner(write_key(tmp_path))
    assert LocalAuthority(signer, ca.issuing, [ca.root])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o644])
def test_a_key_file_that_others_can_access_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match="chmod 600"):
        FileSigner(write_key(tmp_path, mode=mode))


def test_an_encrypted_key_needs_its_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_key(tmp_path, encryption=BestAvailableEncryption(b"open sesame"))
    with pytest.raises(ConfigurationError, match="encrypted"):
        FileSigner(path)
    with pytest.raises(ConfigurationError, match="no usable"):
        FileSigner(path, passphrase=lambda: b"wrong")
    with pytest.raises(ConfigurationError, match="CA_PASSPHRASE"):
        FileSigner(path, passphrase=passphrase_from_environment("CA_PASSPHRASE"))
    monkeypatch.setenv("CA_PASSPHRASE", "open sesame")
    signer = FileSigner(path, passphrase=passphrase_from_environment("CA_PASSPHRASE"))
    assert signer.public_key == new_ca().issuing_key.public_key()


def test_a_passphrase_is_not_asked_for_without_need(tmp_path: Path) -> None:
    def passphrase() -> bytes:
        raise AssertionError("asked")

    assert FileSigner(write_key(tmp_path), passphrase=passphrase)


@pytest.mark.parametrize("content", [b"", b"no key", b"x" * 100_000])
def test_what_is_no_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ca.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError):
        FileSigner(path)


def test_a_file_or_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        FileSigner(tmp_path / "missing")
    with pytest.raises(ConfigurationError):
        FileSigner(tmp_path)


def test_signatures_verify_with_the_public_half(tmp_path: Path) -> None:
    signer = FileSigner(write_key(tmp_path))
    ca = new_ca()
    leaf = issue_server_certificate(
        signer, ca.issuing, make_key("server").public_key(), ["est.example"], now=NOW
    )
    leaf.verify_directly_issued_by(ca.issuing)
    assert leaf.fingerprint(hashes.SHA256())
