"""Devices and servers on emulated links: what asyncio sees in place of sockets.

A :class:`DevicePath` is one device's way into the network, for datagrams and for streams. At its
far end stands a :class:`FarEnd`: servers in the same event loop (:class:`Internet`), or real
sockets to a server elsewhere (:mod:`est_client.simulation.sockets`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from est_client.simulation.datagrams import EmulatedDatagrams
from est_client.simulation.link import Direction, Fate, Link
from est_client.simulation.microcontroller import Processor
from est_client.simulation.streams import open_stream
from est_client.simulation.traffic import Meter, changes_cipher
from est_protocol.secure_channel.udp import SocketAddress

_FIRST_PORT, _PORTS = 40000, 20000
#: Seconds for which what a closed socket has sent may still travel.
_LINGER = 30.0
_User = TypeVar("_User", bound=asyncio.BaseProtocol)


class FarEnd(Protocol):
    """What is at the other end of the links of all devices."""

    def take_datagram(
        self, path: DevicePath, source: SocketAddress, remote: SocketAddress, data: bytes
    ) -> None:
        """Take a datagram that ``path`` carried."""
        ...

    def listener(self, remote: SocketAddress) -> Callable[[], asyncio.Protocol] | None:
        """What makes a server's protocol for a new stream; ``None`` if nobody listens there."""
        ...

    def forget(self, path: DevicePath, source: SocketAddress) -> None:
        """No datagram of this source is to be expected any more."""
        ...


