"""EST over HTTPS for the client: one TLS connection, and the requests that travel over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace
from yarl import URL

from est_client.http_answers import (
    DEFAULT_RETRY_AFTER,
    parse_retry_after,
    printable,
    reason_phrase,
)
from est_client.http_path import http_path
from est_client.redirects import Origin, Redirected, Target, target_of
from est_client.server_identity import server_name
from est_protocol import base64_body, certs_only, key_delivery
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ChannelClosed, ConfigurationError, MessageError, ServerRefused
from est_protocol.http_authentication import format_credentials
from est_protocol.media_types import MediaType
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    Pending,
    Transport,
)
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, tls_context
from est_protocol.secure_channel.policy import TlsPolicy
from est_protocol.secure_channel.stream import (
    PEER_CLOSED,
    PEER_CREDENTIALS,
    StreamLimits,
    TlsTransport,
)
from est_protocol.secure_channel.tcp import StreamConnector, tcp_connection
from est_protocol.secure_channel.tls_endpoints import connect_tls


@dataclass(frozen=True, slots=True)
class HttpsClientLimits:
    """The bounds of one HTTPS connection of a client.

    :param answer_size: octets of a successful answer at most, base64 as it is.
    :param error_size: octets of an error's text that are read at most.
    :param header_line_size: octets of one header field at most.
    :param header_count: header fields at most.
    :param shutdown_timeout: seconds for the server to end its side when the connection is closed.
    """

    answer_size: int = 512 * 1024
    error_size: int = 4096
    header_line_size: int = 8190
    header_count: int = 64
    shutdown_timeout: float = 2.0


DEFAULT_HTTPS_CLIENT_LIMITS = HttpsClientLimits()


def _now() -> datetime:
    return datetime.now(UTC)


class HttpsConnector:
    """Makes TLS connections to one EST server; an :class:`est_client.connection.Connector`.

    :param host: DNS name, or IP address literal without brackets.
    :param port: TCP port.
    :param policy: versions, suites, groups.
    :param timeout: seconds for the TCP connection, for the handshake, and for each answer.
    :param limits: the other bounds.
    :param now: the current time, timezone-aware; turns a Retry-After date into seconds.
    :param open_stream: opens the TCP connection.
    :raises ConfigurationError: host or port cannot be.
    """

    transport = Transport.HTTPS

    def __init__(
        self,
        host: str,
        port: int = 443,
        *,
        policy: TlsPolicy | None = None,
        timeout: float = 30.0,
        limits: HttpsClientLimits = DEFAULT_HTTPS_CLIENT_LIMITS,
        now: Callable[[], datetime] = _now,
        open_stream: StreamConnector = tcp_connection,
    ) -> None:
        try:
            self._origin = URL.build(scheme="https", host=host, port=port)
        except ValueError as error:
            raise ConfigurationError(f"{host!r} cannot be a host: {error}") from error
        if not 0 < port < 65536:
            raise ConfigurationError(f"{port} cannot be a port")
        self.host = host
        self._port = port
        self._home = self._here = Origin.of(host, port)
        self._policy = policy or TlsPolicy()
        self._timeout = timeout
        self._limits = limits
        self._now = now
        self._open_stream = open_stream

    def redirected(self, status: int, target: Target) -> Redirected:
        """The redirect to ``target``, with the connector to follow it by."""
        connector = self
        if target.origin != self._here:
            connector = HttpsConnector(
                target.origin.host,
                target.origin.port,
                policy=self._policy,
                timeout=self._timeout,
                limits=self._limits,
                now=self._now,
                open_stream=self._open_stream,
            )
            connector._home = self._home
        home = target.origin == self._home
        return Redirected(status, target, connector=connector, home=home)

    async def connect(
        self,
        *,
        credentials: LocalCredentials | None,
        anchors: TrustAnchors,
        require_trust: bool = True,
    ) -> HttpsConnection:
        """Open a channel; see :meth:`est_client.connection.Connector.connect`."""
        context = tls_context(
            self._policy,
            server=False,
            credentials=credentials,
            anchors=anchors,
            require_trust=require_trust,
        )
        loop = asyncio.get_running_loop()
        transport, protocol = await connect_tls(
            lambda: ResponseHandler(loop),
            self.host,
            self._port,
            context=context,
            anchors=anchors,
            server_name=server_name(self._origin.raw_host or self.host),
            limits=StreamLimits(
                handshake_timeout=self._timeout,
                write_timeout=self._timeout,
                shutdown_timeout=self._limits.shutdown_timeout,
            ),
            connect_timeout=self._timeout,
            connect=self._open_stream,
        )
        return HttpsConnection(
            transport,
            protocol,
            self._origin,
            timeout=self._timeout,
            limits=self._limits,
            now=self._now,
            redirected=self.redirected,
        )


class HttpsConnection:
    """One TLS connection to an EST server; an :class:`est_client.connection.EstConnection`.

    Made by :meth:`HttpsConnector.connect`. It keeps no cookies; redirects, which it raises, and
    HTTP authentication are its caller's to answer.
    """

    def __init__(
        self,
        transport: TlsTransport,
        protocol: ResponseHandler,
        origin: URL,
        *,
        timeout: float,
        limits: HttpsClientLimits,
        now: Callable[[], datetime],
        redirected: Callable[[int, Target], Redirected],
    ) -> None:
        server = transport.get_extra_info(PEER_CREDENTIALS)
        assert isinstance(server, PeerCredentials)
        self.server = server
        self._transport = transport
        self._origin = origin
        self._timeout = timeout
        self._limits = limits
        self._now = now
        self._redirected = redirected
        self._session = aiohttp.ClientSession(
            connector=_OneConnection(protocol),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            max_line_size=limits.header_line_size,
            max_field_size=limits.header_line_size,
            max_headers=limits.header_count,
        )

    async def request(self, request: EstRequest) -> EstResponse:
        """Send one request; see :meth:`est_client.connection.EstConnection.request`.

        :raises ConfigurationError: the label cannot stand in a path.
        :raises Redirected: the server redirects it.
        """
        url = self._url(request.path or http_path(request.operation, request.label))
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(request, url)
        except TimeoutError as error:
            self._transport.abort()
            raise ChannelClosed(f"no complete answer within {self._timeout:g} s") from error
        except asyncio.CancelledError:
            # Half an answer may still come; no other request may meet it.
            self._transport.abort()
            raise
        except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
            self._transport.abort()
            raise MessageError(
                f"the server's answer is not HTTP: {printable(str(error))}"
            ) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            self._transport.abort()
            why = printable(str(error))
            raise ChannelClosed(f"the connection ended before the answer: {why}") from error

    def _url(self, path: str) -> URL:
        path, _, query = path.partition("?")
        host, port = self._origin.raw_host or "", self._origin.port
        return URL.build(
            scheme="https", host=host, port=port, path=path, query_string=query, encoded=True
        )

    async def close(self) -> None:
        """Close the channel with a close_notify; does nothing the second time."""
        await self._session.close()
        self._transport.close()
        await self._transport.wait_closed()

    async def _exchange(self, request: EstRequest, url: URL) -> EstResponse:
        headers, body = {}, None
        if request.operation.request_type is not None:
            headers["Content-Type"] = str(request.operation.request_type)
            body = base64_body.encode(request.body)
        if request.http_credentials is not None:
            headers["Authorization"] = format_credentials(request.http_credentials)
        async with self._session.request(
            request.operation.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            if answer.status == 200:
                return self._success(request.operation, answer, await self._body(answer))
            if answer.status == 204 and request.operation is Operation.CSRATTRS:
                return CsrAttributesResponse(None)
            locations = answer.headers.getall("Location", [])
            target = target_of(answer.status, request.operation, locations, url)
            if target is not None:
                raise self._redirected(answer.status, target)
            text = await self._error_text(answer)
            retry_after = parse_retry_after(answer.headers.get("Retry-After"), now=self._now())
            if answer.status == 202:
                return Pending(DEFAULT_RETRY_AFTER if retry_after is None else retry_after)
            asked = answer.headers.getall("WWW-Authenticate", []) if answer.status == 401 else []
            raise ServerRefused(
                str(answer.status), text, retry_after=retry_after, challenges=tuple(asked)
            )

    def _success(
        self, operation: Operation, answer: aiohttp.ClientResponse, body: bytes
    ) -> EstResponse:
        media_type = _require_media_type(operation, answer)
        if operation is Operation.SERVERKEYGEN:
            return key_delivery.from_multipart_mixed(media_type, body)
        if operation is Operation.CSRATTRS:
            # libest's estserver sends the NUL too that ends its text in memory.
            return CsrAttributesResponse(base64_body.decode(body.removesuffix(b"\0")))
        return CertificatesResponse(certs_only.decode(base64_body.decode(body)))

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        body, complete = await _read(answer, self._limits.answer_size)
        if not complete:
            raise MessageError(f"the answer is larger than {self._limits.answer_size} octets")
        delimited = "Content-Length" in answer.headers or "Transfer-Encoding" in answer.headers
        if not delimited and not self._transport.get_extra_info(PEER_CLOSED):
            # Only close_notify tells the end of such an answer from an attacker's cut.
            raise MessageError("the answer has no Content-Length, and its end is not certain")
        return body

    async def _error_text(self, answer: aiohttp.ClientResponse) -> str:
        """What to tell a person; the body of an error is never parsed as anything."""
        location = answer.headers.get("Location")
        if 300 <= answer.status < 400 and location is not None:
            return printable(f"redirected to {location}, which cannot be followed")
        body, _ = await _read(answer, self._limits.error_size)
        kind = MediaType.parse(answer.headers.get("Content-Type", "text/plain")).name
        return (printable(body) if kind == "text/plain" else "") or reason_phrase(answer.status)


class _OneConnection(aiohttp.BaseConnector):
    """Gives aiohttp the connection that is there, and never another one."""

    def __init__(self, protocol: ResponseHandler) -> None:
        # No time-out in the pool: an idle connection is the server's to end.
        super().__init__(limit=1, keepalive_timeout=None)
        self._protocol: ResponseHandler | None = protocol

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        protocol, self._protocol = self._protocol, None
        if protocol is None or not protocol.is_connected():
            raise aiohttp.ClientConnectionError("the channel is closed")
        return protocol


async def _read(answer: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """At most ``limit`` octets of the body, and whether that is all of it."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > limit:
            answer.close()
            return bytes(body[:limit]), False
    return bytes(body), True


def _require_media_type(operation: Operation, answer: aiohttp.ClientResponse) -> MediaType:
    """Compare the type; smime-type only where it is given, for many servers leave it out."""
    expected = operation.response_type
    header = answer.headers.get("Content-Type", "")
    actual = MediaType.parse(header)
    smime_type = actual.parameters.get("smime-type", "certs-only").lower()
    if actual.name != expected.name or smime_type != "certs-only":
        raise MessageError(
            f"the answer to /{operation.path_segment} is {printable(header)!r}, "
            f"not {str(expected)!r}"
        )
    return actual
