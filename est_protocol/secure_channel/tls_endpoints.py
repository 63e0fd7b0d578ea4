"""Listening for TLS connections and making them; each runs a protocol on the stream driver."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, cast

from OpenSSL import SSL

from est_protocol.errors import ChannelError
from est_protocol.secure_channel.context import TrustAnchors
from est_protocol.secure_channel.stream import (
    DEFAULT_STREAM_LIMITS,
    StreamLimits,
    TlsTransport,
    format_address,
)
from est_protocol.secure_channel.tcp import (
    StreamConnector,
    StreamListener,
    StreamListenerFactory,
    tcp_connection,
    tcp_listener,
)
from est_protocol.secure_channel.tls import TlsEngine

_log = logging.getLogger(__name__)

Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What connections begin with, and keep to their end.

    :param protocol_factory: makes the application protocol of one connection.
    :param context: made by :func:`~est_protocol.secure_channel.context.tls_context`.
    :param anchors: the anchors that ``context`` was made with.
    :param limits: the bounds of each connection.
    :param max_connections: connections at one time, handshakes included, however they began.
    """

    protocol_factory: Callable[[], asyncio.BaseProtocol]
    context: SSL.Context
    anchors: TrustAnchors
    limits: StreamLimits
    max_connections: int

    def make_engine(self, address: str) -> TlsEngine:
        """The TLS of one connection."""
        return TlsEngine(self.context, self.anchors, server=True, address=address)


class TlsServer:
    """A listener, and the connections that it accepted. Made by :func:`serve_tls`."""

    def __init__(
        self, acceptance: Acceptance, is_idle: Callable[[asyncio.BaseProtocol], bool]
    ) -> None:
        self._acceptance = acceptance
        self._is_idle = is_idle
        # In the order of their coming; the values mean nothing.
        self._connections: dict[TlsTransport, None] = {}
        self._warned = False
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._listener: StreamListener
        #: How many connections were turned away, or ended, because there were too many.
        self.turned_away = 0

    @property
    def addresses(self) -> list[str]:
        """Where it listens, or did, as ``host:port``."""
        return [format_address(name) for name in self._listener.addresses]

    @property
    def port(self) -> int:
        """The port of the first listening socket."""
        return int(self._listener.addresses[0][1])

    @property
    def connections(self) -> int:
        """How many connections there are, handshakes included."""
        return len(self._connections)

    def renew(self, acceptance: Acceptance) -> frozenset[TlsTransport]:
        """Accept connections with other settings from now on.

        :return: the connections that there are, which keep the settings that they began with.
        """
        self._acceptance = acceptance
        return frozenset(self._connections)

    def has_any(self, transports: Iterable[TlsTransport]) -> bool:
        """Whether any of these connections has not ended."""
        return any(transport in self._connections for transport in transports)

    def close(self) -> None:
        """Accept no more connections and end unfinished handshakes; what is established goes on."""
        self._listener.close()
        for transport in list(self._connections):
            if not transport.established:
                transport.abort()

    async def drain(self, within: float) -> None:
        """Wait for the connections to end; after ``within`` seconds end them."""
        try:
            async with asyncio.timeout(within):
                await self._none_left.wait()
        except TimeoutError:
            _log.warning("ending %d connections that did not end in time", len(self._connections))
            for transport in list(self._connections):
                transport.abort()
            await self._none_left.wait()

    def _accept(self) -> asyncio.Protocol:
        if not self._has_room():
            return _TurnedAway()
        chosen = self._acceptance
        transport = TlsTransport(
            chosen.make_engine,
            chosen.protocol_factory,
            chosen.limits,
            server=True,
            ended=self._forget,
        )
        self._admit(transport)
        return transport

    def _admit(self, transport: TlsTransport) -> None:
        self._connections[transport] = None
        self._none_left.clear()
        if len(self._connections) == self._acceptance.max_connections and not self._warned:
            # Once for each time that it gets full, not for each connection from then on.
            self._warned = True
            _log.warning("there are %d TLS connections: no more now", len(self._connections))

    def _forget(self, transport: TlsTransport) -> None:
        self._connections.pop(transport, None)
        if len(self._connections) <= self._acceptance.max_connections // 2:
            self._warned = False
        if not self._connections:
            self._none_left.set()

    def _has_room(self) -> bool:
        """Whether one more may come; the oldest that waits for its peer goes for it.

        Or else whoever opens enough connections and falls silent keeps all others out.
        """
        if len(self._connections) < self._acceptance.max_connections:
            return True
        self.turned_away += 1
        for transport in self._connections:
            if not transport.established or self._is_idle(transport.get_protocol()):
                del self._connections[transport]
                transport.abort()
                return True
        return False


