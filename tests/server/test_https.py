"""EST over HTTPS on the server: what goes over the wire, octet by octet."""

from __future__ import annotations

import asyncio
import base64
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol import certs_only
from est_protocol.channel_binding import ChannelBindingType
from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.csr_attributes import CsrAttribute, CsrAttributes
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    Pending,
    Transport,
)
from est_protocol.oid_names import CHALLENGE_PASSWORD
from est_protocol.operations import WELL_KNOWN_PATH, Operation
from est_protocol.secure_channel.context import TrustAnchors
from est_protocol.secure_channel.policy import TlsPolicy
from est_server.https import (
    EstSite,
    HttpsEndpoint,
    HttpsLimits,
    HttpsServer,
    est_application,
    serve,
)
from est_server.legacy_forms import NO_LEGACY_FORMS, LegacyForms
from tests.foreign_tls import HOST, client_context, exchange, server_context
from tests.loop_time import skip
from tests.pki import CLIENT_AUTH, make_ca, make_leaf, make_server

CA = make_ca("operational")
SERVER = make_server(CA)
ANCHORS = TrustAnchors({AnchorSet.OPERATIONAL: [CA.certificate]})
DEVICE = make_leaf(CA, "device", usage=CLIENT_AUTH)
ISSUED = DEVICE.chain[0]
THIS_FILE = Path(__file__).read_bytes()
BODY = base64.encodebytes(b"a certification request, as far as the transport knows")


