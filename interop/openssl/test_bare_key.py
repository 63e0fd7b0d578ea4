"""A bare key pair over HTTPS: no client certificate, a request linked to the channel by hand."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.devices import Device
from interop.matrix import plays
from interop.openssl.driver import Conversation, GnuTlsClient, OpenSslClient
from interop.peers import find_peer
from interop.server import ServerUnderTest
from interop.transcript import Transcript

scenario = pytest.mark.scenario


@pytest.fixture
def tls13(
    request: pytest.FixtureRequest, server: ServerUnderTest, transcript: Transcript
) -> OpenSslClient:
    """OpenSSL, which prints exported keying material (RFC 9266)."""
    plays(request, "openssl-s_client", "HTTPS")
    return OpenSslClient(find_peer("openssl"), transcript, port=server.https_port, ca=server.ca)


@pytest.fixture
def tls12(
    request: pytest.FixtureRequest, server: ServerUnderTest, transcript: Transcript
) -> GnuTlsClient:
    """GnuTLS, which prints tls-unique (RFC 5929)."""
    plays(request, "gnutls-cli", "HTTPS")
    return GnuTlsClient(find_peer("gnutls-cli"), transcript, port=server.https_port, ca=server.ca)


def exporter_of(tls13: OpenSslClient) -> tuple[Conversation, bytes]:
    """An open TLS 1.3 channel and its tls-exporter."""
    words = ("-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32")
    channel = tls13.open("-tls1_3", *words)
    return channel, bytes.fromhex(channel.wait_for(rb"Keying material: (\w+)\n").decode())


def enroll_over(channel: Conversation, csr: Path) -> tuple[int, bytes]:
    """POST ``csr`` through an open channel; the status and the body of the answer."""
    body = base64.encodebytes(csr.read_bytes())
    head = (
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/pkcs10\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    said = channel.finish(head.encode() + body)
    header, _, rest = said[said.index(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in header.split(b"\r\n")
        if line.startswith(b"Content-Length:")
    )
    return int(header.split()[1]), rest[:length]


@scenario("enroll: linked to the channel (POP)")
@pytest.mark.conformance("POP-01", "POP-10")
def test_tls_exporter_links_a_listed_key(
    tls13: OpenSslClient, device: Device, openssl: OpenSsl, checks: Checks, tmp_path: Path
) -> None:
    channel, exporter = exporter_of(tls13)
    csr = openssl.make_csr(device.key, challenge_password=base64.b64encode(exporter).decode())
    status, body = enroll_over(channel, csr)
    assert status == 200
    certs_only = tmp_path / "answer.der"
    certs_only.write_bytes(base64.b64decode(body))
    checks.issued_alone(certs_only, udid=device.udid, key=device.key)


@scenario("enroll: linked to the channel (POP)")
@pytest.mark.conformance("POP-01", "POP-08")
def test_tls_unique_links_a_listed_key(
    tls12: GnuTlsClient, device: Device, openssl: OpenSsl, checks: Checks, tmp_path: Path
) -> None:
    channel = tls12.open("NORMAL:-VERS-ALL:+VERS-TLS1.2")
    unique = bytes.fromhex(channel.wait_for(rb"'tls-unique': (\w+)\n").decode())
    channel.wait_for(rb"(Simple Client Mode)")
    csr = openssl.make_csr(device.key, challenge_password=base64.b64encode(unique).decode())
    status, body = enroll_over(channel, csr)
    assert status == 200
    certs_only = tmp_path / "answer.der"
    certs_only.write_bytes(base64.b64decode(body))
    checks.issued_alone(certs_only, udid=device.udid, key=device.key)


@scenario("refused: linked to another channel (POP)")
@pytest.mark.conformance("POP-03")
def test_the_binding_of_another_channel_is_refused(
    tls13: OpenSslClient, device: Device, openssl: OpenSsl, checks: Checks
) -> None:
    other, exporter = exporter_of(tls13)
    other.finish(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    csr = openssl.make_csr(device.key, challenge_password=base64.b64encode(exporter).decode())
    channel, _ = exporter_of(tls13)
    status, explanation = enroll_over(channel, csr)
    assert status == 403
    assert b"is not the base64 tls-exporter of this channel" in explanation
    checks.refused("pop-linking-failed")


@scenario("refused: a device that is not on the list")
def test_an_unlisted_key_is_refused(
    tls13: OpenSslClient, stranger: Device, openssl: OpenSsl, checks: Checks
) -> None:
    channel, exporter = exporter_of(tls13)
    csr = openssl.make_csr(stranger.key, challenge_password=base64.b64encode(exporter).decode())
    status, explanation = enroll_over(channel, csr)
    assert (status, explanation) == (403, b"the key is not on the device list\n")
    checks.refused("unknown-device")
