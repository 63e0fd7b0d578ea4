"""One enrollment over TLS 1.3 and one over DTLS, deciphered with the client's key log.

The keys come from the peers, which write them where ``SSLKEYLOGFILE`` says; the product has no
such switch.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.client_peer import Credentials
from interop.curl.driver import Curl
from interop.devices import Device
from interop.libcoap.driver import CoapClient
from interop.openssl.driver import OpenSslClient
from interop.peers import find_peer
from interop.server import ServerUnderTest
from interop.transcript import Transcript
from interop.wire.pcap import PcapFile
from interop.wire.relay import TcpRelay, UdpRelay
from interop.wire.tshark import Tshark

#: Handshake types of TLS 1.3 and DTLS 1.2.
CLIENT_HELLO, SERVER_HELLO, VERIFY_REQUEST, NEW_TICKET = "1", "2", "3", "4"
ENCRYPTED_EXTENSIONS, CERTIFICATE, SERVER_KEY_EXCHANGE = "8", "11", "12"
CERTIFICATE_REQUEST, SERVER_HELLO_DONE, CERTIFICATE_VERIFY = "13", "14", "15"
CLIENT_KEY_EXCHANGE, FINISHED = "16", "20"

POST, CONTINUE, CHANGED = "2", "95", "68"


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the peer writes the keys of its sessions."""
    file = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(file))
    return file


def test_an_enrollment_over_tls13(
    server: ServerUnderTest,
    device: Device,
    openssl: OpenSsl,
    checks: Checks,
    transcript: Transcript,
    tmp_path: Path,
    keys: Path,
) -> None:
    capture = transcript.directory / "tls13.pcap"
    body = openssl.to_base64(openssl.make_csr(openssl.make_key()))
    born = Credentials(device.birth_certificate, device.key)
    with PcapFile(capture, server_port=443) as pcap, TcpRelay(server.https_port, pcap) as relay:
        curl = Curl(
            find_peer("curl"),
            transcript,
            url=f"https://localhost:{relay.port}",
            ca=server.ca,
            directory=tmp_path,
        )
        assert curl.post("/.well-known/est/simpleenroll", born, body).status == 200

    tshark = Tshark(find_peer("tshark"), transcript, capture=capture, keys=keys)
    assert "TLSv1.3" in tshark.text()
    assert tshark.complaints() == []
    handshake = "~".join(
        types for [types] in tshark.fields("tls.handshake.type", only="tls.handshake")
    ).split("~")
    assert [kind for kind in handshake if kind != NEW_TICKET] == [
        *(CLIENT_HELLO, SERVER_HELLO, ENCRYPTED_EXTENSIONS, CERTIFICATE_REQUEST),
        *(CERTIFICATE, CERTIFICATE_VERIFY, FINISHED),
        *(CERTIFICATE, CERTIFICATE_VERIFY, FINISHED),
    ]
    [[method, uri, kind]] = tshark.fields(
        "http.request.method", "http.request.uri", "http.content_type", only="http.request"
    )
    assert (method, kind) == ("POST", "application/pkcs10")
    assert uri == "/.well-known/est/simpleenroll"
    [[status, kind]] = tshark.fields(
        "http.response.code", "http.content_type", only="http.response"
    )
    assert (status, kind) == ("200", "application/pkcs7-mime; smime-type=certs-only")


def test_an_enrollment_over_dtls(
    server: ServerUnderTest,
    device: Device,
    openssl: OpenSsl,
    checks: Checks,
    transcript: Transcript,
    tmp_path: Path,
    keys: Path,
) -> None:
    capture = transcript.directory / "dtls.pcap"
    csr = openssl.make_csr(openssl.make_key())
    born = Credentials(device.short_birth_certificate, device.key)
    with PcapFile(capture, server_port=5684) as pcap, UdpRelay(server.coaps_port, pcap) as relay:
        coap = CoapClient(
            find_peer("coap-client-gnutls"),
            transcript,
            url=f"coaps://127.0.0.1:{relay.port}",
            ca=server.ca,
            directory=tmp_path,
            environment=dict(os.environ),
        )
        assert coap.post("/est/sen", born, csr, block=128).code == "2.04"

    tshark = Tshark(find_peer("tshark"), transcript, capture=capture, keys=keys)
    assert "CoAP" in tshark.text()
    assert tshark.complaints() == []
    # A message in several fragments is one, and each end counts its own.
    messages = [
        (port, *message)
        for port, types, numbers in tshark.fields(
            "udp.srcport",
            "dtls.handshake.type",
            "dtls.handshake.message_seq",
            only="dtls.handshake.type",
        )
        for message in zip(types.split("~"), numbers.split("~"), strict=True)
    ]
    handshake = [kind for _, kind, _ in dict.fromkeys(messages)]
    assert [kind for kind in handshake if kind != NEW_TICKET] == [
        *(CLIENT_HELLO, VERIFY_REQUEST, CLIENT_HELLO, SERVER_HELLO, CERTIFICATE),
        *(SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE),
        *(CERTIFICATE, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY, FINISHED, FINISHED),
    ]
    codes = [code for [code] in tshark.fields("coap.code", only="coap.code > 0")]
    pieces = -(-csr.stat().st_size // 128)
    uploads = pieces - 1
    assert codes[: 2 * uploads] == [POST, CONTINUE] * uploads
    rest = codes[2 * uploads :]
    assert rest == [POST, CHANGED] * (len(rest) // 2)
    blocks = tshark.fields("coap.opt.block_number", only=f"coap.code == {CHANGED}")
    assert [number for [number] in blocks][-1].split("~")[-1] == str(len(rest) // 2 - 1)


@pytest.mark.conformance("CD-26")
@pytest.mark.parametrize("name", [("-noservername",), ("-servername", "localhost")])
def test_a_client_that_asks_for_small_records_gets_them(
    name: tuple[str, ...], server: ServerUnderTest, checks: Checks, transcript: Transcript
) -> None:
    """RFC 6066 section 4; with and without SNI."""
    capture = transcript.directory / "small-records.pcap"
    with PcapFile(capture, server_port=5684) as pcap, UdpRelay(server.coaps_port, pcap) as relay:
        openssl = OpenSslClient(find_peer("openssl"), transcript, port=relay.port, ca=server.ca)
        assert openssl.handshake("-dtls1_2", "-maxfraglen", "512", *name).protocol == "DTLSv1.2"
    tshark = Tshark(find_peer("tshark"), transcript, capture=capture)
    of_server = tshark.fields("dtls.record.length", only="dtls && udp.srcport == 5684")
    sizes = [int(size) for [sizes] in of_server for size in sizes.split("~")]
    # Its certificates alone are longer; what AES-GCM adds is not counted.
    assert sum(sizes) > 1024
    assert max(sizes) <= 512 + 24
