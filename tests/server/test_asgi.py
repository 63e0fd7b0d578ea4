"""EST as an ASGI application: the protocol message by message, and under a real server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol import certs_only
from est_protocol.client_certificate_fields import encode_chain
from est_protocol.credentials import AnchorSet
from est_protocol.errors import RefusalReason
from est_protocol.messages import EstRequest, EstResponse, Pending, Transport
from est_protocol.operations import WELL_KNOWN_PATH, Operation
from est_protocol.secure_channel.context import TrustAnchors
from est_server import est_asgi
from est_server.cli import main
from est_server.https import HttpsLimits, ProxyTrust
from est_server.https.asgi import AsgiApplication, Message, Scope, est_asgi_application
from tests.pki import CLIENT_AUTH, make_ca, make_leaf
from tests.server.test_https import BODY, ISSUED, Clerk, issue

CA = make_ca("operational")
DEVICE = make_leaf(CA, "device", usage=CLIENT_AUTH)
FIELDS = encode_chain(DEVICE.chain)
TRUST = ProxyTrust(
    networks=(ip_network("127.0.0.0/8"),),
    anchors=TrustAnchors({AnchorSet.OPERATIONAL: [CA.certificate]}),
)
ENROLL = f"{WELL_KNOWN_PATH}/simpleenroll"


@dataclass
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def scope_of(path: str = ENROLL, method: str = "POST", **other: Any) -> Scope:
    """What an ASGI server says of a request that a proxy on loopback passed on."""
    fields = other.pop("fields", {"content-type": "application/pkcs10"})
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in fields.items()],
        "client": ("127.0.0.1", 4711),
        **other,
    }


async def ask(app: AsgiApplication, scope: Scope, *parts: bytes, vanishes: bool = False) -> Answer:
    """Play the ASGI server for one request with a body in ``parts``."""
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": vanishes or number < len(parts)}
        for number, part in enumerate(parts or (BODY,), 1 if parts else 0)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, body = sent
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    return Answer(start["status"], list(start["headers"]), body["body"])


async def test_a_request_from_a_proxy() -> None:
    clerk = Clerk(issue)
    app = est_asgi_application(clerk, proxies=TRUST)
    fields = {"content-type": "application/pkcs10", **FIELDS}
    answer = await ask(app, scope_of(fields=fields), BODY[:10], BODY[10:])
    assert answer.status == 200
    assert (b"content-type", b"application/pkcs7-mime; smime-type=certs-only") in answer.headers
    assert (b"content-length", str(len(answer.body)).encode()) in answer.headers
    assert certs_only.decode(base64.b64decode(answer.body)) == (ISSUED,)
    [(request, peer)] = clerk.requests
    assert request == EstRequest(
        Operation.SIMPLEENROLL, Transport.HTTPS, None, base64.decodebytes(BODY)
    )
    assert peer.chain == DEVICE.chain
    assert peer.is_verified
    assert peer.terminated_by


@pytest.mark.conformance("HTTP-21")
@pytest.mark.parametrize("client", [("192.0.2.1", 1), None])
async def test_a_request_from_nobody_who_is_trusted(client: tuple[str, int] | None) -> None:
    clerk = Clerk(issue)
    app = est_asgi_application(clerk, proxies=TRUST)
    plain = {"content-type": "application/pkcs10"}
    assert (await ask(app, scope_of(client=client, fields=plain))).status == 403
    assert (await ask(app, scope_of(client=client, fields=plain | FIELDS))).status == 400
    assert clerk.requests == []


@pytest.mark.conformance("HTTP-21")
async def test_an_address_that_the_client_may_have_made_up() -> None:
    """A server that believes X-Forwarded-For lets anybody be the proxy on loopback."""
    clerk = Clerk(issue)
    app = est_asgi_application(clerk, proxies=TRUST)
    fields = {"content-type": "application/pkcs10", **FIELDS}
    forged = fields | {"x-forwarded-for": "127.0.0.1, 192.0.2.1"}
    answer = await ask(app, scope_of(fields=forged))
    assert answer.status == 400
    assert b"X-Forwarded-For" in answer.body
    honest = fields | {"x-forwarded-for": "192.0.2.1"}
    assert (await ask(app, scope_of(fields=honest))).status == 200
    assert len(clerk.requests) == 1


def tls(**extension: Any) -> dict[str, Any]:
    return {"scheme": "https", "client": ("192.0.2.1", 1), "extensions": {"tls": extension}}


async def test_the_certificate_of_the_tls_extension() -> None:
    clerk = Clerk(issue)
    app = est_asgi_application(clerk, proxies=TRUST)
    pems = [c.public_bytes(Encoding.PEM).decode() for c in DEVICE.chain]
    for extension in (tls(client_cert_chain=pems, tls_version=0x0304), tls(client_cert_chain=[])):
        assert (await ask(app, scope_of(**extension))).status == 200
    (_, known), (_, unknown) = clerk.requests
    assert known.chain == DEVICE.chain
    assert (known.anchor_set, known.protocol) == (AnchorSet.OPERATIONAL, "TLSv1.3")
    assert known.channel_binding is None
    assert known.terminated_by
    assert unknown.chain == ()


@pytest.mark.parametrize(
    "chain", [["nonsense"], ["\u00e9"], ["-----BEGIN CERTIFICATE-----" + "A" * 40_000], [""] * 9]
)
async def test_a_tls_extension_that_does_not_decode(chain: list[str]) -> None:
    clerk = Clerk(issue)
    app = est_asgi_application(clerk, proxies=TRUST)
    assert (await ask(app, scope_of(**tls(client_cert_chain=chain)))).status == 400
    assert clerk.requests == []
    assert len(clerk.refusals) == 1


async def test_tls_of_which_the_server_tells_nothing() -> None:
    clerk = Clerk(issue)
    app = est_asgi_application(clerk, proxies=TRUST)
    assert (await ask(app, scope_of(scheme="https"))).status == 403
    public = scope_of(f"{WELL_KNOWN_PATH}/cacerts", "GET", scheme="https")
    assert (await ask(app, public)).status == 200


@pytest.mark.conformance("HTTP-04", "HTTP-07")
@pytest.mark.parametrize(
    ("path", "status", "label"),
    [
        ("/.well-known/est/simpleenroll", 200, None),
        ("/.well-known/est/a%20b%2Fc/simpleenroll", 200, "a b/c"),
        ("/.well-known/est/100%25/simpleenroll", 200, "100%"),
        ("/.well-known/est/cacerts", 405, None),
        ("/.well-known/est/nonsense", 404, None),
        ("/.well-known/est/", 404, None),
        ("/.well-known/est", 404, None),
        ("/.well-known/est//simpleenroll", 404, None),
        ("/.well-known/est/a/b/simpleenroll", 404, None),
        ("/.well-known/estsimpleenroll", 404, None),
        ("/simpleenroll", 404, None),
        ("/", 404, None),
    ],
)
async def test_paths(path: str, status: int, label: str | None) -> None:
    clerk = Clerk(issue)
    answer = await ask(est_asgi_application(clerk, proxies=TRUST), scope_of(path))
    assert answer.status == status
    assert [request.label for request, _ in clerk.requests] == ([label] if status == 200 else [])
    assert len(clerk.refusals) == (status != 200)


async def test_a_server_that_does_not_tell_the_path_as_it_was_sent() -> None:
    clerk = Clerk(issue)
    scope = scope_of("/.well-known/est/100%/simpleenroll")
    del scope["raw_path"]
    assert (await ask(est_asgi_application(clerk, proxies=TRUST), scope)).status == 200
    assert clerk.requests[0][0].label == "100%"


@pytest.mark.conformance("HTTP-17")
async def test_bounds() -> None:
    clerk = Clerk(issue)
    limits = HttpsLimits(body_size=100, body_timeout=0.02)
    app = est_asgi_application(clerk, limits, TRUST)
    answer = await ask(app, scope_of(), b"A" * 60, b"A" * 60)
    assert answer.status == 413
    assert (b"connection", b"close") in answer.headers
    announced = {"content-type": "application/pkcs10", "content-length": "101"}
    assert (await ask(app, scope_of(fields=announced), b"A")).status == 413
    assert (await ask(app, scope_of(), b"AAAA", vanishes=True)).status == 400
    assert [reason for reason, *_ in clerk.refusals] == [
        RefusalReason.BODY_TOO_LARGE,
        RefusalReason.BODY_TOO_LARGE,
        RefusalReason.MALFORMED_REQUEST,
    ]
    assert clerk.requests == []


@pytest.mark.conformance("HTTP-17")
async def test_a_body_that_never_comes() -> None:
    app = est_asgi_application(Clerk(issue), HttpsLimits(body_timeout=0.02), TRUST)
    statuses: list[int] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 0))

    await app(scope_of(), receive, send)
    assert statuses[0] == 408


async def test_answers_of_other_kinds() -> None:
    async def pending(request: EstRequest) -> EstResponse:
        return Pending(retry_after=7)

    answer = await ask(est_asgi_application(Clerk(pending), proxies=TRUST), scope_of())
    assert answer.status == 202
    assert (b"retry-after", b"7") in answer.headers


async def test_nothing_but_http() -> None:
    async def never(*_: object) -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match="websocket"):
        await est_asgi_application(Clerk(issue))({"type": "websocket"}, never, never)


# -- under a real server ------------------------------------------------------------------------


@asynccontextmanager
async def under_uvicorn(app: AsgiApplication) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, port=0, proxy_headers=False, server_header=False, log_config=None, lifespan="on"
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    try:
        while not server.started:
            assert not running.done()
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def test_under_uvicorn() -> None:
    clerk = Clerk(issue)
    async with under_uvicorn(est_asgi_application(clerk, proxies=TRUST)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [
            f"POST {ENROLL} HTTP/1.1",
            "Host: localhost",
            "Connection: close",
            "Content-Type: application/pkcs10",
            f"Content-Length: {len(BODY)}",
            *(f"{name}: {value}" for name, value in FIELDS.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + BODY)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"server:" not in answer.lower()
    assert [peer.chain for _, peer in clerk.requests] == [DEVICE.chain]


async def test_a_configuration_lives_as_long_as_the_server(tmp_path: Path) -> None:
    folder = tmp_path / "est"
    assert await asyncio.to_thread(main, ["init", str(folder)]) == 0
    app = est_asgi(folder / "est-server.toml")
    public = scope_of(f"{WELL_KNOWN_PATH}/cacerts", "GET", scheme="https")
    with pytest.raises(RuntimeError, match="lifespan"):
        await ask(app, public)
    async with under_uvicorn(app):
        assert (await ask(app, public)).status == 200


async def test_a_configuration_that_is_not_usable_keeps_the_server_from_starting(
    tmp_path: Path,
) -> None:
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        said.append(message)

    await est_asgi(tmp_path / "none.toml")({"type": "lifespan"}, receive, send)
    [failure] = said
    assert failure["type"] == "lifespan.startup.failed"
    assert "none.toml" in failure["message"]