@dataclass
class Clerk:
    """Answers requests as it was told to, and writes everything down."""

    answer: Callable[[EstRequest], Awaitable[EstResponse]]
    requests: list[tuple[EstRequest, PeerCredentials]] = field(default_factory=list)
    refusals: list[tuple[RefusalReason, Operation | None, str | None, Transport]] = field(
        default_factory=list
    )
    forms: LegacyForms = NO_LEGACY_FORMS

    def legacy_forms(self, label: str | None) -> LegacyForms:
        return self.forms if label == "old" else NO_LEGACY_FORMS

    async def respond(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        self.requests.append((request, peer))
        return await self.answer(request)

    async def record_refusal(
        self,
        refused: RequestRefused,
        *,
        operation: Operation | None,
        label: str | None,
        transport: Transport,
        peer: PeerCredentials,
    ) -> None:
        assert peer.address
        self.refusals.append((refused.reason, operation, label, transport))


async def issue(request: EstRequest) -> EstResponse:
    return CertificatesResponse((ISSUED,))


def alone(clerk: Clerk, limits: HttpsLimits) -> EstSite:
    return EstSite(clerk, limits)


def mounted(clerk: Clerk, limits: HttpsLimits) -> web.Application:
    app = web.Application()
    app.add_subapp(WELL_KNOWN_PATH, est_application(clerk, limits))
    return app


@dataclass
class How:
    """The way in which EST is served in the test that runs."""

    make: Callable[[Clerk, HttpsLimits], EstSite | web.Application] = alone


HOW = How()


@pytest.fixture(params=[alone, mounted], ids=["alone", "mounted"], autouse=True)
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> How:
    """Both ways of serving EST behave the same, octet by octet."""
    monkeypatch.setattr(HOW, "make", request.param)
    return HOW


@asynccontextmanager
async def serving(
    clerk: Clerk | None = None, limits: HttpsLimits | None = None
) -> AsyncIterator[HttpsServer]:
    limits = limits or HttpsLimits()
    app = HOW.make(clerk or Clerk(issue), limits)
    endpoint = HttpsEndpoint(SERVER, ANCHORS, port=0, limits=limits)
    async with await serve(app, endpoint) as server:
        yield server


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def parse(octets: bytes) -> Answer:
    head, _, body = octets.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("ascii").split("\r\n")
    version, status, _ = status_line.split(" ", 2)
    assert version == "HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines)
    # Names exactly as libest's client wants them, and never a chunked body.
    assert int(headers["Content-Length"]) == len(body)
    assert "Transfer-Encoding" not in headers
    return Answer(int(status), headers, body)


def head(method: str, path: str, headers: dict[str, str] | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def get(server: HttpsServer, path: str, method: str = "GET") -> Answer:
    return parse(await exchange(server.port, head(method, path)))


async def post(
    server: HttpsServer,
    path: str = f"{WELL_KNOWN_PATH}/simpleenroll",
    body: bytes = BODY,
    content_type: str | None = "application/pkcs10",
    context: ssl.SSLContext | None = None,
) -> Answer:
    headers = {"Content-Length": str(len(body))}
    if content_type is not None:
        headers["Content-Type"] = content_type
    return parse(await exchange(server.port, head("POST", path, headers) + body, context))


# --- answers -----------------------------------------------------------------------------------


@pytest.mark.conformance("HTTP-08", "HTTP-09", "HTTP-13", "SE-02", "SR-08")
@pytest.mark.parametrize("operation", [Operation.SIMPLEENROLL, Operation.SIMPLEREENROLL])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_enrollment_over_the_wire(version: ssl.TLSVersion, operation: Operation) -> None:
    clerk = Clerk(issue)
    async with serving(clerk) as server:
        path = f"{WELL_KNOWN_PATH}/{operation.path_segment}"
        answer = await post(server, path, context=client_context(DEVICE, version=version))
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert "Content-Transfer-Encoding" not in answer.headers
    assert answer.body.endswith(b"\n")
    assert max(map(len, answer.body.splitlines())) == 64
    assert certs_only.decode(base64.b64decode(answer.body)) == (ISSUED,)
    [(request, peer)] = clerk.requests
    assert request == EstRequest(operation, Transport.HTTPS, None, base64.decodebytes(BODY))
    assert peer.certificate == ISSUED
    assert peer.anchor_set is AnchorSet.OPERATIONAL
    assert peer.address.startswith("127.0.0.1:")


async def test_a_client_that_says_as_little_as_strongswan_gets_one_line() -> None:
    request = f"GET {WELL_KNOWN_PATH}/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serving() as server:
        reader, writer = await asyncio.open_connection(HOST, server.port, ssl=client_context())
        writer.write(request.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"\n")
        writer.close()
        await writer.wait_closed()
    assert f"Content-Length: {len(body)}\r\n".encode() in answer
    assert certs_only.decode(base64.b64decode(body)) == (ISSUED,)


@pytest.mark.conformance("POP-08")
async def test_tls_unique_is_what_the_standard_library_says() -> None:
    clerk = Clerk(issue)
    async with serving(clerk) as server:
        reader, writer = await asyncio.open_connection(
            HOST, server.port, ssl=client_context(version=ssl.TLSVersion.TLSv1_2)
        )
        theirs = writer.get_extra_info("ssl_object").get_channel_binding("tls-unique")
        writer.write(head("GET", f"{WELL_KNOWN_PATH}/cacerts"))
        await reader.read()
        writer.close()
        await writer.wait_closed()
    [(_, peer)] = clerk.requests
    assert peer.channel_binding is not None
    assert peer.channel_binding.type is ChannelBindingType.TLS_UNIQUE
    assert peer.channel_binding.value == theirs


@pytest.mark.conformance("HTTP-02", "AUTH-02", "TLS-19", "CA-02", "CA-04")
async def test_cacerts_needs_no_client_certificate() -> None:
    clerk = Clerk(issue)
    async with serving(clerk) as server:
        answer = await get(server, f"{WELL_KNOWN_PATH}/cacerts")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert clerk.requests[0][1].chain == ()


@pytest.mark.conformance("ATT-02", "ATT-03", "AUTH-03")
async def test_csr_attributes_over_the_wire() -> None:
    """RFC 8951 section 4: base64 of DER, and nobody has to be authenticated."""
    der = CsrAttributes((CsrAttribute(CHALLENGE_PASSWORD),)).encode()

    async def ask(request: EstRequest) -> EstResponse:
        return CsrAttributesResponse(der)

    clerk = Clerk(ask)
    async with serving(clerk) as server:
        answer = await get(server, f"{WELL_KNOWN_PATH}/label/csrattrs")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/csrattrs"
    assert "Content-Transfer-Encoding" not in answer.headers
    assert base64.b64decode(answer.body) == der
    [(request, peer)] = clerk.requests
    assert request == EstRequest(Operation.CSRATTRS, Transport.HTTPS, "label")
    assert peer.chain == ()


@pytest.mark.conformance("ATT-02")
async def test_no_csr_attributes_is_no_content() -> None:
    async def ask_nothing(request: EstRequest) -> EstResponse:
        return CsrAttributesResponse(None)

    async with serving(Clerk(ask_nothing)) as server:
        octets = await exchange(server.port, head("GET", f"{WELL_KNOWN_PATH}/csrattrs"))
    lines = octets.decode("ascii").split("\r\n")
    assert lines[0].startswith("HTTP/1.1 204 ")
    assert lines[-2:] == ["", ""]
    # RFC 9110 section 8.6.
    assert not any(line.lower().startswith("content-length") for line in lines)


@pytest.mark.conformance("HTTP-04")
@pytest.mark.parametrize(
    ("segment", "label"),
    [
        ("sensors", "sensors"),
        ("a:b@c!$&'()*+,;=~", "a:b@c!$&'()*+,;=~"),
        ("caf%C3%A9", "caf\u00e9"),
        ("a%20b%2Fc", "a b/c"),
        ("100%25", "100%"),
        ("cacerts", "cacerts"),
    ],
)
async def test_labels_are_any_path_segment(segment: str, label: str) -> None:
    clerk = Clerk(issue)
    async with serving(clerk) as server:
        answer = await post(server, f"{WELL_KNOWN_PATH}/{segment}/simplereenroll")
    assert answer.status == 200
    assert clerk.requests[0][0].label == label
    assert clerk.requests[0][0].operation is Operation.SIMPLEREENROLL


@pytest.mark.parametrize("segment", [b"\xff", b"%FF", b"%ZZ", b"%", b"%00", b"..", b"a;b=c"])
async def test_odd_labels_are_just_unknown(segment: bytes) -> None:
    async def unknown(request: EstRequest) -> EstResponse:
        raise RequestRefused(RefusalReason.UNKNOWN_LABEL, f"there is no label {request.label!s}")

    async with serving(Clerk(unknown)) as server:
        request = head("GET", f"{WELL_KNOWN_PATH}/@@/cacerts").replace(b"@@", segment)
        answer = await exchange(server.port, request)
    assert answer.split(b" ")[1] in (b"400", b"404")


@pytest.mark.conformance("STAT-01")
async def test_pending() -> None:
    async def pending(request: EstRequest) -> EstResponse:
        return Pending(retry_after=120)

    async with serving(Clerk(pending)) as server:
        answer = await post(server)
    assert answer.status == 202
    assert answer.headers["Retry-After"] == "120"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.conformance("HTTP-16")
async def test_requests_share_a_connection_if_the_client_likes() -> None:
    clerk = Clerk(issue)
    request = f"GET {WELL_KNOWN_PATH}/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with serving(clerk) as server:
        octets = await exchange(
            server.port, request * 3 + head("GET", f"{WELL_KNOWN_PATH}/cacerts")
        )
    assert octets.count(b"HTTP/1.1 200 OK") == 4
    assert len({peer.channel_binding for _, peer in clerk.requests}) == 1


@pytest.mark.conformance("TLS-19")
async def test_a_client_without_client_certificate_under_pop_linking_gets_through() -> None:
    clerk = Clerk(issue)
    async with serving(clerk) as server:
        assert (await post(server)).status == 200
    [(_, peer)] = clerk.requests
    assert peer.chain == ()
    assert peer.channel_binding is not None


# --- refusals ----------------------------------------------------------------------------------


def refusing(reason: RefusalReason, retry_after: int | None = None) -> Clerk:
    async def refuse(request: EstRequest) -> EstResponse:
        raise RequestRefused(
            reason, "no, b\u00f6se", detail="not for the client", retry_after=retry_after
        )

    return Clerk(refuse)


@pytest.mark.conformance("HTTP-18", "STAT-07", "STAT-12", "HTTP-19")
@pytest.mark.parametrize(
    ("reason", "status", "retry_after"),
    [
        (RefusalReason.NOT_AUTHORIZED, 403, None),
        (RefusalReason.AUTHENTICATION_REQUIRED, 403, None),
        (RefusalReason.UNKNOWN_LABEL, 404, None),
        (RefusalReason.MALFORMED_CSR, 400, None),
        (RefusalReason.STORE_UNAVAILABLE, 503, None),
        (RefusalReason.TRY_LATER, 503, 7),
        (RefusalReason.INTERNAL_ERROR, 500, None),
    ],
)
async def test_refusals_of_the_service(
    reason: RefusalReason, status: int, retry_after: int | None
) -> None:
    clerk = refusing(reason, retry_after)
    async with serving(clerk) as server:
        answer = await post(server)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.body.decode() == "no, b\u00f6se\n"
    expected = str(retry_after or 60) if status == 503 else None
    assert answer.headers.get("Retry-After") == expected
    # The service has recorded it already.
    assert clerk.refusals == []


@pytest.mark.conformance("AUTH-07", "STAT-12")
async def test_401_says_how_to_authenticate() -> None:
    challenges = ('Digest realm="plant", nonce="n"', 'Basic realm="plant"')

    async def ask(request: EstRequest) -> EstResponse:
        raise RequestRefused(
            RefusalReason.AUTHENTICATION_REQUIRED, "who are you?", challenges=challenges
        )

    headers = {"Content-Type": "application/pkcs10", "Content-Length": str(len(BODY))}
    async with serving(Clerk(ask)) as server:
        request = head("POST", f"{WELL_KNOWN_PATH}/simpleenroll", headers) + BODY
        status_line, *lines = (await exchange(server.port, request)).decode().split("\r\n")
    assert status_line == "HTTP/1.1 401 Unauthorized"
    sent = [line for line in lines if line.startswith("WWW-Authenticate: ")]
    assert sent == [f"WWW-Authenticate: {challenge}" for challenge in challenges]


@pytest.mark.conformance("HTTP-07", "STAT-12")
@pytest.mark.parametrize(
    ("path", "method", "status", "allow", "reason"),
    [
        ("/nonsense", "GET", 404, None, RefusalReason.UNKNOWN_OPERATION),
        ("/label/nonsense", "POST", 404, None, RefusalReason.UNKNOWN_OPERATION),
        ("/label/one/cacerts", "GET", 404, None, RefusalReason.UNKNOWN_OPERATION),
        ("/", "GET", 404, None, RefusalReason.UNKNOWN_OPERATION),
        ("/sen", "POST", 404, None, RefusalReason.UNKNOWN_OPERATION),
        ("/cacerts", "POST", 405, "GET", RefusalReason.METHOD_NOT_ALLOWED),
        ("/simpleenroll", "GET", 405, "POST", RefusalReason.METHOD_NOT_ALLOWED),
        ("/label/simplereenroll", "PUT", 405, "POST", RefusalReason.METHOD_NOT_ALLOWED),
    ],
)
async def test_what_is_not_there(
    path: str, method: str, status: int, allow: str | None, reason: RefusalReason
) -> None:
    clerk = Clerk(issue)
    async with serving(clerk) as server:
        answer = await get(server, WELL_KNOWN_PATH + path, method)
    assert answer.status == status
    assert answer.headers.get("Allow") == allow
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.body
    assert clerk.requests == []
    assert [recorded[0] for recorded in clerk.refusals] == [reason]


@pytest.mark.conformance("HTTP-08", "STAT-12")
@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/pkcs10", 200),
        ("APPLICATION/PKCS10", 200),
        ("application/pkcs10; Charset=utf-8", 200),
        ("application/pkcs10;", 200),
        ("application/pkcs7-mime", 415),
        ("text/plain", 415),
        ("application/pkcs10x", 415),
        ("", 415),
        (None, 415),
    ],
)
async def test_the_content_type_decides(content_type: str | None, status: int) -> None:
    clerk = Clerk(issue)
    async with serving(clerk) as server:
        assert (await post(server, content_type=content_type)).status == status
    assert len(clerk.requests) == (status == 200)
    reasons = [] if status == 200 else [RefusalReason.UNSUPPORTED_MEDIA_TYPE]
    assert [refusal[0] for refusal in clerk.refusals] == reasons