class DevicePath:
    """One device's way to servers: its link, its address, and the meter of both.

    It is a :class:`~est_protocol.secure_channel.udp.DatagramTransportFactory`, and its
    :meth:`connect` a :class:`~est_protocol.secure_channel.tcp.StreamConnector`.

    :param host: the device's address, as servers see it.
    :param link: its link.
    :param far_end: what the link leads to.
    :param meter: counts what crosses the link.
    :param processor: lets what the device sends wait until it is computed.
    :param origin: the start of the simulation on the event loop's clock.
    :param receive_buffer: octets that the device can take of a TCP stream.
    """

    def __init__(
        self,
        host: str,
        link: Link,
        far_end: FarEnd,
        meter: Meter,
        processor: Processor,
        *,
        origin: float = 0.0,
        receive_buffer: int = 65535,
    ) -> None:
        self.host = host
        self._origin = origin
        self.link = link
        self.far_end = far_end
        self.meter = meter
        self.processor = processor
        self.receive_buffer = receive_buffer
        #: Called with every packet that the device sends or receives.
        self.on_packet: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, tuple[EmulatedDatagrams, SocketAddress]] = {}
        self._last_port = _FIRST_PORT
        # The network address translator: the port outside for each port of the device, and back.
        # What is in neither any more is not led to the device.
        self._outside: dict[int, int] = {}
        self._inside: dict[int, int] = {}
        self._latest_up: float | None = None
        # What was under way at a power loss concerns nobody any more.
        self._life = 0

    async def __call__(
        self,
        protocol: asyncio.DatagramProtocol,
        *,
        local: tuple[str, int] | None,
        remote: tuple[str, int] | None,
    ) -> asyncio.DatagramTransport:
        """Open a datagram socket of the device."""
        if remote is None:
            raise OSError("a device has no servers")
        port = self._bind()
        socket = EmulatedDatagrams(
            protocol,
            lambda data, _: self.send_datagram(data, port, remote),
            lambda: self.closed(port),
            {"peername": remote, "sockname": (self.host, port)},
        )
        self._sockets[port] = socket, remote
        protocol.connection_made(socket)
        return socket

    async def connect(
        self, make_protocol: Callable[[], _User], host: str, port: int
    ) -> tuple[asyncio.Transport, _User]:
        """Open a TCP connection of the device.

        :raises OSError: nobody listens there, or nobody answers.
        """
        protocol = make_protocol()
        transport = await open_stream(
            self,
            cast(asyncio.Protocol, protocol),
            (host, port),
            self.far_end.listener((host, port)),
        )
        return transport, protocol

    def _bind(self) -> int:
        """A port for another socket, which is the same outside until it is rebound."""
        port = self._next_port()
        self._outside[port] = port
        self._inside[port] = port
        return port

    def _next_port(self) -> int:
        self._last_port = _FIRST_PORT + (self._last_port + 1 - _FIRST_PORT) % _PORTS
        return self._last_port

    def stream_address(self) -> SocketAddress:
        """The address of a new TCP connection."""
        return self.host, self._bind()

    def now(self) -> float:
        """Seconds since the start of the simulation."""
        return self._loop.time() - self._origin

    def rebind(self) -> None:
        """Let the network address translator forget the device's open sockets."""
        for port in self._sockets:
            outside = self._outside[port]
            self.far_end.forget(self, (self.host, outside))
            del self._inside[outside]
            self._outside[port] = self._next_port()
            self._inside[self._outside[port]] = port

    def lose_power(self) -> None:
        """Drop all that is on its way to or from the device."""
        self._life += 1

    def carry(
        self,
        direction: Direction,
        content: int,
        header: int,
        deliver: Callable[[], None],
        *,
        at: float | None = None,
    ) -> None:
        """Send a packet over the link, and ``deliver`` it if it arrives.

        :param content: octets of its payload.
        :param header: octets of its IP and transport headers.
        :param at: when the device has computed it; now by default.
        """
        now = self._loop.time()
        if at is not None and at > now:
            self._loop.call_at(
                at, self._carry_later, self._life, direction, content, header, deliver
            )
            return
        passage = self.link.carry(direction, content + header, now - self._origin)
        self.meter.count(direction, content, passage)
        if direction is Direction.UP:
            self.on_packet()
        if passage.arrives_at is not None:
            life = self._life
            self._loop.call_at(
                self._origin + passage.arrives_at, lambda: self._arrive(direction, life, deliver)
            )

    def _carry_later(
        self,
        life: int,
        direction: Direction,
        content: int,
        header: int,
        deliver: Callable[[], None],
    ) -> None:
        if life == self._life:
            self.carry(direction, content, header, deliver)

    def _arrive(self, direction: Direction, life: int, deliver: Callable[[], None]) -> None:
        if direction is Direction.DOWN:
            if life != self._life:
                return
            self.on_packet()
            if life != self._life:
                return
        deliver()

    def send_datagram(self, data: bytes, port: int, remote: SocketAddress) -> None:
        """Send a datagram of the device's socket on ``port``."""
        self.meter.look_at_handshake(Direction.UP, data)
        self.meter.sent_content()
        if changes_cipher(data, datagram=True):
            self.processor.compute_handshake()
        self.carry(
            Direction.UP,
            len(data),
            self.link.parameters.datagram_header,
            lambda: self._reach_far_end(data, port, remote),
            at=self.processor.free_at,
        )

    def _reach_far_end(self, data: bytes, port: int, remote: SocketAddress) -> None:
        now, timeout = self._loop.time(), self.link.parameters.nat_timeout
        if timeout is not None and self._latest_up is not None and now - self._latest_up > timeout:
            self.rebind()
        self._latest_up = now
        self.far_end.take_datagram(self, (self.host, self._outside[port]), remote, data)

    def return_datagram(self, source: SocketAddress, data: bytes) -> None:
        """Send a datagram of a server to the device, which it knows as ``source``."""
        port = self._inside.get(source[1])
        if port is None:
            self.meter.count_dropped(Fate.NAT)
            return
        self.meter.look_at_handshake(Direction.DOWN, data)
        self.carry(
            Direction.DOWN,
            len(data),
            self.link.parameters.datagram_header,
            lambda: self._reach_device(port, data),
        )

    def _reach_device(self, port: int, data: bytes) -> None:
        # For a socket that the device has closed it came over the air all the same.
        if port in self._sockets:
            self.meter.received_content()
            socket, remote = self._sockets[port]
            socket.receive(data, remote)

    def closed(self, port: int) -> None:
        """Forget a socket of the device; what it has sent still travels."""
        del self._sockets[port]
        outside = self._outside[port]
        self._loop.call_later(_LINGER, self.far_end.forget, self, (self.host, outside))


