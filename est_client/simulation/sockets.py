"""The far end of the links for servers elsewhere: real sockets, in real time.

Each device's datagrams come from a socket of its own, so that the server sees as many peers as
there are devices; another socket takes over when a network address translator gives the device
another address. A device's TCP connection ends here, and another one leads on to the server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

from est_client.simulation.network import DevicePath
from est_protocol.secure_channel.udp import SocketAddress

#: Datagrams that wait for a socket to open.
_MOST_WAITING = 64
#: Octets that wait for a TCP connection to the server.
_MOST_BUFFERED = 1 << 20


class _Open:
    """What is open, so that the end can wait until it is closed."""

    def __init__(self) -> None:
        self._transports: set[asyncio.BaseTransport] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    def add(self, transport: asyncio.BaseTransport) -> None:
        self._transports.add(transport)
        self._none_left.clear()

    def remove(self, transport: asyncio.BaseTransport | None) -> None:
        self._transports.discard(cast(asyncio.BaseTransport, transport))
        if not self._transports:
            self._none_left.set()

    async def close(self) -> None:
        for transport in list(self._transports):
            cast(asyncio.Transport, transport).abort()
        await self._none_left.wait()


class Sockets:
    """A :class:`~est_client.simulation.network.FarEnd` on real sockets."""

    def __init__(self) -> None:
        self._datagrams: dict[SocketAddress, _Socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = _Open()

    def take_datagram(
        self, path: DevicePath, source: SocketAddress, remote: SocketAddress, data: bytes
    ) -> None:
        """Send a device's datagram on; see :class:`~est_client.simulation.network.FarEnd`."""
        socket = self._datagrams.get(source)
        if socket is None:
            socket = self._datagrams[source] = _Socket(path, source, self._open)
            self._run(socket.open(remote))
        socket.send(data)

    def listener(self, remote: SocketAddress) -> Callable[[], asyncio.Protocol]:
        """What leads a stream on; see :class:`~est_client.simulation.network.FarEnd`."""
        return lambda: _Relay(remote, self._run, self._open)

    def forget(self, path: DevicePath, source: SocketAddress) -> None:
        """Close the socket of a source that is no more."""
        if (socket := self._datagrams.pop(source, None)) is not None:
            # What the server still says, a close_notify perhaps, is nobody's.
            socket.close()

    async def close(self) -> None:
        """Close every socket and connection."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        for socket in self._datagrams.values():
            socket.close()
        self._datagrams.clear()
        await self._open.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Socket(asyncio.DatagramProtocol):
    """The UDP socket that stands for one source."""

    def __init__(self, path: DevicePath, source: SocketAddress, opened: _Open) -> None:
        self._path = path
        self._source = source
        self._opened = opened
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)
        self._closed = False

    async def open(self, remote: SocketAddress) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=remote[:2])
        except OSError:
            # The device sees what it would see on the air: nothing.
            self._closed = True
            return
        self._transport = transport
        self._opened.add(transport)
        if self._closed:
            transport.close()
            return
        while self._waiting:
            transport.sendto(self._waiting.popleft())

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.sendto(data)
        else:
            self._waiting.append(data)

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.remove(self._transport)

    def datagram_received(self, data: bytes, addr: SocketAddress) -> None:
        if not self._closed:
            self._path.return_datagram(self._source, data)


class _Relay(asyncio.Protocol):
    """A device's stream, led on to the server."""

    def __init__(
        self,
        remote: SocketAddress,
        run: Callable[[Coroutine[Any, Any, None]], None],
        opened: _Open,
    ) -> None:
        self._remote = remote
        self._run = run
        self._opened = opened
        self._device: asyncio.Transport
        self._server: asyncio.Transport | None = None
        self._waiting = bytearray()
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._device = cast(asyncio.Transport, transport)
        self._run(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            server, _ = await loop.create_connection(
                lambda: _Return(self._device, self._opened), *self._remote
            )
        except OSError:
            self._device.abort()
            return
        self._server = server
        if self._waiting:
            server.write(bytes(self._waiting))
            self._waiting.clear()
        if self._ended:
            server.write_eof()

    def data_received(self, data: bytes) -> None:
        if self._server is not None:
            self._server.write(data)
            return
        self._waiting += data
        if len(self._waiting) > _MOST_BUFFERED:
            self._device.abort()

    def eof_received(self) -> bool:
        self._ended = True
        if self._server is not None and not self._server.is_closing():
            self._server.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._server is not None:
            self._server.close()


class _Return(asyncio.Protocol):
    """The server's answers, led back to the device."""

    def __init__(self, device: asyncio.Transport, opened: _Open) -> None:
        self._device = device
        self._opened = opened
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._opened.add(transport)

    def data_received(self, data: bytes) -> None:
        self._device.write(data)

    def eof_received(self) -> bool:
        self._device.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.remove(self._transport)
        if exc is None:
            self._device.close()
        else:
            self._device.abort()