async def test_an_empty_body_is_the_services_to_answer() -> None:
    clerk = Clerk(issue)
    async with serving(clerk) as server:
        await post(server, body=b"")
    assert clerk.requests[0][0].body == b""


@pytest.mark.conformance("HTTP-09", "HTTP-14", "SE-11")
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\r\n", "empty"),
        (b"!!!!", "not base64"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n" + BODY, "PEM"),
        (b"\x30\x82\x01\x00", "DER itself"),
        (b"YWJj\nYW", "cut short"),
    ],
)
async def test_malformed_bodies_say_why(body: bytes, why: str) -> None:
    clerk = Clerk(issue)
    async with serving(clerk) as server:
        answer = await post(server, body=body)
    assert answer.status == 400
    assert why in answer.body.decode()
    assert clerk.refusals == [
        (RefusalReason.MALFORMED_BODY, Operation.SIMPLEENROLL, None, Transport.HTTPS)
    ]


@pytest.mark.conformance("HTTP-10")
async def test_content_transfer_encoding_means_nothing() -> None:
    async with serving() as server:
        for value in ("base64", "binary", "7bit"):
            headers = {
                "Content-Type": "application/pkcs10",
                "Content-Length": str(len(BODY)),
                "Content-Transfer-Encoding": value,
            }
            request = head("POST", f"{WELL_KNOWN_PATH}/simpleenroll", headers) + BODY
            assert parse(await exchange(server.port, request)).status == 200


