"""What the server negotiates, as OpenSSL and GnuTLS find it.

A refusal counts only where the alert of the server says so: what a program does not even offer
is refused by nobody. Export suites and single DES are no longer in any of these programs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.devices import Device
from interop.matrix import FOUND
from interop.openssl.driver import GnuTlsClient, Handshake, OpenSslClient
from interop.peers import find_peer
from interop.server import ServerUnderTest
from interop.transcript import Transcript

HANDSHAKE_FAILURE, PROTOCOL_VERSION = 40, 70
INAPPROPRIATE_FALLBACK, NO_RENEGOTIATION = 86, 100

#: TLS 1.2 suites for the server's EC key: forward secret, AEAD (RFC 9325 section 4.2).
TLS_SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-CCM",
    "ECDHE-ECDSA-AES256-CCM",
}
DTLS_SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-CCM",
    "ECDHE-ECDSA-AES128-CCM8",
}


Note = Callable[[str, str, str, Handshake], Handshake]

ALERTS = {40: "handshake_failure", 70: "protocol_version", 86: "inappropriate_fallback"}


@pytest.fixture
def tls(server: ServerUnderTest, transcript: Transcript) -> OpenSslClient:
    """OpenSSL against the HTTPS port."""
    return OpenSslClient(find_peer("openssl"), transcript, port=server.https_port, ca=server.ca)


@pytest.fixture
def dtls(server: ServerUnderTest, transcript: Transcript) -> OpenSslClient:
    """OpenSSL against the CoAPS port."""
    return OpenSslClient(find_peer("openssl"), transcript, port=server.coaps_port, ca=server.ca)


@pytest.fixture
def gnutls(server: ServerUnderTest, transcript: Transcript) -> GnuTlsClient:
    """GnuTLS against the HTTPS port."""
    return GnuTlsClient(find_peer("gnutls-cli"), transcript, port=server.https_port, ca=server.ca)


@pytest.fixture
def gnutls_dtls(server: ServerUnderTest, transcript: Transcript) -> GnuTlsClient:
    """GnuTLS against the CoAPS port."""
    return GnuTlsClient(find_peer("gnutls-cli"), transcript, port=server.coaps_port, ca=server.ca)


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Puts a row into the table of what is negotiated."""

    def put(transport: str, program: str, offer: str, found: Handshake) -> Handshake:
        outcome = found.cipher or f"alert {found.alert} ({ALERTS[found.alert or 0]})"
        request.node.user_properties.append((FOUND, [transport, offer, program, outcome]))
        return found

    return put


