"""What is served over plain HTTP: to all, what is public and signed, such as CRLs;
to TLS-terminating proxies, what they pass on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from est_protocol.secure_channel.stream import format_address
from est_protocol.secure_channel.tcp import (
    StreamListener,
    StreamListenerFactory,
    tcp_listener,
    unix_listener,
)
from est_server.https.connections import HttpConnection, RunningHttp
from est_server.https.limits import HttpsLimits
from est_server.https.peer_errors import PeerErrorsInOneLine
from est_server.https.starting import Servable, start

_log = logging.getLogger("est_server.http")
_log.addFilter(PeerErrorsInOneLine())

#: TCP connections that may wait to be accepted.
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class PlainHttpLimits:
    """The bounds of a plain HTTP server. Times are in seconds, sizes in octets.

    :param max_connections: TCP connections at one time. One more ends the oldest that waits for
        its client; while all are working it is reset.
    :param header_timeout: for the header of a request.
    :param body_timeout: for the body of a request, which nobody wants, to arrive.
    :param idle_timeout: between the answer to one request and the header of the next.
    :param write_timeout: for which an answer may wait because the client does not read.
    :param linger_timeout: for which the rest of an unwanted body is read and dropped.
    :param drain_timeout: for the requests under way when the server is asked to stop.
    :param header_line_size: a longer request line or header field is answered with 400.
    :param header_count: more header fields are answered with 400.
    """

    max_connections: int = 500
    header_timeout: float = 5.0
    body_timeout: float = 5.0
    idle_timeout: float = 10.0
    write_timeout: float = 20.0
    linger_timeout: float = 2.0
    drain_timeout: float = 5.0
    header_line_size: int = 4096
    header_count: int = 32


@dataclass(frozen=True, slots=True)
class PlainHttpEndpoint:
    """Where and how to serve plain HTTP.

    :param host: the address to listen on; loopback unless told otherwise, ``None`` for all.
    :param port: 0 for any free one.
    :param limits: every bound.
    :param reuse_port: let several processes listen on the port.
    :param unix_socket: a Unix socket to listen on in place of ``host`` and ``port``, for this
        user and group.
    :param open_listener: opens the listening socket; by default according to the above.
    """

    host: str | None = "127.0.0.1"
    port: int = 8080
    limits: PlainHttpLimits | HttpsLimits = field(default_factory=PlainHttpLimits)
    reuse_port: bool = False
    unix_socket: Path | None = None
    open_listener: StreamListenerFactory | None = None


class PlainHttpApplication:
    """An application with the bounds to serve it by. Made by :func:`prepare_plain`."""

    def __init__(self, http: RunningHttp, limits: PlainHttpLimits | HttpsLimits) -> None:
        self.http = http
        self.limits = limits

    async def close(self) -> None:
        """Finish what is under way within bounds, and end the connections."""
        await self.http.close()


class RetiredPlainHttp:
    """The connections that began before a :class:`PlainHttpServer` was renewed."""

    def __init__(self, application: PlainHttpApplication, connections: _Connections) -> None:
        self._application = application
        self._connections = connections

    @property
    def in_use(self) -> bool:
        """Whether one of them goes on."""
        return self._connections.any_of(self._application)

    async def close(self) -> None:
        """Finish what is under way on them within bounds, and end them."""
        await self._application.close()
        self._connections.end(self._application)


class PlainHttpServer:
    """A server that listens; an async context manager that stops it.

    Made by :func:`serve_plain`.
    """

    def __init__(self, connections: _Connections, listener: StreamListener) -> None:
        self._connections = connections
        self._listener = listener

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as ``host:port`` or ``unix:PATH``."""
        return [
            f"unix:{name}" if isinstance(name, str) else format_address(name)
            for name in self._listener.addresses
        ]

    def renew(self, application: PlainHttpApplication) -> RetiredPlainHttp:
        """Serve this application to new connections; where it listens stays as it is.

        :return: the connections that there are, which go on as they began. Whoever closes the
            server has to close them too.
        """
        previous = self._connections.application
        self._connections.application = application
        return RetiredPlainHttp(previous, self._connections)

    async def close(self) -> None:
        """Stop: accept nothing more, finish what is under way within bounds, close the rest."""
        self._listener.close()
        application = self._connections.application
        await application.close()
        self._connections.end(application)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def prepare_plain(
    app: Servable, limits: PlainHttpLimits | HttpsLimits
) -> PlainHttpApplication:
    """Start an application, for :func:`serve_plain` or :meth:`PlainHttpServer.renew`."""
    return PlainHttpApplication(await start(app, limits, logger=_log), limits)


async def serve_plain(app: Servable, endpoint: PlainHttpEndpoint) -> PlainHttpServer:
    """Serve EST, or an aiohttp application, over HTTP without TLS.

    :raises OSError: the address cannot be listened on.
    """
    application = await prepare_plain(app, endpoint.limits)
    connections = _Connections(application)
    try:
        listener = await _listen(connections.accept, endpoint)
    except OSError:
        await application.close()
        raise
    return PlainHttpServer(connections, listener)


async def _listen(
    make_protocol: Callable[[], asyncio.Protocol], endpoint: PlainHttpEndpoint
) -> StreamListener:
    listen = endpoint.open_listener
    if listen is None:
        listen = unix_listener(endpoint.unix_socket) if endpoint.unix_socket else tcp_listener
    return await listen(
        make_protocol,
        endpoint.host,
        endpoint.port,
        backlog=_BACKLOG,
        reuse_port=endpoint.reuse_port,
    )


class _Connections:
    """The connections of one server, in the order of their coming.

    :param application: what new ones are served.
    """

    def __init__(self, application: PlainHttpApplication) -> None:
        self.application = application
        self._open: dict[_Connection, None] = {}

    def accept(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Connection(self.application, self)

    def admit(self, connection: _Connection) -> bool:
        """Whether there is room; the oldest that waits for its client goes for it."""
        if len(self._open) >= self.application.limits.max_connections:
            oldest = next((known for known in self._open if known.idle), None)
            if oldest is None:
                return False
            self.forget(oldest)
            oldest.abort()
        self._open[connection] = None
        return True

    def forget(self, connection: _Connection) -> None:
        self._open.pop(connection, None)

    def any_of(self, application: PlainHttpApplication) -> bool:
        return any(connection.application is application for connection in self._open)

    def end(self, application: PlainHttpApplication) -> None:
        for connection in list(self._open):
            if connection.application is application:
                connection.abort()


class _Connection(HttpConnection):
    """A connection that is counted, and ended if its client does not read."""

    def __init__(self, application: PlainHttpApplication, connections: _Connections) -> None:
        self.application = application
        self._http = application.http.connection()
        self._connections = connections
        self._transport: asyncio.Transport
        self._unread: asyncio.TimerHandle | None = None
        self._admitted = False

    @property
    def idle(self) -> bool:
        return self._http.idle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._admitted = self._connections.admit(self)
        if self._admitted:
            self._http.connection_made(transport)
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._http.data_received(data)

    def eof_received(self) -> bool | None:
        return self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.forget(self)
        self._forgive()
        if self._admitted:
            self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        self._http.pause_writing()
        self._unread = asyncio.get_running_loop().call_later(
            self.application.limits.write_timeout, self.abort
        )

    def resume_writing(self) -> None:
        self._forgive()
        self._http.resume_writing()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _forgive(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