async def test_a_chunked_request_is_understood() -> None:
    clerk = Clerk(issue)
    headers = {"Content-Type": "application/pkcs10", "Transfer-Encoding": "chunked"}
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:30], BODY[30:]))
    async with serving(clerk) as server:
        octets = await exchange(
            server.port,
            head("POST", f"{WELL_KNOWN_PATH}/simpleenroll", headers) + chunks + b"0\r\n\r\n",
        )
    assert parse(octets).status == 200
    assert clerk.requests[0][0].body == base64.decodebytes(BODY)


@pytest.mark.conformance("HTTP-17")
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_too_large_a_body(announced: bool) -> None:
    clerk = Clerk(issue)
    body = b"A" * 65540
    if announced:
        headers = {"Content-Length": str(len(body))}
    else:
        headers = {"Transfer-Encoding": "chunked"}
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    headers["Content-Type"] = "application/pkcs10"
    async with serving(clerk) as server:
        request = head("POST", f"{WELL_KNOWN_PATH}/simpleenroll", headers) + body
        answer = parse(await exchange(server.port, request))
        assert answer.status == 413
        assert "65536" in answer.body.decode()
        largest = await post(server, body=b"A" * 65536)
        assert largest.status == 200
    assert [reason for reason, *_ in clerk.refusals] == [RefusalReason.BODY_TOO_LARGE]