def offered_suites() -> list[str]:
    """Every suite before TLS 1.3 that this OpenSSL can offer, the worst included."""
    listing = subprocess.run(
        [find_peer("openssl"), "ciphers", "-s", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout.decode()
    return [name for name in listing.strip().split(":") if not name.startswith("TLS_")]


# -- TLS ------------------------------------------------------------------------------------------


@pytest.mark.conformance("TLS-02")
@pytest.mark.parametrize(("option", "name"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_tls_is_spoken(
    tls: OpenSslClient, option: str, name: str, checks: Checks, note: Note
) -> None:
    assert note("HTTPS", "openssl", name, tls.handshake(option)).protocol == name


@pytest.mark.parametrize("name", ["TLS1.2", "TLS1.3"])
def test_tls_is_spoken_with_gnutls(
    gnutls: GnuTlsClient, name: str, checks: Checks, note: Note
) -> None:
    found = gnutls.handshake(f"NORMAL:-VERS-ALL:+VERS-{name}")
    note("HTTPS", "gnutls", name, found)
    assert f"({name}-X.509" in found.cipher or f"({name})" in found.cipher
    assert "The certificate is trusted" in found.text


@pytest.mark.conformance("TLS-01")
@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_older_tls_is_refused(tls: OpenSslClient, option: str, checks: Checks, note: Note) -> None:
    found = tls.handshake(option, "-cipher", "ALL:@SECLEVEL=0")
    note("HTTPS", "openssl", option.lstrip("-"), found)
    assert (found.protocol, found.alert) == ("", PROTOCOL_VERSION)


@pytest.mark.conformance("TLS-01")
@pytest.mark.parametrize("name", ["TLS1.0", "TLS1.1"])
def test_older_tls_is_refused_with_gnutls(
    gnutls: GnuTlsClient, name: str, checks: Checks, note: Note
) -> None:
    found = gnutls.handshake(f"NORMAL:-VERS-ALL:+VERS-{name}")
    note("HTTPS", "gnutls", name, found)
    assert (found.cipher, found.alert) == ("", PROTOCOL_VERSION)


@pytest.mark.conformance("TLS-13")
def test_of_all_suites_only_the_good_ones_are_taken(tls: OpenSslClient, checks: Checks) -> None:
    """One handshake for each: NULL, anonymous, CBC, static RSA and the rest are refused."""
    taken, alerts = set(), set()
    for suite in offered_suites():
        found = tls.handshake("-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
        if found.cipher:
            taken.add(found.cipher)
        else:
            alerts.add(found.alert)
    assert taken == TLS_SUITES
    assert alerts == {HANDSHAKE_FAILURE}


@pytest.mark.conformance("TLS-13")
@pytest.mark.parametrize(
    "weak", ["-CIPHER-ALL:+3DES-CBC:+SHA1", "-CIPHER-ALL:+NULL:+SHA1", "-KX-ALL:+ANON-ECDH"]
)
def test_weak_suites_are_refused_with_gnutls(
    gnutls: GnuTlsClient, weak: str, checks: Checks, note: Note
) -> None:
    found = gnutls.handshake(f"NORMAL:-VERS-ALL:+VERS-TLS1.2:{weak}")
    note("HTTPS", "gnutls", weak, found)
    assert (found.cipher, found.alert) == ("", HANDSHAKE_FAILURE)


@pytest.mark.conformance("TLS-15")
def test_a_pre_shared_key_alone_is_refused(tls: OpenSslClient, checks: Checks, note: Note) -> None:
    psk = ("-psk", "1a2b", "-psk_identity", "me")
    found = tls.handshake("-tls1_2", *psk, "-cipher", "PSK:@SECLEVEL=0")
    note("HTTPS", "openssl", "PSK suites alone", found)
    assert (found.cipher, found.alert) == ("", HANDSHAKE_FAILURE)


@pytest.mark.conformance("TLS-12")
def test_renegotiation_is_refused(tls: OpenSslClient, checks: Checks) -> None:
    found = tls.handshake("-tls1_2", stdin=b"R\n")
    assert found.protocol == "TLSv1.2"
    assert "RENEGOTIATING" in found.text
    assert "no renegotiation" in found.text


@pytest.mark.conformance("TLS-12")
def test_renegotiation_is_refused_with_gnutls(gnutls: GnuTlsClient, checks: Checks) -> None:
    found = gnutls.handshake("NORMAL:-VERS-ALL:+VERS-TLS1.2", "--rehandshake")
    assert found.alert == NO_RENEGOTIATION


@pytest.mark.parametrize("group", ["X25519", "P-256", "P-384", "P-521"])
def test_good_groups_are_taken(tls: OpenSslClient, group: str, checks: Checks, note: Note) -> None:
    found = note("HTTPS", "openssl", f"group {group}", tls.handshake("-groups", group))
    assert found.protocol == "TLSv1.3"


@pytest.mark.parametrize("group", ["X448", "ffdhe2048", "brainpoolP256r1"])
def test_other_groups_are_refused(
    tls: OpenSslClient, group: str, checks: Checks, note: Note
) -> None:
    version = "-tls1_2" if group.startswith("brainpool") else "-tls1_3"
    found = note("HTTPS", "openssl", f"group {group}", tls.handshake(version, "-groups", group))
    assert (found.cipher, found.alert) == ("", HANDSHAKE_FAILURE)


def test_a_downgrade_is_noticed(tls: OpenSslClient, checks: Checks, note: Note) -> None:
    """A client that falls back says so (RFC 7507)."""
    found = tls.handshake("-tls1_2", "-fallback_scsv")
    note("HTTPS", "openssl", "TLS 1.2 with TLS_FALLBACK_SCSV", found)
    assert (found.cipher, found.alert) == ("", INAPPROPRIATE_FALLBACK)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_bad_client_certificate_is_judged_after_the_handshake(
    tls: OpenSslClient, version: str, stranger: Device, openssl: OpenSsl, checks: Checks, note: Note
) -> None:
    """The server tells in an answer what is wrong, so that devices can log it."""
    certificate = openssl.make_self_signed(stranger.key)
    found = tls.handshake(version, "-cert", certificate, "-key", stranger.key)
    note("HTTPS", "openssl", f"{version.lstrip('-')}, a certificate of nobody's", found)
    assert found.cipher


# -- DTLS -----------------------------------------------------------------------------------------


@pytest.mark.conformance("CD-01")
@pytest.mark.parametrize("suite", sorted(DTLS_SUITES))
def test_good_suites_are_taken_on_dtls(
    dtls: OpenSslClient, suite: str, checks: Checks, note: Note
) -> None:
    found = dtls.handshake("-dtls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
    note("CoAPS", "openssl", suite, found)
    assert (found.protocol, found.cipher) == ("DTLSv1.2", suite)


@pytest.mark.conformance("CD-24")
def test_all_other_suites_are_refused_on_dtls(
    dtls: OpenSslClient, checks: Checks, note: Note
) -> None:
    """All in one handshake: the client takes half a second to end a DTLS session."""
    others = set(offered_suites()) - DTLS_SUITES
    assert {"ECDHE-ECDSA-NULL-SHA", "AECDH-AES128-SHA", "AES128-SHA"} < others
    found = dtls.handshake("-dtls1_2", "-cipher", ":".join([*sorted(others), "@SECLEVEL=0"]))
    note("CoAPS", "openssl", "every other suite", found)
    assert (found.cipher, found.alert) == ("", HANDSHAKE_FAILURE)


@pytest.mark.conformance("CD-01")
def test_dtls_with_the_mandatory_suite_alone_with_gnutls(
    gnutls_dtls: GnuTlsClient, checks: Checks, note: Note
) -> None:
    found = gnutls_dtls.handshake(
        "NORMAL:-VERS-ALL:+VERS-DTLS1.2:-CIPHER-ALL:+AES-128-CCM-8", "--udp"
    )
    note("CoAPS", "gnutls", "AES-128-CCM-8 alone", found)
    assert "(DTLS1.2-X.509)" in found.cipher
    assert "(AES-128-CCM-8)" in found.cipher


def test_older_dtls_is_refused(dtls: OpenSslClient, checks: Checks, note: Note) -> None:
    found = dtls.handshake("-dtls1", "-cipher", "ALL:@SECLEVEL=0")
    note("CoAPS", "openssl", "dtls1", found)
    assert (found.protocol, found.alert) == ("", PROTOCOL_VERSION)


@pytest.mark.conformance("CD-05")
def test_a_pre_shared_key_alone_is_refused_on_dtls(
    dtls: OpenSslClient, checks: Checks, note: Note
) -> None:
    psk = ("-psk", "1a2b", "-psk_identity", "me")
    found = dtls.handshake("-dtls1_2", *psk, "-cipher", "PSK:@SECLEVEL=0")
    note("CoAPS", "openssl", "PSK suites alone", found)
    assert (found.cipher, found.alert) == ("", HANDSHAKE_FAILURE)