class _TurnedAway(asyncio.Protocol):
    """Ends a connection that came when there were too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


async def serve_tls(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str | None,
    port: int,
    *,
    context: SSL.Context,
    anchors: TrustAnchors,
    limits: StreamLimits = DEFAULT_STREAM_LIMITS,
    max_connections: int = 1000,
    is_idle: Callable[[asyncio.BaseProtocol], bool] = lambda _: False,
    reuse_port: bool = False,
    backlog: int = 128,
    listen: StreamListenerFactory = tcp_listener,
) -> TlsServer:
    """Listen for TLS connections and run a protocol on each.

    :param protocol_factory: makes the application protocol of one connection.
    :param host: the address to listen on; ``None`` for all.
    :param port: 0 for any free one.
    :param context: made by :func:`~est_protocol.secure_channel.context.tls_context`.
    :param anchors: the anchors that ``context`` was made with.
    :param limits: the bounds of each connection.
    :param max_connections: connections at one time, handshakes included. One more ends the oldest
        that is in its handshake or idle; if there is none, it is reset itself.
    :param is_idle: whether a connection's protocol has nothing to do but wait for the peer.
    :param reuse_port: let several processes listen on the port (``SO_REUSEPORT``).
    :param backlog: TCP connections that may wait to be accepted.
    :param listen: opens the listening socket.
    :raises OSError: the address cannot be listened on.
    """
    acceptance = Acceptance(protocol_factory, context, anchors, limits, max_connections)
    server = TlsServer(acceptance, is_idle)
    server._listener = await listen(
        server._accept, host, port, backlog=backlog, reuse_port=reuse_port
    )
    return server


async def connect_tls(
    protocol_factory: Callable[[], Protocol],
    host: str,
    port: int,
    *,
    context: SSL.Context,
    anchors: TrustAnchors,
    server_name: str | None = None,
    limits: StreamLimits = DEFAULT_STREAM_LIMITS,
    connect_timeout: float = 10.0,
    connect: StreamConnector = tcp_connection,
) -> tuple[TlsTransport, Protocol]:
    """Connect to a TLS server and run a protocol on the connection.

    :param server_name: for the server_name extension; ``None`` for IP addresses.
    :param connect_timeout: seconds for the name look-up and the TCP connection.
    :param connect: opens the TCP connection.
    :raises PeerNotTrusted: the server's chain does not verify and ``context`` requires that.
    :raises ChannelError: there is no server, or no handshake.
    """

    def make_engine(address: str) -> TlsEngine:
        return TlsEngine(context, anchors, server=False, address=address, server_name=server_name)

    try:
        async with asyncio.timeout(connect_timeout):
            _, transport = await connect(
                lambda: TlsTransport(make_engine, protocol_factory, limits, server=False),
                host,
                port,
            )
    except TimeoutError as error:
        raise ChannelError(f"no connection to {host} port {port}: time-out") from error
    except OSError as error:
        raise ChannelError(f"no connection to {host} port {port}: {error}") from error
    try:
        protocol = await transport.handshake
    except ChannelError:
        # The alert that tells the server why has still to leave, and the socket to be closed.
        await transport.wait_closed()
        raise
    except asyncio.CancelledError:
        transport.abort()
        raise
    return transport, cast(Protocol, protocol)
