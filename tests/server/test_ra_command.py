"""``est-server ra``, and the table that gives its certificates a meaning."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from est_protocol.errors import ConfigurationError
from est_server.assembly import open_service
from est_server.cli import main
from est_server.config import load_config
from tests.pki import CMC_RA, make_key, make_name

Output = pytest.CaptureFixture[str]


@pytest.fixture
def server(tmp_path: Path, capsys: Output) -> Path:
    """The configuration of a new server."""
    assert main(["init", str(tmp_path / "est"), "--https-port", "0", "--coaps-port", "0"]) == 0
    capsys.readouterr()
    return tmp_path / "est" / "est-server.toml"


def write_csr(folder: Path, key: str, encoding: Encoding = Encoding.PEM) -> Path:
    builder = x509.CertificateSigningRequestBuilder().subject_name(make_name("anything"))
    file = folder / f"{key}.csr"
    file.write_bytes(builder.sign(make_key(key), hashes.SHA256()).public_bytes(encoding))
    return file


def issue(server: Path, csr: Path, out: str, *options: str) -> int:
    arguments = ["ra", "issue", "line-3", "--csr", str(csr), "--out", str(csr.parent / out)]
    return main([*arguments, *options, "--config", str(server)])


def first_of(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(file.read_bytes())[0]


def test_a_certificate_for_a_registration_authority(
    server: Path, tmp_path: Path, capsys: Output
) -> None:
    assert issue(server, write_csr(tmp_path, "ra", Encoding.DER), "ra.pem") == 0
    certificate, issuing = x509.load_pem_x509_certificates((tmp_path / "ra.pem").read_bytes())
    certificate.verify_directly_issued_by(issuing)
    assert certificate.subject == make_name("line-3")
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA}
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    assert f'certificates = ["{fingerprint}"]' in capsys.readouterr().out


def test_a_certificate_for_both_sides(server: Path, tmp_path: Path, capsys: Output) -> None:
    csr, hosts = write_csr(tmp_path, "ra"), ("--server-name", "line-3.example", "--server-name")
    assert issue(server, csr, "ra.pem", *hosts, "192.0.2.7") == 0
    certificate = first_of(tmp_path / "ra.pem")
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
        CMC_RA,
    }
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names) == {x509.DNSName("line-3.example"), x509.IPAddress(ip_address("192.0.2.7"))}
    assert issue(server, csr, "again.pem", *hosts, "192.0.2.7") == 0
    assert first_of(tmp_path / "again.pem") == certificate
    capsys.readouterr()
    # Other names are another certificate, and that takes a word.
    assert issue(server, csr, "other.pem", *hosts, "192.0.2.8") == 2
    assert "--replace" in capsys.readouterr().err
    assert not (tmp_path / "other.pem").exists()


def test_the_same_request_gets_the_same_certificate_and_another_key_takes_a_word(
    server: Path, tmp_path: Path, capsys: Output
) -> None:
    csr, other = write_csr(tmp_path, "ra"), write_csr(tmp_path, "other")
    assert issue(server, csr, "1.pem") == issue(server, csr, "2.pem") == 0
    assert first_of(tmp_path / "1.pem") == first_of(tmp_path / "2.pem")
    assert issue(server, other, "3.pem") == 2
    assert "--replace" in capsys.readouterr().err
    assert not (tmp_path / "3.pem").exists()
    assert issue(server, other, "3.pem", "--replace") == 0
    assert issue(server, other, "4.pem", "--replace") == 0
    assert first_of(tmp_path / "4.pem") != first_of(tmp_path / "3.pem")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--days", "0"], "--days"),
        (["--days", "99999999999"], "--days"),
        (["--authority", "none"], "authorities.none"),
        (["--server-name", "not a name"], "not a name"),
    ],
)
def test_mistakes(
    server: Path, tmp_path: Path, capsys: Output, options: list[str], why: str
) -> None:
    assert issue(server, write_csr(tmp_path, "ra"), "ra.pem", *options) == 2
    assert why in capsys.readouterr().err


def test_an_output_that_exists_is_left_alone(server: Path, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "ra.pem").write_text("precious")
    assert issue(server, write_csr(tmp_path, "ra"), "ra.pem") == 2
    assert (tmp_path / "ra.pem").read_text() == "precious"


@pytest.mark.parametrize("octets", [b"", b"-----BEGIN nothing", b"0" * 70000])
def test_what_is_no_certification_request(
    server: Path, tmp_path: Path, capsys: Output, octets: bytes
) -> None:
    file = tmp_path / "file.csr"
    file.write_bytes(octets)
    assert issue(server, file, "ra.pem") == 2
    assert "file.csr" in capsys.readouterr().err


# -- the table ----------------------------------------------------------------------------------


def add_table(server: Path, *lines: str) -> None:
    table = ("[default.registration_authorities]", *lines)
    server.write_text("\n".join([server.read_text(), *table, ""]))


async def test_the_table_names_registration_authorities(server: Path) -> None:
    add_table(
        server,
        'subjects = ["CN=line-3,O=Example"]',
        f'certificates = ["{"aB:" * 31}cd"]',
        "foreign_linking = true",
        'retry_window = "1m"',
    )
    settings = load_config(server).default.registration_authorities
    assert settings is not None
    policy = settings.policy()
    assert policy.subjects == {x509.Name.from_rfc4514_string("CN=line-3,O=Example")}
    assert policy.certificates == {b"\xab" * 31 + b"\xcd"}
    assert (policy.foreign_linking, policy.renewals) == (True, False)
    async with open_service(server):
        pass


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "name anybody"),
        (['subjects = ["nobody"]'], "no name"),
        (['subjects = [""]'], "empty subject"),
        (['certificates = ["ab"]'], "no SHA-256"),
        ([f'certificates = ["{"g" * 64}"]'], "no SHA-256"),
    ],
)
def test_a_table_that_names_nobody(server: Path, lines: list[str], why: str) -> None:
    add_table(server, *lines)
    with pytest.raises(ConfigurationError, match=re.escape(why)) as failure:
        load_config(server)
    assert "[default.registration_authorities]" in str(failure.value)