class Internet:
    """A :class:`FarEnd` with servers in the same event loop.

    :meth:`open_datagrams` and :meth:`listen` are what servers are given in place of sockets.
    """

    def __init__(self) -> None:
        self._datagrams: dict[SocketAddress, EmulatedDatagrams] = {}
        self._streams: dict[SocketAddress, Listener] = {}
        self._paths: dict[SocketAddress, DevicePath] = {}
        self._next_port = 50000

    async def open_datagrams(
        self,
        protocol: asyncio.DatagramProtocol,
        *,
        local: tuple[str, int] | None,
        remote: tuple[str, int] | None,
    ) -> asyncio.DatagramTransport:
        """A server's datagram socket; a
        :class:`~est_protocol.secure_channel.udp.DatagramTransportFactory`."""
        if local is None:
            raise OSError("a server has no peer of its own")
        address = self._free(local, self._datagrams)
        socket = self._datagrams[address] = EmulatedDatagrams(
            protocol,
            lambda data, source: self.route(source, data),
            lambda: self.close_datagrams(address),
            {"sockname": address},
        )
        protocol.connection_made(socket)
        return socket

    async def listen(
        self,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        host: str | None,
        port: int,
        *,
        backlog: int,
        reuse_port: bool,
    ) -> Listener:
        """A server's TCP listener; a
        :class:`~est_protocol.secure_channel.tcp.StreamListenerFactory`."""
        address = self._free((host or "127.0.0.1", port), self._streams)
        listener = Listener(self, address, make_protocol)
        self._streams[address] = listener
        return listener

    def _free(self, wanted: SocketAddress, taken: dict[SocketAddress, Any]) -> SocketAddress:
        host, port = wanted[:2]
        if not port:
            self._next_port += 1
            port = self._next_port
        if (host, port) in taken:
            raise OSError(f"{host} port {port} is taken")
        return host, port

    def take_datagram(
        self, path: DevicePath, source: SocketAddress, remote: SocketAddress, data: bytes
    ) -> None:
        """Give a device's datagram to the server that it is for; see :class:`FarEnd`."""
        server = self._datagrams.get(remote[:2])
        if server is not None:
            self._paths[source] = path
            server.receive(data, source)

    def route(self, source: SocketAddress, data: bytes) -> None:
        """Send a server's datagram to the device that it knows as ``source``."""
        path = self._paths.get(source)
        if path is not None:
            path.return_datagram(source, data)

    def listener(self, remote: SocketAddress) -> Callable[[], asyncio.Protocol] | None:
        """What makes a server's protocol for a new stream; see :class:`FarEnd`."""
        listener = self._streams.get(remote[:2])
        return (
            None if listener is None else lambda: cast(asyncio.Protocol, listener.make_protocol())
        )

    def forget(self, path: DevicePath, source: SocketAddress) -> None:
        """Nothing is to be known: what a server still sends there is counted as not arrived."""

    def close_datagrams(self, address: SocketAddress) -> None:
        """A server's socket is closed."""
        self._datagrams.pop(address, None)

    def close_listener(self, address: SocketAddress) -> None:
        """A server listens no more."""
        self._streams.pop(address, None)


class Listener:
    """A server's TCP listener; see :class:`~est_protocol.secure_channel.tcp.StreamListener`."""

    def __init__(
        self,
        internet: Internet,
        address: SocketAddress,
        make_protocol: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        self._internet = internet
        self.addresses = [address]
        self.make_protocol = make_protocol

    def close(self) -> None:
        """Listen no more."""
        self._internet.close_listener(self.addresses[0])
