"""An aiohttp application served over plain HTTP: to all, what is public and signed, such as CRLs;
to TLS-terminating proxies, what they pass on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from est_protocol.secure_channel.stream import format_address
from est_server.https.deadlines import RequestDeadlines
from est_server.https.limits import HttpsLimits
from est_server.https.peer_errors import PeerErrorsInOneLine
from est_server.https.runner import start_runner

_log = logging.getLogger("est_server.http")
_log.addFilter(PeerErrorsInOneLine())


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
    """

    host: str | None = "127.0.0.1"
    port: int = 8080
    limits: PlainHttpLimits | HttpsLimits = field(default_factory=PlainHttpLimits)
    reuse_port: bool = False
    unix_socket: Path | None = None


class PlainHttpServer:
    """A server that listens; an async context manager that stops it.

    Made by :func:`serve_plain`.
    """

    def __init__(self, runner: web.AppRunner, connections: _Connections) -> None:
        self._runner = runner
        self._connections = connections

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as ``host:port``."""
        return self._connections.addresses

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connections.listener.close()
        await self._runner.cleanup()
        self._connections.end()


async def serve_plain(app: web.Application, endpoint: PlainHttpEndpoint) -> PlainHttpServer:
    """Serve an aiohttp application over HTTP without TLS.

    :raises OSError: the address cannot be listened on.
    """
    limits = endpoint.limits
    runner, make_http = await start_runner(app, limits, logger=_log)
    connections = _Connections(limits)

    def make_protocol() -> asyncio.Protocol:
        return _Connection(make_http(), connections)

    try:
        connections.listener = await _listen(make_protocol, endpoint)
    except OSError:
        await runner.cleanup()
        raise
    connections.addresses = [
        format_address(name) or f"unix:{name}"
        for name in (sock.getsockname() for sock in connections.listener.sockets)
    ]
    return PlainHttpServer(runner, connections)


async def _listen(
    make_protocol: Callable[[], asyncio.Protocol], endpoint: PlainHttpEndpoint
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    path = endpoint.unix_socket
    if path is None:
        return await loop.create_server(
            make_protocol, endpoint.host, endpoint.port, reuse_port=endpoint.reuse_port or None
        )
    # What a process before this one left there is removed by asyncio, if it is a socket.
    server = await loop.create_unix_server(make_protocol, path)
    path.chmod(0o660)
    return server


class _Connections:
    """The connections of one server, in the order of their coming."""

    def __init__(self, limits: PlainHttpLimits | HttpsLimits) -> None:
        self.limits = limits
        self.listener: asyncio.Server
        self.addresses: list[str] = []
        self._open: dict[_Connection, None] = {}

    def admit(self, connection: _Connection) -> bool:
        """Whether there is room; the oldest that waits for its client goes for it."""
        if len(self._open) >= self.limits.max_connections:
            oldest = next((known for known in self._open if known.idle), None)
            if oldest is None:
                return False
            self.forget(oldest)
            oldest.abort()
        self._open[connection] = None
        return True

    def forget(self, connection: _Connection) -> None:
        self._open.pop(connection, None)

    def end(self) -> None:
        for connection in list(self._open):
            connection.abort()


class _Connection(RequestDeadlines):
    """A connection that is counted, and ended if its client does not read."""

    def __init__(self, handler: asyncio.Protocol, connections: _Connections) -> None:
        super().__init__(handler, connections.limits)
        self._connections = connections
        self._unread: asyncio.TimerHandle | None = None
        self._admitted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._admitted = self._connections.admit(self)
        if self._admitted:
            super().connection_made(transport)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.forget(self)
        self._forgive()
        if self._admitted:
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = asyncio.get_running_loop().call_later(
            self._connections.limits.write_timeout, self.abort
        )

    def resume_writing(self) -> None:
        self._forgive()
        super().resume_writing()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _forgive(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
