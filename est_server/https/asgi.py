"""EST as an ASGI 3 application; what it does is in :mod:`.translation`.

The client's certificate comes from the server's TLS extension (ASGI's ``tls``) where it has one,
or from a TLS-terminating proxy (RFC 9440). ASGI knows no channel binding, so that requests cannot
be linked to the channel unless a proxy conveys one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from cryptography import x509

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import MessageError
from est_protocol.secure_channel.chain_verification import verify_client_chain
from est_protocol.secure_channel.stream import format_address
from est_protocol.x509_decoding import check_names_and_key, decoding_x509
from est_server.https.limits import DEFAULT_HTTPS_LIMITS, HttpsLimits
from est_server.https.peers import NO_PROXIES, Connection, ProxyTrust
from est_server.https.translation import HttpAnswer, HttpRequest, HttpTranslation, segments_below
from est_server.interfaces import HttpResponder

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Names of TLS versions by their numbers on the wire (RFC 8446 section 4.2.1).
_TLS_VERSIONS = {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}


def est_asgi_application(
    service: HttpResponder,
    limits: HttpsLimits = DEFAULT_HTTPS_LIMITS,
    proxies: ProxyTrust = NO_PROXIES,
) -> AsgiApplication:
    """EST as an ASGI application that answers all below ``/.well-known/est``.

    The server has to leave ``scope["client"]`` as it is: one that takes it from X-Forwarded-For,
    such as uvicorn with ``proxy_headers``, would let clients say that they are proxies.

    :param service: answers the requests.
    :param limits: ``body_size``, ``body_timeout`` and ``retry_after`` apply. The rest is the
        ASGI server's to bound.
    :param proxies: TLS-terminating proxies that are believed; where the chains of clients may end
        is taken from ``proxies.anchors`` for the TLS extension, too.
    """
    translation = HttpTranslation(service, limits, proxies)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            try:
                connection = _connection(scope, proxies)
            except MessageError as error:
                connection = Connection(None, _address(scope), defect=str(error))
            answer = await translation.answer(_request(scope, receive, connection))
            await _send(answer, send)
        else:
            raise ValueError(f"EST is not spoken over {scope['type']!r}")

    return application


async def _live(receive: Receive, send: Send) -> None:
    """Take part in the server's start and stop, which ask for nothing here."""
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _request(scope: Scope, receive: Receive, connection: Connection) -> HttpRequest:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    path = _raw_path(scope)
    query = scope.get("query_string", b"").decode("latin-1")
    return HttpRequest(
        scope["method"],
        f"{path}?{query}" if query else path,
        tuple(map(unquote, segments_below(path))),
        headers,
        connection,
        lambda: _body(receive),
    )


def _raw_path(scope: Scope) -> str:
    """The path as it was sent, as far as the server tells."""
    raw: bytes | None = scope.get("raw_path")
    return quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise MessageError("the connection ended within the body")
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _connection(scope: Scope, proxies: ProxyTrust) -> Connection:
    """What the request came over.

    :raises MessageError: the client's chain does not decode, or the address is not believable.
    """
    client = scope.get("client")
    host = str(client[0]) if client else None
    if host is not None:
        _require_own_address(scope, host)
    tls = (scope.get("extensions") or {}).get("tls")
    return Connection(
        host,
        _address(scope),
        channel=None if tls is None else _channel(tls, _address(scope), proxies),
        over_tls=tls is not None or scope.get("scheme") == "https",
    )


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return format_address(tuple(client)) if client else "unix"


def _require_own_address(scope: Scope, host: str) -> None:
    """Refuse an address that the ASGI server took from what the client says of itself."""
    for name, value in scope["headers"]:
        if name.lower() == b"x-forwarded-for":
            claimed = [item.strip() for item in value.decode("latin-1").split(",")]
            if host in claimed:
                raise MessageError(
                    "the ASGI server seems to take the client's address from X-Forwarded-For; "
                    "switch that off (uvicorn: proxy_headers=False)"
                )


def _channel(tls: Message, address: str, proxies: ProxyTrust) -> PeerCredentials:
    """The peer that the ASGI server's TLS extension tells of."""
    chain: list[x509.Certificate] = []
    pems = list(tls.get("client_cert_chain") or ())
    if len(pems) > proxies.longest_chain:
        raise MessageError(f"the client's chain has more than {proxies.longest_chain} certificates")
    for pem in pems:
        with decoding_x509("a certificate of the client's chain"):
            if len(pem) > 2 * proxies.largest_certificate:
                raise ValueError("it is too large")
            chain.append(x509.load_pem_x509_certificate(pem.encode("ascii")))
            check_names_and_key(chain[-1])
    peer = PeerCredentials(
        protocol=_TLS_VERSIONS.get(tls.get("tls_version") or 0, ""),
        address=address,
        terminated_by="ASGI server",
    )
    if not chain:
        return peer
    anchor_set, failures = verify_client_chain(chain, proxies.anchors, now=datetime.now(UTC))
    return replace(peer, chain=tuple(chain), anchor_set=anchor_set, failures=failures)


async def _send(answer: HttpAnswer, send: Send) -> None:
    headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in answer.headers]
    body = answer.body
    if body is not None:
        headers.append((b"content-length", str(len(body)).encode()))
    if answer.close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
    await send({"type": "http.response.body", "body": body or b""})