async def test_a_body_is_invited_only_if_it_is_wanted() -> None:
    headers = {
        "Content-Type": "application/pkcs10",
        "Content-Length": str(len(BODY)),
        "Expect": "100-continue",
    }
    path = f"{WELL_KNOWN_PATH}/simpleenroll"
    async with serving(limits=HttpsLimits(linger_timeout=0.01)) as server:
        octets = await exchange(server.port, head("POST", path, headers) + BODY)
        invitation = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert octets.startswith(invitation)
        assert parse(octets.removeprefix(invitation)).status == 200

        too_large = headers | {"Content-Length": "1000000"}
        answer = parse(await exchange(server.port, head("POST", path, too_large)))
        assert answer.status == 413


@pytest.mark.parametrize("body", [zlib.compress(b"A" * 5_000_000), b"not compressed at all"])
@pytest.mark.parametrize("coding", ["deflate", "gzip", "br", "GZIP"])
async def test_no_body_is_taken_compressed(
    body: bytes, coding: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {
        "Content-Type": "application/pkcs10",
        "Content-Encoding": coding,
        "Content-Length": str(len(body)),
    }
    async with serving() as server:
        request = head("POST", f"{WELL_KNOWN_PATH}/simpleenroll", headers) + body
        assert parse(await exchange(server.port, request)).status == 415
    assert [record for record in caplog.records if record.exc_info or record.levelno > 20] == []


async def test_octets_that_are_not_http_are_refused_without_a_fuss(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        for octets in (b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
            assert (await exchange(server.port, octets)).startswith(b"HTTP/1.0 400")
        assert (await post(server)).status == 200
    assert [record for record in caplog.records if record.exc_info or record.levelno > 20] == []


@pytest.mark.parametrize("seed", range(8))
async def test_damaged_requests_never_reach_the_service_nor_harm_the_server(seed: int) -> None:
    random = Random(seed)
    clerk = Clerk(issue)
    headers = {"Content-Type": "application/pkcs10", "Content-Length": str(len(BODY))}
    good = head("POST", f"{WELL_KNOWN_PATH}/label/simpleenroll", headers) + BODY
    # What is asked last has to come within these times.
    limits = HttpsLimits(header_timeout=0.2, body_timeout=0.2, linger_timeout=0.01)
    async with serving(clerk, limits) as server:
        for _ in range(5):
            damaged = bytearray(good)
            for _ in range(random.randint(1, 20)):
                damaged[random.randrange(len(damaged))] = random.randrange(256)
            answer = await exchange(server.port, bytes(damaged[: random.randint(0, 400)]))
            assert not answer.startswith(b"HTTP/1.1 5")
        assert (await post(server)).status == 200


@pytest.mark.conformance("HTTP-17")
async def test_headers_are_bounded() -> None:
    async with serving() as server:
        long = head("GET", f"{WELL_KNOWN_PATH}/cacerts", {"X": "x" * 9000})
        many = head("GET", f"{WELL_KNOWN_PATH}/cacerts", {f"X{n}": "x" for n in range(100)})
        for request in (long, many):
            assert b" 400 " in (await exchange(server.port, request))[:16]


# --- time and number ---------------------------------------------------------------------------


@pytest.mark.conformance("HTTP-17")
@pytest.mark.parametrize(
    "octets", [b"", b"GET /.well-known/est/cac", head("GET", "/")[:-2]], ids=["none", "line", "all"]
)
async def test_a_header_that_never_ends(octets: bytes) -> None:
    async with serving(limits=HttpsLimits(header_timeout=0.05)) as server:
        assert await exchange(server.port, octets) == b""
        assert server.connections == 0


async def test_a_second_header_that_never_ends() -> None:
    request = f"GET {WELL_KNOWN_PATH}/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with serving() as server:
        reader, writer = await asyncio.open_connection(HOST, server.port, ssl=client_context())
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(request[:20])
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            # Half the limit each time, so that the beginning of the header arrives in between.
            skip(HttpsLimits().header_timeout / 2)
            await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()


async def test_an_idle_connection_is_closed() -> None:
    request = f"GET {WELL_KNOWN_PATH}/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with serving(limits=HttpsLimits(idle_timeout=0.05)) as server:
        assert parse(await exchange(server.port, request)).status == 200


@pytest.mark.conformance("HTTP-17")
async def test_a_body_that_never_comes() -> None:
    clerk = Clerk(issue)
    headers = {"Content-Type": "application/pkcs10", "Content-Length": "1000"}
    limits = HttpsLimits(body_timeout=0.05, linger_timeout=0.05)
    async with serving(clerk, limits) as server:
        request = head("POST", f"{WELL_KNOWN_PATH}/simpleenroll", headers) + b"AAAA"
        answer = parse(await exchange(server.port, request))
    assert answer.status == 408
    assert clerk.requests == []
    assert [reason for reason, *_ in clerk.refusals] == [RefusalReason.REQUEST_TIMEOUT]


async def test_a_slow_body_is_cut_off_in_other_applications_too() -> None:
    async def read(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app = web.Application()
    app.router.add_post("/", read)
    limits = HttpsLimits(body_timeout=0.02, linger_timeout=0.02)
    async with await serve(app, HttpsEndpoint(SERVER, port=0, limits=limits)) as server:
        request = head("POST", "/", {"Content-Length": "10"}) + b"AAAA"
        assert await exchange(server.port, request) == b""


async def test_a_client_that_vanishes_within_the_body_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clerk = Clerk(issue)
    headers = {"Content-Type": "application/pkcs10", "Content-Length": "1000"}
    async with serving(clerk) as server:
        _, writer = await asyncio.open_connection(HOST, server.port, ssl=client_context())
        writer.write(head("POST", f"{WELL_KNOWN_PATH}/simpleenroll", headers) + b"AAAA")
        await writer.drain()
        writer.transport.abort()
        assert (await post(server)).status == 200
    assert len(clerk.requests) == 1
    assert [reason for reason, *_ in clerk.refusals] == [RefusalReason.MALFORMED_REQUEST]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "said",
    [
        None,
        b"",
        b"GET / HTT",
        head("POST", f"{WELL_KNOWN_PATH}/simpleenroll", {"Content-Length": "9"}) + b"AAAA",
    ],
    ids=["no handshake", "no request", "half a header", "half a body"],
)
async def test_who_keeps_the_server_waiting_keeps_nobody_out(said: bytes | None) -> None:
    async with serving(limits=HttpsLimits(max_connections=2)) as server:
        tls = None if said is None else client_context()
        writers = []
        for _ in range(2):
            _, writer = await asyncio.open_connection(HOST, server.port, ssl=tls)
            writer.write(said or b"")
            await writer.drain()
            writers.append(writer)
        assert (await post(server)).status == 200
        assert server.connections <= 2
        for writer in writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


async def test_requests_that_are_worked_on_are_never_ended_for_others() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: EstRequest) -> EstResponse:
        asked.set()
        await go_on.wait()
        return CertificatesResponse((ISSUED,))

    async with serving(Clerk(slow), limits=HttpsLimits(max_connections=1)) as server:
        first = asyncio.create_task(post(server))
        await asked.wait()
        with pytest.raises(OSError):  # noqa: PT011 - the reset arrives at any point
            await post(server)
        go_on.set()
        assert (await first).status == 200


# --- stopping ----------------------------------------------------------------------------------


async def test_closing_finishes_what_is_under_way() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: EstRequest) -> EstResponse:
        asked.set()
        await go_on.wait()
        return CertificatesResponse((ISSUED,))

    async with serving(Clerk(slow)) as server:
        idle_reader, idle_writer = await asyncio.open_connection(
            HOST, server.port, ssl=client_context()
        )
        answer = asyncio.create_task(post(server))
        await asked.wait()
        closing = [asyncio.create_task(server.close()) for _ in range(2)]
        for _ in range(3):
            await asyncio.sleep(0)
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset
            await asyncio.open_connection(HOST, server.port)
        go_on.set()
        assert (await answer).status == 200
        assert await idle_reader.read() == b""
        idle_writer.close()
        await asyncio.gather(*closing)
        assert server.connections == 0


async def test_closing_does_not_wait_for_ever() -> None:
    asked = asyncio.Event()

    async def never(request: EstRequest) -> EstResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    limits = HttpsLimits(drain_timeout=0.05, shutdown_timeout=0.05)
    async with serving(Clerk(never), limits) as server:
        answer = asyncio.create_task(exchange(server.port, head("GET", "/.well-known/est/cacerts")))
        await asked.wait()
        await server.close()
        assert await answer == b""


# --- embedding ---------------------------------------------------------------------------------


async def test_est_beside_another_application() -> None:
    async def hello(request: web.Request) -> web.Response:
        assert request.scheme == "https"
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/hello", hello)
    app.add_subapp(WELL_KNOWN_PATH, est_application(Clerk(issue)))
    async with await serve(app, HttpsEndpoint(SERVER, ANCHORS, port=0)) as server:
        assert (await get(server, "/hello")).body == b"hello"
        assert (await get(server, f"{WELL_KNOWN_PATH}/cacerts")).status == 200
        assert (await get(server, "/nowhere")).status == 404


@pytest.mark.parametrize(
    "octets",
    [head("GET", "/elsewhere"), head("GET", f"{WELL_KNOWN_PATH}/cacerts"), b"no HTTP\r\n\r\n"],
    ids=["not found", "EST", "malformed"],
)
async def test_no_answer_tells_the_versions_of_the_software(octets: bytes) -> None:
    async with serving() as server:
        answer = await exchange(server.port, octets)
    assert answer.startswith(b"HTTP/1.")
    for version in (b"aiohttp", b"Python"):
        assert version not in answer


async def test_files_are_served_though_nothing_can_be_sent_past_the_encryption() -> None:
    async def this_file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(__file__)

    app = web.Application()
    app.router.add_get("/file", this_file)
    async with await serve(app, HttpsEndpoint(SERVER, ANCHORS, port=0)) as server:
        answer = await get(server, "/file")
    assert answer.body == THIS_FILE


@pytest.mark.conformance("HTTP-22", "HTTP-01", "HTTP-21")
@pytest.mark.parametrize(
    ("tls", "path", "claims", "status"),
    [
        (False, "/cacerts", False, 403),
        (False, "/simpleenroll", False, 403),
        (True, "/cacerts", False, 200),
        (True, "/simpleenroll", False, 403),
        (False, "/cacerts", True, 400),
        (False, "/simpleenroll", True, 400),
        (True, "/cacerts", True, 400),
        (True, "/simpleenroll", True, 400),
    ],
)
async def test_under_another_server_nobody_gets_a_certificate(
    tls: bool, path: str, claims: bool, status: int
) -> None:
    clerk = Clerk(issue)
    app = web.Application()
    app.add_subapp(WELL_KNOWN_PATH, est_application(clerk))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, ssl_context=server_context(SERVER) if tls else None)
    await site.start()
    try:
        operation = Operation(path[1:])
        headers = {"Content-Type": "application/pkcs10", "Content-Length": str(len(BODY))}
        if claims:
            # What a proxy that ends TLS would say (RFC 9440), said by anybody.
            claimed = base64.b64encode(ISSUED.public_bytes(Encoding.DER)).decode()
            headers["Client-Cert"] = f":{claimed}:"
        request = head(operation.method, WELL_KNOWN_PATH + path, headers) + BODY
        reader, writer = await asyncio.open_connection(
            HOST, site.port, ssl=client_context() if tls else None
        )
        writer.write(request)
        assert parse(await reader.read()).status == status
        writer.close()
        await writer.wait_closed()
    finally:
        await runner.cleanup()
    assert len(clerk.requests) == (status == 200)
    assert [peer.chain for _, peer in clerk.requests] == [()] * len(clerk.requests)


def test_the_default_endpoint_is_on_loopback() -> None:
    endpoint = HttpsEndpoint(SERVER)
    assert endpoint.host == "127.0.0.1"
    assert endpoint.policy == TlsPolicy()
    assert isinstance(ISSUED, x509.Certificate)
