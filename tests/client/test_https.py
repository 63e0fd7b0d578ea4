"""The HTTPS client against a server that says exactly what a test wants it to say."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from est_client.connection import Connector, EstConnection
from est_client.http_answers import LONGEST_RETRY_AFTER, parse_retry_after, printable
from est_client.https import HttpsClientLimits, HttpsConnection, HttpsConnector
from est_client.redirects import Redirected
from est_protocol import base64_body, certs_only
from est_protocol.channel_binding import ChannelBindingType
from est_protocol.credentials import AnchorSet
from est_protocol.errors import (
    ChannelClosed,
    ChannelError,
    ConfigurationError,
    EstError,
    MessageError,
    PeerNotTrusted,
    ServerRefused,
)
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    Pending,
    Transport,
)
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import TrustAnchors
from est_protocol.secure_channel.policy import TlsPolicy, TlsVersion
from tests.foreign_tls import HOST, Script, foreign_server, server_context
from tests.loop_time import skip
from tests.pki import make_ca, make_leaf, make_server

CA = make_ca("operational")
SERVER = make_server(CA)
ANCHORS = TrustAnchors({AnchorSet.EXPLICIT: [CA.certificate]})
NOW = datetime(2026, 1, 1, tzinfo=UTC)

CACERTS = EstRequest(Operation.CACERTS, Transport.HTTPS)
ENROLL = EstRequest(Operation.SIMPLEENROLL, Transport.HTTPS, None, b"a certification request " * 9)
CERTIFICATES = base64_body.encode(certs_only.encode([CA.certificate]))


def http(
    status: str = "200 OK",
    body: bytes = CERTIFICATES,
    content_type: str | None = "application/pkcs7-mime; smime-type=certs-only",
    *,
    length: bool = True,
    headers: dict[str, str] | None = None,
) -> bytes:
    """One answer as octets."""
    lines = [f"HTTP/1.1 {status}"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if length:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Said:
    """A script that answers each request with the next of ``answers`` and notes the requests."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.answers:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
            line, *fields = head.strip().split("\r\n")
            headers = dict(field.split(": ", 1) for field in fields)
            body = await reader.readexactly(int(headers.get("Content-Length", "0")))
            self.requests.append((line, headers, body))
            writer.write(self.answers.pop(0))
            await writer.drain()


@asynccontextmanager
async def connected(
    script: Script,
    *,
    version: ssl.TLSVersion | None = None,
    timeout: float = 60.0,  # noqa: ASYNC109 - the connector's
    limits: HttpsClientLimits | None = None,
) -> AsyncIterator[HttpsConnection]:
    async with foreign_server(script, SERVER, version=version) as port:
        connector = HttpsConnector(
            HOST, port, timeout=timeout, limits=limits or HttpsClientLimits(), now=lambda: NOW
        )
        connection = await connector.connect(credentials=None, anchors=ANCHORS)
        try:
            yield connection
        finally:
            await connection.close()


async def ask(answer: bytes, request: EstRequest = ENROLL, **options: Any) -> Any:
    async with connected(Said(answer), **options) as connection:
        return await connection.request(request)


# --- the connection ----------------------------------------------------------------------------


def test_it_is_what_the_client_expects() -> None:
    connector: Connector = HttpsConnector("localhost")
    assert connector.transport is Transport.HTTPS
    assert connector.host == "localhost"

    def check(connection: HttpsConnection) -> EstConnection:
        return connection


@pytest.mark.conformance("POP-08", "POP-10")
@pytest.mark.parametrize(
    ("version", "kind"),
    [
        (ssl.TLSVersion.TLSv1_2, ChannelBindingType.TLS_UNIQUE),
        (ssl.TLSVersion.TLSv1_3, ChannelBindingType.TLS_EXPORTER),
    ],
)
async def test_the_server_is_known_before_anything_is_asked(
    version: ssl.TLSVersion, kind: ChannelBindingType
) -> None:
    theirs = b""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal theirs
        tls = writer.get_extra_info("ssl_object")
        theirs = tls.get_channel_binding("tls-unique")
        await Said(http())(reader, writer)

    async with connected(script, version=version) as connection:
        binding = connection.server.channel_binding
        assert binding is not None
        assert binding.type is kind
        assert connection.server.anchor_set is AnchorSet.EXPLICIT
        assert connection.server.certificate == SERVER.chain[0]
        await connection.request(CACERTS)
        if version is ssl.TLSVersion.TLSv1_2:
            assert binding.value == theirs


