"""TCP connections over an emulated link, as asyncio transports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from est_client.simulation.link import Direction
from est_client.simulation.tcp import Segment, TcpEnd
from est_client.simulation.traffic import changes_cipher
from est_protocol.secure_channel.udp import SocketAddress

if TYPE_CHECKING:
    from est_client.simulation.network import DevicePath

_HIGH_WATER = 65536


class StreamEnd(asyncio.Transport):
    """One end of a connection between a device and a server.

    :param path: the device's way.
    :param direction: which way this end sends.
    :param tcp: the protocol machine.
    :param addresses: its own and its peer's.
    """

    def __init__(
        self,
        path: DevicePath,
        direction: Direction,
        tcp: TcpEnd,
        addresses: tuple[SocketAddress, SocketAddress],
    ) -> None:
        super().__init__({"sockname": addresses[0], "peername": addresses[1]})
        self._path = path
        self._direction = direction
        self._tcp = tcp
        self._loop = asyncio.get_running_loop()
        self._peer: StreamEnd
        self._make_protocol: Callable[[], asyncio.Protocol]
        self._protocol: asyncio.Protocol
        self._timer: asyncio.TimerHandle | None = None
        self._made = self._lost = self._closing = False
        self._reading = True
        self._ended_told = False
        self._inbox = bytearray()
        self._high, self._low = _HIGH_WATER, _HIGH_WATER // 4
        self._writing_paused = False
        self._computed_at = 0.0
        #: Done when the connection is there, or cannot be.
        self.opened: asyncio.Future[None] = self._loop.create_future()

    def join(self, peer: StreamEnd, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Say who is at the other end, and who uses this one once there is a connection."""
        self._peer = peer
        self._make_protocol = make_protocol

    def begin(self) -> None:
        """Open the connection."""
        self._tcp.open(self._loop.time())
        self._settle()

    # -- from and to the link -------------------------------------------------------------------

    def receive(self, segment: Segment) -> None:
        """Take a segment that crossed the link."""
        data = self._tcp.receive(segment, self._loop.time())
        if data and self._direction is Direction.UP:
            self._path.meter.received_content()
        self._inbox += data
        if self._tcp.established and not self._made and not self._tcp.broken:
            self._made = True
            if not self.opened.done():
                self.opened.set_result(None)
            self._protocol = self._make_protocol()
            self._protocol.connection_made(self)
        self._deliver()
        self._settle()

    def _deliver(self) -> None:
        if not self._made or self._lost or not self._reading:
            return
        if self._inbox:
            data = bytes(self._inbox)
            self._inbox.clear()
            self._tcp.taken(len(data))
            self._protocol.data_received(data)
        if self._tcp.peer_ended and not self._inbox and not self._ended_told and self._reading:
            self._ended_told = True
            if not self._protocol.eof_received():
                self.close()

    def _settle(self) -> None:
        """Send what is to be sent, set the timer, tell the user what has changed."""
        for segment in self._tcp.segments():
            self._send(segment)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (deadline := self._tcp.deadline) is not None:
            self._timer = self._loop.call_at(deadline, self._on_timer)
        self._set_writing()
        if self._tcp.broken or (self._closing and self._tcp.ended):
            self._lose()

    def _on_timer(self) -> None:
        self._tcp.on_timer(self._loop.time())
        self._settle()

    def _send(self, segment: Segment) -> None:
        meter = self._path.meter
        if segment.repeated:
            meter.count_repeats()
        upwards = self._direction is Direction.UP
        if upwards and segment.data:
            meter.sent_content()
        self._path.carry(
            self._direction,
            len(segment.data),
            self._path.link.parameters.segment_header,
            lambda: self._peer.receive(segment),
            at=self._computed_at if upwards else None,
        )

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = True
        why = self._tcp.broken
        error = ConnectionResetError(why) if why and why != "aborted" else None
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionAbortedError("aborted"))
            # Whoever waits is told; if nobody does, nobody needs a warning either.
            self.opened.exception()
        if self._made:
            self._loop.call_soon(self._protocol.connection_lost, error)

    # -- asyncio's transport --------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send data."""
        if self._closing or self._lost:
            return
        octets = bytes(data)
        if self._direction is Direction.UP and changes_cipher(octets, datagram=False):
            self._path.processor.compute_handshake()
            self._computed_at = self._path.processor.free_at
        self._tcp.write(octets, self._loop.time())
        self._settle()

    def write_eof(self) -> None:
        """Send no more."""
        self._tcp.end(self._loop.time())
        self._settle()

    def can_write_eof(self) -> bool:
        """Yes, as TCP can."""
        return True

    def close(self) -> None:
        """Send what was written, then end the connection."""
        if not self._closing:
            self._closing = True
            self.write_eof()

    def abort(self) -> None:
        """End the connection at once."""
        self._closing = True
        self._tcp.abort()
        self._settle()

    def is_closing(self) -> bool:
        """Whether it is closed, or broken."""
        return self._closing or self._lost

    def is_reading(self) -> bool:
        """Whether the user takes data."""
        return self._reading

    def pause_reading(self) -> None:
        """Deliver nothing; the peer may fill this end's window."""
        self._reading = False

    def resume_reading(self) -> None:
        """Deliver again."""
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._deliver()
        self._settle()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the connection to another user."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who uses it."""
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When to ask the user to pause, and to go on."""
        self._high = _HIGH_WATER if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Octets that are not acknowledged."""
        return self._tcp.unsent

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high mark."""
        return self._low, self._high

    def _set_writing(self) -> None:
        if not self._made or self._lost:
            return
        if not self._writing_paused and self._tcp.unsent > self._high:
            self._writing_paused = True
            self._protocol.pause_writing()
        elif self._writing_paused and self._tcp.unsent <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()


class _Refusal:
    """Nobody listens: every segment is answered with a reset."""

    def __init__(self, path: DevicePath, device: StreamEnd) -> None:
        self._path = path
        self._device = device

    def receive(self, segment: Segment) -> None:
        """Answer with a reset, but not to a reset."""
        if not segment.rst:
            reset = Segment(0, segment.end, rst=True)
            header = self._path.link.parameters.segment_header
            self._path.carry(Direction.DOWN, 0, header, lambda: self._device.receive(reset))


async def open_stream(
    path: DevicePath,
    protocol: asyncio.Protocol,
    remote: SocketAddress,
    accept: Callable[[], asyncio.Protocol] | None,
) -> StreamEnd:
    """Open a connection of a device.

    :param accept: makes who answers at the other end; ``None`` if nobody listens there.
    :raises OSError: it cannot be opened.
    """
    parameters = path.link.parameters
    mss = parameters.mtu - parameters.segment_header
    source = path.stream_address()
    device = StreamEnd(
        path,
        Direction.UP,
        TcpEnd(mss, active=True, buffer=path.receive_buffer),
        (source, remote),
    )
    other = StreamEnd(path, Direction.DOWN, TcpEnd(mss, active=False), (remote, source))
    refusal: Any = _Refusal(path, device)
    device.join(other if accept is not None else refusal, lambda: protocol)
    if accept is not None:
        other.join(device, accept)
    device.begin()
    try:
        await device.opened
    except asyncio.CancelledError:
        device.abort()
        raise
    return device
