"""HTTP/1.1 as EST alone is served: what two readers could understand differently, what never ends,
and what comes in another order than usual."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from est_protocol.errors import RefusalReason
from est_protocol.messages import CertificatesResponse, EstRequest, EstResponse
from est_protocol.operations import WELL_KNOWN_PATH
from est_server.https import EstSite, HttpsEndpoint, HttpsLimits, HttpsServer, serve
from est_server.https.answers import encode
from est_server.https.translation import HttpAnswer
from tests.foreign_tls import HOST, client_context, exchange
from tests.server.test_https import ANCHORS, BODY, ISSUED, SERVER, Clerk, issue, parse

ENROLL = f"POST {WELL_KNOWN_PATH}/simpleenroll HTTP/1.1\r\n".encode()
GET = f"GET {WELL_KNOWN_PATH}/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
#: Ends connections soon that a request left open.
IMPATIENT = HttpsLimits(idle_timeout=0.05, linger_timeout=0.05, header_timeout=0.5)


async def started(clerk: Clerk, limits: HttpsLimits = IMPATIENT) -> HttpsServer:
    return await serve(
        EstSite(clerk, limits), HttpsEndpoint(SERVER, ANCHORS, port=0, limits=limits)
    )


def enrolling(*fields: bytes, body: bytes = BODY) -> bytes:
    head = b"Host: localhost\r\nContent-Type: application/pkcs10\r\n"
    return ENROLL + head + b"".join(fields) + b"\r\n" + body


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def statuses(octets: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", octets)]


# --- what two readers could understand differently ---------------------------------------------


@pytest.mark.conformance("HTTP-17")
@pytest.mark.parametrize(
    "request_",
    [
        enrolling(LENGTH, CHUNKED, body=chunks(BODY)),
        enrolling(CHUNKED, LENGTH, body=chunks(BODY)),
        enrolling(CHUNKED, b"Content-Length: 0\r\n", body=chunks(BODY)),
        enrolling(LENGTH, b"Content-Length: 3\r\n"),
        enrolling(LENGTH, LENGTH),
        enrolling(b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY))),
        enrolling(b"Content-Length: +%d\r\n" % len(BODY)),
        enrolling(b"Content-Length: -1\r\n"),
        enrolling(b"Content-Length: 0x10\r\n"),
        enrolling(b"Content-Length: 1 0\r\n"),
        enrolling(b"Content-Length: 99999999999999999999999999\r\n"),
        enrolling(b"Transfer-Encoding: chunked, identity\r\n", body=chunks(BODY)),
        enrolling(b"Transfer-Encoding: identity\r\n", LENGTH),
        enrolling(b"Transfer-Encoding: xchunked\r\n", body=chunks(BODY)),
        enrolling(CHUNKED, CHUNKED, body=chunks(BODY)),
        enrolling(b"Transfer-Encoding : chunked\r\n", body=chunks(BODY)),
        enrolling(b"Transfer-Encoding:\r\n chunked\r\n", body=chunks(BODY)),
        enrolling(b"Transfer-Encoding: chunked\x00\r\n", body=chunks(BODY)),
        enrolling(b"X: folded\r\n over lines\r\n", LENGTH),
        enrolling(b" X: begins with a space\r\n", LENGTH),
        enrolling(b"X\r\n", LENGTH),
        enrolling(b": nameless\r\n", LENGTH),
        enrolling(b"X: a\rb\r\n", LENGTH),
        enrolling(b"X: a\nY: b\r\n", LENGTH),
        enrolling(b"Host: elsewhere\r\n", LENGTH),
        enrolling(LENGTH).replace(b"Host: localhost\r\n", b""),
        enrolling(LENGTH).replace(b"\r\n", b"\n"),
        enrolling(LENGTH).replace(b"HTTP/1.1", b"HTTP/1.1 "),
        enrolling(LENGTH).replace(b"HTTP/1.1", b"HTTP/1.2"),
        enrolling(LENGTH).replace(b"HTTP/1.1", b"http/1.1"),
        enrolling(LENGTH).replace(b"POST ", b"post "),
        enrolling(LENGTH).replace(b"POST ", b"\x16\x03\x01"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        GET.partition(b" HTTP")[0] + b"\r\n\r\n",
        GET.replace(b"HTTP/1.1", b"HTTP/0.9"),
        GET.replace(b"HTTP/1.1", b"HTTP/2.0"),
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_what_is_ambiguous_is_malformed(request_: bytes) -> None:
    """Nothing of it reaches the service, and what follows it is not taken for a request."""
    clerk = Clerk(issue)
    async with await started(clerk) as server:
        octets = await exchange(server.port, request_ + LAST)
        assert statuses(octets) == [400]
        assert statuses(await exchange(server.port, LAST)) == [200]
    assert [request.body for request, _ in clerk.requests] == [b""]


@pytest.mark.parametrize(
    "body",
    [
        b"g\r\nAAAA\r\n0\r\n\r\n",
        b"-4\r\nAAAA\r\n0\r\n\r\n",
        b"0x4\r\nAAAA\r\n0\r\n\r\n",
        b" 4\r\nAAAA\r\n0\r\n\r\n",
        b"4 \r\nAAAA\r\n0\r\n\r\n",
        b"4\nAAAA\n0\n\n",
        b"4\r\nAAAAA\r\n0\r\n\r\n",
        b"4\r\nAAAA0\r\n\r\n",
        b"4;\x00\r\nAAAA\r\n0\r\n\r\n",
        b"\r\nAAAA\r\n0\r\n\r\n",
        b"fffffffffffffffffff\r\nAAAA\r\n0\r\n\r\n",
        b"4\r\nAAAA\r\n0\r\nX\r\n\r\n",
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["together", "after the header"])
async def test_a_broken_transfer_coding(body: bytes, together: bool) -> None:
    clerk = Clerk(issue)
    async with await started(clerk) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port, ssl=client_context())
        if together:
            writer.write(enrolling(CHUNKED, body=body) + LAST)
        else:
            writer.write(enrolling(CHUNKED, b"Expect: 100-continue\r\n", body=b""))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body + LAST)
        assert statuses(await reader.read()) == [400]
        writer.close()
        await writer.wait_closed()
    assert clerk.requests == []
    malformed = [] if together else [RefusalReason.MALFORMED_REQUEST]
    assert [reason for reason, *_ in clerk.refusals] == malformed


# --- what never ends ---------------------------------------------------------------------------


@pytest.mark.conformance("HTTP-17")
@pytest.mark.parametrize(
    "fields",
    [
        b"".join(b"X%d: x\r\n" % n for n in range(65)),
        b"X: " + b"x" * 8191 + b"\r\n",
        b"X" * 8191 + b": x\r\n",
        b"X" * 100_000,
        b"X: " + b"x" * 100_000,
    ],
    ids=["many", "long value", "long name", "a name without end", "a value without end"],
)
async def test_headers_without_end(fields: bytes) -> None:
    clerk = Clerk(issue)
    async with await started(clerk) as server:
        assert statuses(await exchange(server.port, enrolling(fields, LENGTH))) == [400]
        assert statuses(await exchange(server.port, b"GET /" + b"x" * 100_000)) == [400]
    assert clerk.requests == []


async def test_trailers_without_end() -> None:
    trailers = b"".join(b"X%d: x\r\n" % n for n in range(100))
    clerk = Clerk(issue)
    async with await started(clerk) as server:
        body = chunks(BODY).removesuffix(b"\r\n") + trailers + b"\r\n"
        assert statuses(await exchange(server.port, enrolling(CHUNKED, body=body))) == [400]
    assert clerk.requests == []


async def test_trailers_are_no_header_fields() -> None:
    clerk = Clerk(issue)
    body = chunks(BODY).removesuffix(b"\r\n") + b"Content-Type: text/plain\r\n\r\n"
    async with await started(clerk) as server:
        assert statuses(await exchange(server.port, enrolling(CHUNKED, body=body) + LAST)) == [
            200,
            200,
        ]


@pytest.mark.conformance("HTTP-17")
async def test_a_body_without_end_in_chunks_of_one_octet() -> None:
    clerk = Clerk(issue)
    limits = HttpsLimits(body_size=1000, idle_timeout=0.05, linger_timeout=0.05)
    async with await started(clerk, limits) as server:
        octets = await exchange(server.port, enrolling(CHUNKED, body=b"1\r\nA\r\n" * 20_000))
    assert parse(octets).status == 413
    assert clerk.requests == []


async def test_a_body_that_nobody_wants_is_dropped_and_the_connection_goes_on() -> None:
    clerk = Clerk(issue)
    unwanted = b"X" * 300_000
    limits = HttpsLimits(idle_timeout=0.05)
    request = enrolling(b"Content-Length: %d\r\n" % len(unwanted), body=unwanted)
    async with await started(clerk, limits) as server:
        octets = await exchange(server.port, request.replace(b"POST", b"PUT") + LAST)
    assert statuses(octets) == [405, 200]


async def test_the_rest_of_a_body_that_nobody_wants_is_not_waited_for() -> None:
    clerk = Clerk(issue)
    request = enrolling(b"Content-Length: 100000\r\n").replace(b"POST", b"PUT")
    async with await started(clerk) as server:
        assert statuses(await exchange(server.port, request)) == [405]


async def test_answers_that_nobody_reads_are_not_piled_up() -> None:
    async def much(request: EstRequest) -> EstResponse:
        return CertificatesResponse((ISSUED,) * 32)

    clerk = Clerk(much)
    asked = 3000
    async with await started(clerk, HttpsLimits(write_timeout=0.1)) as server:
        _, writer = await asyncio.open_connection(HOST, server.port, ssl=client_context())
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        writer.write(GET * asked)
        while server.connections:  # noqa: ASYNC110 - the server tells nobody of it
            await asyncio.sleep(0.01)
        writer.transport.abort()
    assert 0 < len(clerk.requests) < asked


# --- one after the other -----------------------------------------------------------------------


class Waiting:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go_on, self.answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.requests = 0

    async def __call__(self, request: EstRequest) -> EstResponse:
        self.requests += 1
        self.asked.set()
        await self.go_on.wait()
        self.answered.set()
        return CertificatesResponse((ISSUED,))


async def test_a_request_is_answered_before_the_next_one_is_looked_at() -> None:
    waiting = Waiting()
    clerk = Clerk(waiting)
    async with await started(clerk) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port, ssl=client_context())
        writer.write(GET)
        await waiting.asked.wait()
        for octet in enrolling(LENGTH) + GET + LAST:
            writer.write(bytes([octet]))
        # Another connection is served, so that these octets have had their time.
        other = asyncio.create_task(exchange(server.port, LAST.replace(b"GET", b"PUT")))
        assert statuses(await other) == [405]
        assert waiting.requests == 1
        waiting.go_on.set()
        assert statuses(await reader.read()) == [200, 200, 200, 200]
        writer.close()
        await writer.wait_closed()
    assert [bool(request.body) for request, _ in clerk.requests] == [False, True, False, False]


async def test_what_follows_the_last_request_is_dropped() -> None:
    clerk = Clerk(issue)
    async with await started(clerk) as server:
        assert statuses(await exchange(server.port, LAST + GET)) == [200]
    assert len(clerk.requests) == 1


async def test_a_request_octet_by_octet() -> None:
    clerk = Clerk(issue)
    async with await started(clerk) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port, ssl=client_context())
        for octet in enrolling(CHUNKED, body=chunks(BODY[:5], BODY[5:])) + LAST:
            writer.write(bytes([octet]))
            await asyncio.sleep(0)
        assert statuses(await reader.read()) == [200, 200]
        writer.close()
        await writer.wait_closed()
    assert clerk.requests[0][0].body


async def test_who_goes_away_while_the_answer_is_made_is_decided_about_all_the_same() -> None:
    waiting = Waiting()
    async with await started(Clerk(waiting)) as server:
        _, writer = await asyncio.open_connection(HOST, server.port, ssl=client_context())
        writer.write(GET)
        await waiting.asked.wait()
        writer.transport.abort()
        assert statuses(await exchange(server.port, LAST.replace(b"GET", b"PUT"))) == [405]
        waiting.go_on.set()
        await waiting.answered.wait()


# --- other forms -------------------------------------------------------------------------------


async def test_http_1_0_is_answered_and_ended() -> None:
    clerk = Clerk(issue)
    request = f"GET {WELL_KNOWN_PATH}/cacerts HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode()
    async with await started(clerk) as server:
        answer = parse(await exchange(server.port, request + request))
    assert (answer.status, answer.headers["Connection"]) == (200, "close")


async def test_head_gets_no_body() -> None:
    async with await started(Clerk(issue)) as server:
        octets = await exchange(server.port, GET.replace(b"GET", b"HEAD") + LAST)
    first, _, rest = octets.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 405 ")
    assert rest.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (f"GET https://localhost{WELL_KNOWN_PATH}/cacerts HTTP/1.1", 200),
        (f"GET {WELL_KNOWN_PATH}/cacerts?what=ever HTTP/1.1", 200),
        (f"GET {WELL_KNOWN_PATH}/cacerts/ HTTP/1.1", 404),
        (f"GET {WELL_KNOWN_PATH}//cacerts HTTP/1.1", 404),
        (f"GET /x{WELL_KNOWN_PATH}/cacerts HTTP/1.1", 404),
        (f"GET /x/..{WELL_KNOWN_PATH}/cacerts HTTP/1.1", 404),
        ("GET / HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 404),
        ("CONNECT localhost:443 HTTP/1.1", 404),
    ],
)
async def test_forms_of_the_target(line: str, status: int) -> None:
    async with await started(Clerk(issue)) as server:
        octets = await exchange(server.port, f"{line}\r\nHost: localhost\r\n\r\n".encode())
    assert parse(octets).status == status


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.2"])
async def test_no_other_protocol_is_spoken_from_there_on(protocol: str) -> None:
    clerk = Clerk(issue)
    upgrade = f"\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n".encode()
    async with await started(clerk) as server:
        answer = parse(await exchange(server.port, GET.replace(b"\r\n\r\n", upgrade) + GET))
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    assert len(clerk.requests) == 1


# --- answers -----------------------------------------------------------------------------------


async def test_an_error_of_ours_is_500_and_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(request: EstRequest) -> EstResponse:
        raise RuntimeError("a bug")

    async with await started(Clerk(fail)) as server:
        answer = parse(await exchange(server.port, GET + GET))
    assert (answer.status, answer.body) == (500, b"internal error\n")
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None


def test_no_header_field_becomes_two() -> None:
    for value in ("a\r\nX: b", "a\nX: b", "a\rX: b"):
        with pytest.raises(ValueError, match="line end"):
            encode(HttpAnswer(200, b"", [("X", value)]), to_head=False, close=False)


async def test_answers_have_a_date() -> None:
    async with await started(Clerk(issue)) as server:
        answer = parse(await exchange(server.port, LAST))
    assert answer.headers["Date"].endswith(" GMT")


async def test_the_access_log_has_a_line_per_request(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("access")
    endpoint = HttpsEndpoint(SERVER, ANCHORS, port=0, limits=IMPATIENT, access_log=log)
    with caplog.at_level(logging.INFO, "access"):
        async with await serve(EstSite(Clerk(issue)), endpoint) as server:
            await exchange(server.port, GET + LAST)
    lines = [record.getMessage() for record in caplog.records if record.name == "access"]
    assert [line.partition(" ")[2] for line in lines] == [
        f'"GET {WELL_KNOWN_PATH}/cacerts" 200'
    ] * 2