@pytest.mark.conformance("HTTP-16")
async def test_all_requests_travel_over_one_connection() -> None:
    script = Said(http(), http("403 Forbidden", b"no", "text/plain"), http())
    async with connected(script) as connection:
        await connection.request(CACERTS)
        with pytest.raises(ServerRefused):
            await connection.request(ENROLL)
        await connection.request(ENROLL)
    assert len(script.requests) == 3


async def test_it_never_reconnects() -> None:
    script = Said(http(headers={"Connection": "close"}))
    async with connected(script) as connection:
        await connection.request(CACERTS)
        with pytest.raises(ChannelClosed, match="closed"):
            await connection.request(CACERTS)
        with pytest.raises(ChannelClosed):
            await connection.request(ENROLL)
    assert len(script.requests) == 1


async def test_closing_twice_is_fine() -> None:
    async with connected(Said(http())) as connection:
        await connection.request(CACERTS)
        await connection.close()
        await connection.close()


@pytest.mark.conformance("TLS-03")
async def test_a_server_of_another_ca_is_not_trusted() -> None:
    async with foreign_server(Said(), make_server(make_ca("stranger"))) as port:
        connector = HttpsConnector(HOST, port)
        with pytest.raises(PeerNotTrusted):
            await connector.connect(credentials=None, anchors=ANCHORS)
        provisional = await connector.connect(
            credentials=None, anchors=TrustAnchors(), require_trust=False
        )
        assert not provisional.server.is_verified
        await provisional.close()


async def test_a_server_of_old_is_not_talked_to() -> None:
    async with foreign_server(Said(), SERVER, version=ssl.TLSVersion.TLSv1_2) as port:
        policy = TlsPolicy(minimum_version=TlsVersion.TLS1_3)
        with pytest.raises(ChannelError):
            await HttpsConnector(HOST, port, policy=policy).connect(
                credentials=None, anchors=ANCHORS
            )


@pytest.mark.parametrize(("host", "name"), [("localhost", "localhost"), (HOST, None)])
async def test_server_name_is_sent_for_dns_names_only(host: str, name: str | None) -> None:
    seen: list[str | None] = []
    context = server_context(SERVER)
    context.sni_callback = lambda socket, name, context: seen.append(name)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, HOST, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    connection = await HttpsConnector(host, port).connect(credentials=None, anchors=ANCHORS)
    await connection.close()
    server.close()
    assert seen == [name]


