"""Which server certificates a client takes for which host."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID, NameOID

from est_client.server_identity import ID_KP_CMC_RA, verify_server
from est_protocol.credentials import AnchorSet, PeerCredentials, VerificationFailure
from est_protocol.errors import PeerNotTrusted
from tests.pki import SERVER_AUTH, make_ca, make_leaf

CA = make_ca("root")
BOTH = pytest.mark.parametrize("database", [AnchorSet.EXPLICIT, AnchorSet.IMPLICIT])


def server(
    *names: x509.GeneralName,
    database: AnchorSet | None = AnchorSet.EXPLICIT,
    common_name: str = "server",
    usage: x509.ObjectIdentifier = SERVER_AUTH,
) -> PeerCredentials:
    leaf = make_leaf(CA, common_name, usage=usage, names=names)
    return PeerCredentials(chain=leaf.chain, anchor_set=database)


@pytest.mark.conformance("CL-05")
@BOTH
@pytest.mark.parametrize(
    ("name", "host"),
    [
        (x509.DNSName("est.example"), "est.example"),
        (x509.DNSName("est.example"), "EST.Example"),
        (x509.DNSName("*.example.com"), "est.example.com"),
        (x509.IPAddress(ip_address("127.0.0.1")), "127.0.0.1"),
        (x509.IPAddress(ip_address("::1")), "::1"),
        (x509.IPAddress(ip_address("::1")), "0:0::1"),
    ],
)
def test_takes_a_server_of_the_name(name: x509.GeneralName, host: str, database: AnchorSet) -> None:
    assert verify_server(server(name, database=database), host) is database


@pytest.mark.conformance("AUTH-14", "AUTH-15", "CL-05")
@BOTH
@pytest.mark.parametrize(
    ("name", "host"),
    [
        (x509.DNSName("est.example"), "other.example"),
        (x509.DNSName("est.example"), "est.example.evil"),
        (x509.DNSName("*.example.com"), "a.est.example.com"),
        (x509.DNSName("*.example.com"), "example.com"),
        (x509.DNSName("e*.example.com"), "est.example.com"),
        (x509.DNSName("est.*.com"), "est.example.com"),
        (x509.DNSName("*"), "localhost"),
        (x509.DNSName("127.0.0.1"), "127.0.0.1"),
        (x509.IPAddress(ip_address("127.0.0.1")), "127.0.0.2"),
        (x509.UniformResourceIdentifier("https://est.example"), "est.example"),
        (x509.RFC822Name("root@est.example"), "est.example"),
    ],
)
def test_refuses_a_server_of_another_name(
    name: x509.GeneralName, host: str, database: AnchorSet
) -> None:
    with pytest.raises(PeerNotTrusted):
        verify_server(server(name, database=database), host)


@pytest.mark.conformance("CL-05")
@BOTH
def test_a_common_name_is_no_name(database: AnchorSet) -> None:
    with pytest.raises(PeerNotTrusted):
        verify_server(server(common_name="est.example", database=database), "est.example")


@pytest.mark.conformance("AUTH-14")
def test_an_explicit_anchor_vouches_for_a_registration_authority_of_any_name() -> None:
    credentials = server(x509.DNSName("ra7.example"), usage=ID_KP_CMC_RA)
    assert verify_server(credentials, "est.example") is AnchorSet.EXPLICIT


@pytest.mark.conformance("AUTH-15", "TLS-07")
def test_an_implicit_anchor_does_not() -> None:
    credentials = server(
        x509.DNSName("ra7.example"), usage=ID_KP_CMC_RA, database=AnchorSet.IMPLICIT
    )
    with pytest.raises(PeerNotTrusted):
        verify_server(credentials, "est.example")


def test_the_name_does_not_mend_a_chain() -> None:
    chain = make_leaf(CA, "server", names=(x509.DNSName("est.example"),)).chain
    expired = VerificationFailure(VerificationFailure.EXPIRED, 0, "certificate has expired")
    for credentials in (
        PeerCredentials(chain=chain),
        PeerCredentials(chain=chain, anchor_set=AnchorSet.EXPLICIT, failures=(expired,)),
        PeerCredentials(),
    ):
        with pytest.raises(PeerNotTrusted):
            verify_server(credentials, "est.example")


def test_a_certificate_with_unreadable_extensions_is_refused() -> None:
    key = CA.key
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    good = make_leaf(CA, "server").chain[0]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(CA.certificate.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(good.not_valid_before_utc)
        .not_valid_after(good.not_valid_after_utc)
        .add_extension(
            x509.UnrecognizedExtension(ExtensionOID.EXTENDED_KEY_USAGE, b"\x30\x05\x00"),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    credentials = PeerCredentials(chain=(certificate,), anchor_set=AnchorSet.EXPLICIT)
    with pytest.raises(PeerNotTrusted, match="unreadable"):
        verify_server(credentials, "est.example")