async def test_a_client_certificate_is_presented() -> None:
    device = make_leaf(CA, "device")
    context = server_context(SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(
        cadata=ssl.DER_cert_to_PEM_cert(CA.certificate.public_bytes(Encoding.DER))
    )
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.close()

    server = await asyncio.start_server(script, HOST, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    connection = await HttpsConnector(HOST, port).connect(credentials=device, anchors=ANCHORS)
    assert await seen == device.chain[0].public_bytes(Encoding.DER)
    await connection.close()
    server.close()


# --- requests ----------------------------------------------------------------------------------


@pytest.mark.conformance("HTTP-07", "HTTP-08", "HTTP-09", "HTTP-13", "SE-01")
async def test_what_an_enrollment_looks_like_on_the_wire() -> None:
    script = Said(http())
    async with connected(script) as connection:
        answer = await connection.request(ENROLL)
    assert answer == CertificatesResponse((CA.certificate,))
    [(line, headers, body)] = script.requests
    assert line == "POST /.well-known/est/simpleenroll HTTP/1.1"
    assert headers["Host"].startswith(f"{HOST}:")
    assert headers["Content-Type"] == "application/pkcs10"
    assert headers["Content-Length"] == str(len(body))
    assert "Transfer-Encoding" not in headers
    assert "Content-Transfer-Encoding" not in headers
    # libest's server wants the final newline.
    assert body.endswith(b"\n")
    assert base64.decodebytes(body) == ENROLL.body


@pytest.mark.conformance("HTTP-04", "HTTP-07")
@pytest.mark.parametrize(
    ("label", "path"),
    [
        ("sensors", "sensors"),
        ("a:b@c!$&'()*+,;=~", "a:b@c!$&'()*+,;=~"),
        ("a b/c?d#e%", "a%20b%2Fc%3Fd%23e%25"),
        ("caf\u00e9", "caf%C3%A9"),
    ],
)
async def test_labels_are_percent_encoded(label: str, path: str) -> None:
    script = Said(http())
    async with connected(script) as connection:
        await connection.request(EstRequest(Operation.CACERTS, Transport.HTTPS, label))
    assert script.requests[0][0] == f"GET /.well-known/est/{path}/cacerts HTTP/1.1"
    assert "Content-Type" not in script.requests[0][1]


@pytest.mark.parametrize("label", ["", ".", ".."])
async def test_labels_that_change_the_path_are_refused(label: str) -> None:
    async with connected(Said()) as connection:
        with pytest.raises(ConfigurationError):
            await connection.request(EstRequest(Operation.CACERTS, Transport.HTTPS, label))


@pytest.mark.parametrize(("host", "port"), [("", 443), ("a b", 443), ("localhost", 70000)])
def test_impossible_servers(host: str, port: int) -> None:
    with pytest.raises(ConfigurationError):
        HttpsConnector(host, port)


# --- answers -----------------------------------------------------------------------------------


@pytest.mark.conformance("HTTP-08", "CA-04")
@pytest.mark.parametrize(
    "content_type",
    [
        "application/pkcs7-mime",
        "application/pkcs7-mime;smime-type=certs-only",
        'Application/PKCS7-MIME; SMIME-Type="Certs-Only"; name=x',
    ],
)
async def test_spellings_of_the_content_type(content_type: str) -> None:
    for request in (ENROLL, CACERTS):
        answer = await ask(http(content_type=content_type), request)
        assert answer == CertificatesResponse((CA.certificate,))


@pytest.mark.conformance("CA-02")
@pytest.mark.parametrize(
    "status", ["201 Created", "204 No Content", "206 Partial", "302 Found", "404 Not Found"]
)
async def test_ca_certificates_come_with_status_200_only(status: str) -> None:
    body = b"" if status.startswith("204") else CERTIFICATES
    with pytest.raises(ServerRefused):
        await ask(http(status, body, length=bool(body)), CACERTS)


@pytest.mark.conformance("HTTP-10")
@pytest.mark.parametrize("encoding", ["base64", "binary", "7bit", "quoted-printable"])
async def test_a_content_transfer_encoding_of_the_answer_means_nothing(encoding: str) -> None:
    headers = {"Content-Transfer-Encoding": encoding}
    for request in (ENROLL, CACERTS):
        answer = await ask(http(headers=headers), request)
        assert answer == CertificatesResponse((CA.certificate,))


@pytest.mark.conformance("HTTP-08")
@pytest.mark.parametrize(
    "content_type",
    [None, "text/html", "application/pkcs7-mime; smime-type=server-generated-key", "text/plain"],
)
async def test_other_content_types_are_not_taken_for_certificates(
    content_type: str | None,
) -> None:
    with pytest.raises(MessageError, match="the answer to /simpleenroll is"):
        await ask(http(content_type=content_type))


@pytest.mark.parametrize(
    "body", [b"", b"!", b"AAAA", CERTIFICATES[:-9]], ids=["empty", "junk", "no-cms", "cut"]
)
async def test_bodies_that_do_not_decode(body: bytes) -> None:
    with pytest.raises(MessageError):
        await ask(http(body=body))


async def test_csr_attributes_may_end_in_the_nul_of_a_c_string() -> None:
    request = EstRequest(Operation.CSRATTRS, Transport.HTTPS)
    text = b"MAsGCSqGSIb3DQEJBw=="
    found = await ask(http("200 OK", text + b"\0", "application/csrattrs"), request)
    assert found == CsrAttributesResponse(base64.b64decode(text))
    with pytest.raises(MessageError):
        await ask(http("200 OK", text + b"\0\0", "application/csrattrs"), request)


async def test_a_chunked_answer_is_understood() -> None:
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CERTIFICATES), CERTIFICATES)
    answer = await ask(http(body=chunks, length=False, headers={"Transfer-Encoding": "chunked"}))
    assert answer == CertificatesResponse((CA.certificate,))


@pytest.mark.parametrize("chunked", [True, False])
async def test_too_large_an_answer(chunked: bool) -> None:
    limits = HttpsClientLimits(answer_size=len(CERTIFICATES))
    assert await ask(http(), limits=limits) == CertificatesResponse((CA.certificate,))
    body = CERTIFICATES + b"\n"
    if chunked:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        too_large = http(body=body, length=False, headers={"Transfer-Encoding": "chunked"})
    else:
        too_large = http(body=body)
    with pytest.raises(MessageError, match="larger than"):
        await ask(too_large, limits=limits)


async def test_too_large_a_header() -> None:
    with pytest.raises(MessageError, match="not HTTP"):
        await ask(http(headers={"X": "x" * 9000}))


@pytest.mark.parametrize("octets", [b"\x00\x01\x02\x03\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"])
async def test_octets_that_are_not_http(octets: bytes) -> None:
    with pytest.raises(MessageError, match="not HTTP"):
        await ask(octets)


async def test_an_answer_that_ends_early() -> None:
    with pytest.raises(ChannelClosed):
        await ask(http()[:-10])
    with pytest.raises(ChannelClosed):
        await ask(b"HTTP/1.1 200 OK\r\nContent-T")
    with pytest.raises(ChannelClosed):
        await ask(b"")


def end_tcp(writer: asyncio.StreamWriter) -> None:
    """End the TCP connection past TLS, so that nobody says close_notify."""
    with writer.get_extra_info("socket").dup() as tcp:
        tcp.shutdown(socket.SHUT_WR)


async def test_a_missing_close_notify_does_no_harm_where_there_is_a_length() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Said(http(headers={"Connection": "close"}))(reader, writer)
        end_tcp(writer)
        await reader.read()

    async with connected(hang_up) as connection:
        assert await connection.request(CACERTS) == CertificatesResponse((CA.certificate,))


async def test_without_a_length_the_end_has_to_be_certain() -> None:
    answer = http(length=False, headers={"Connection": "close"})

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Said(answer)(reader, writer)
        end_tcp(writer)
        await reader.read()

    async with connected(cut) as connection:
        with pytest.raises(MessageError, match="its end is not certain"):
            await connection.request(CACERTS)
    async with connected(Said(answer)) as connection:
        assert await connection.request(CACERTS) == CertificatesResponse((CA.certificate,))


@pytest.mark.parametrize("said", [b"", http()[:-10]], ids=["silent", "stalled"])
async def test_a_server_that_stalls(said: bytes) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        skip(60)
        await reader.read()

    async with connected(stall, timeout=60) as connection:
        with pytest.raises(ChannelClosed, match="no complete answer within 60 s"):
            await connection.request(ENROLL)


async def test_a_cancelled_request_takes_the_connection_with_it() -> None:
    asked = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()

    async with connected(stall) as connection:
        task = asyncio.create_task(connection.request(ENROLL))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ChannelClosed):
            await connection.request(ENROLL)


# --- not yet, and no ---------------------------------------------------------------------------


@pytest.mark.conformance("STAT-02", "STAT-03")
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "Thu, 01 Jan 2026 00:01:30 GMT"}, 90),
        ({"Retry-After": "soon"}, 60),
        ({}, 60),
    ],
)
async def test_pending(header: dict[str, str], seconds: int) -> None:
    answer = http("202 Accepted", b"later", "text/plain", headers=header)
    assert await ask(answer) == Pending(seconds)


@pytest.mark.conformance("HTTP-18")
@pytest.mark.parametrize(
    ("status", "body", "content_type", "explanation"),
    [
        ("403 Forbidden", b"unknown device\n", "text/plain", "unknown device"),
        ("404 Not Found", b"no such label", None, "no such label"),
        ("204 No Content", b"", None, "No Content"),
        ("401 Unauthorized", b"<html>no</html>", "text/html", "Unauthorized"),
        ("500 Oops", b"\x1b[31mred\x00\xff\r\nalert", "text/plain", "[31mred \ufffd alert"),
        ("400 Bad", CERTIFICATES, "application/pkcs7-mime", "Bad Request"),
        ("599 Huh", b"", None, ""),
    ],
)
async def test_refusals(
    status: str, body: bytes, content_type: str | None, explanation: str
) -> None:
    with pytest.raises(ServerRefused) as caught:
        await ask(http(status, body, content_type, length=bool(body)))
    assert caught.value.status == status[:3]
    assert caught.value.explanation == explanation
    assert caught.value.retry_after is None


@pytest.mark.conformance("STAT-13")
async def test_a_busy_server_says_when_to_come_back() -> None:
    with pytest.raises(ServerRefused) as caught:
        await ask(http("503 Service Unavailable", b"", None, headers={"Retry-After": "30"}))
    assert caught.value.retry_after == 30


async def test_an_endless_explanation_is_cut() -> None:
    with pytest.raises(ServerRefused) as caught:
        await ask(http("403 Forbidden", b"no " * 100_000, "text/plain"))
    assert len(caught.value.explanation) == 300
    assert caught.value.explanation.endswith("\u2026")


@pytest.mark.parametrize("status", ["300 Multiple", "303 See Other", "304 Not", "305 Use Proxy"])
async def test_redirects_that_are_not_for_a_post_are_refusals(status: str) -> None:
    script = Said(http(status, b"", None, headers={"Location": "/again"}))
    async with connected(script) as connection:
        with pytest.raises(ServerRefused, match="redirected to /again, which cannot") as caught:
            await connection.request(ENROLL)
    assert not isinstance(caught.value, Redirected)


@pytest.mark.conformance("STAT-11", "HTTP-01")
@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/",
        "ftp://127.0.0.1/",
        "coaps://127.0.0.1/",
        "https://user:secret@127.0.0.1/",
        "https://[::1",
        "https://h:99999/",
        "https://h:port/",
    ],
)
async def test_redirects_lead_to_https_only(target: str) -> None:
    script = Said(http("307 Temporary", b"", None, headers={"Location": target}))
    async with connected(script) as connection:
        with pytest.raises(MessageError, match="redirect"):
            await connection.request(ENROLL)


async def test_two_places_to_go_to_are_none() -> None:
    answer = http("307 Temporary", b"", None, headers={"Location": "/a", "location": "/b"})
    async with connected(Said(answer)) as connection:
        with pytest.raises(MessageError, match="more than one"):
            await connection.request(ENROLL)


@pytest.mark.conformance("STAT-02")
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        (" 5 ", 5),
        ("9" * 5000, LONGEST_RETRY_AFTER),
        ("-5", None),
        ("1.5", None),
        ("\u0665", None),
        (None, None),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("Thu, 01 Jan 2099 00:00:00 GMT", LONGEST_RETRY_AFTER),
        ("Thu, 01 Jan 2026 00:00:10 -0000", 10),
        ("Thu, 99 Foo 2026 99:99:99 GMT", None),
        ("Thu, 01 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: int | None) -> None:
    assert parse_retry_after(header, now=NOW) == seconds


def test_printable_is_one_line_without_controls() -> None:
    assert printable(b"  a\tb\r\nc\x1b[0m\xe2\x80\xae d ") == "a b c [0m d"


@pytest.mark.parametrize("seed", range(8))
async def test_damaged_answers_raise_nothing_but_our_own_errors(seed: int) -> None:
    random = Random(seed)
    good = http(headers={"Retry-After": "5", "Connection": "close"})
    for _ in range(5):
        damaged = bytearray(good)
        for _ in range(random.randint(1, 20)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        try:
            answer = await ask(bytes(damaged[: random.randint(0, 2 * len(damaged))]), timeout=0.05)
        except EstError:
            continue
        assert isinstance(answer, CertificatesResponse | Pending)
