"""DTLS on asyncio for a server: one socket with a session for each peer."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from est_protocol.errors import (
    ChannelClosed,
    ChannelError,
    ConfigurationError,
    HandshakeFailed,
)
from est_protocol.secure_channel import records
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_channel import ChannelUser, DtlsChannel
from est_protocol.secure_channel.dtls_listener import DtlsListener
from est_protocol.secure_channel.stream import format_address
from est_protocol.secure_channel.udp import (
    DatagramTransportFactory,
    SocketAddress,
    send_datagram,
    udp_transport,
)

_log = logging.getLogger("est_protocol.dtls")


@dataclass(frozen=True, slots=True)
class DatagramLimits:
    """Bounds of a DTLS endpoint.

    :param handshake_timeout: seconds that a handshake may take.
    :param idle_timeout: seconds without traffic or work after which a session is closed;
        RFC 9148 section 3 keeps sessions for requests close in time.
    :param maximum_sessions: sessions at a time, those in the handshake included. One more closes
        the one that has been idle longest; while all are working it is not let in.
    :param maximum_handshakes: handshakes at a time. One more ends the one that has taken longest,
        so that peers who begin and fall silent keep nobody out.
    :param grace: seconds for which a handshake from its beginning, and a session since it was last
        used, are left alone. While there is none to end for it, whoever is one too many gets no
        answer; its ClientHello comes again, after a second, after two and so on, so a fleet that
        comes back all at once spreads itself.
    :param hellos_per_second: ClientHellos without a cookie that are answered per second.
    :param handshakes_per_second: ClientHellos with their cookie that are answered per second.
        They are counted apart, so that a flood from forged addresses, which never see a cookie,
        does not stop those who have theirs.
    :param send_buffer: octets that may wait for the socket; what comes on top is dropped.
    """

    handshake_timeout: float = 60.0
    idle_timeout: float = 120.0
    maximum_sessions: int = 2000
    maximum_handshakes: int = 1000
    grace: float = 5.0
    hellos_per_second: int = 2000
    handshakes_per_second: int = 2000
    send_buffer: int = 1 << 20

    def __post_init__(self) -> None:
        for name in DatagramLimits.__slots__:
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be positive")


class DtlsServer(asyncio.DatagramProtocol):
    """The server's socket: a session for each peer that returned its cookie.

    :param listener: answers who has no session.
    :param open_user: makes the user of a session once its handshake is complete.
    :param limits: the bounds.
    """

    def __init__(
        self,
        listener: DtlsListener,
        open_user: Callable[[DtlsChannel], ChannelUser],
        limits: DatagramLimits | None = None,
    ) -> None:
        self._listener = listener
        self._open_user = open_user
        self._limits = limits or DatagramLimits()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = self._loop.create_future()
        # The one that has been silent longest comes first.
        self._channels: OrderedDict[SocketAddress, DtlsChannel] = OrderedDict()
        self._handshakes: OrderedDict[SocketAddress, DtlsChannel] = OrderedDict()
        now = self._loop.time()
        self._hellos = _Budget(self._limits.hellos_per_second, now)
        self._returning = _Budget(self._limits.handshakes_per_second, now)
        self._accepting = True
        #: Datagrams that were not looked at or not sent because of a limit.
        self.dropped = 0

    @property
    def sessions(self) -> int:
        """How many sessions there are, those in the handshake included."""
        return len(self._channels)

    def renew(
        self,
        listener: DtlsListener,
        open_user: Callable[[DtlsChannel], ChannelUser],
        limits: DatagramLimits,
    ) -> tuple[DtlsChannel, ...]:
        """Open sessions with other settings from now on; parameters as for the class.

        :return: the sessions that there are, which keep the settings that they began with.
        """
        self._listener = listener
        self._open_user = open_user
        self._limits = limits
        now = self._loop.time()
        self._hellos = _Budget(limits.hellos_per_second, now)
        self._returning = _Budget(limits.handshakes_per_second, now)
        return tuple(self._channels.values())

    @property
    def busy(self) -> bool:
        """Whether any session is working."""
        return any(channel.busy for channel in self._channels.values())

    @property
    def address(self) -> SocketAddress:
        """The address and port that the socket is bound to."""
        assert self._transport is not None
        address: SocketAddress = self._transport.get_extra_info("sockname")
        return address

    async def listen(
        self, host: str, port: int, factory: DatagramTransportFactory = udp_transport
    ) -> None:
        """Open the socket.

        :raises OSError: the address cannot be had.
        """
        self._transport = await factory(self, local=(host, port), remote=None)

    def stop_accepting(self) -> None:
        """Let no new session in."""
        self._accepting = False

    async def close(self) -> None:
        """Close every session with a close_notify, and the socket."""
        self.stop_accepting()
        for channel in list(self._channels.values()):
            channel.close(ChannelClosed("the server is shutting down"))
        if self._transport is not None:
            self._transport.close()
            await self._closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket's transport."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the socket is closed."""
        if not self._closed.done():
            self._closed.set_result(None)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error tells nothing that a time-out does not, and may be forged."""
        _log.debug("the socket reports %s", exc)

    def datagram_received(self, data: bytes, addr: SocketAddress) -> None:
        """Give the datagram to its session, or to the listener."""
        channel = self._channels.get(addr)
        if channel is None or _opens_another_session(data, channel):
            self._listen(data, addr)
        elif channel.datagram_received(data) and addr in self._channels:
            self._channels.move_to_end(addr)

    def _listen(self, data: bytes, addr: SocketAddress) -> None:
        """RFC 6347 section 4.2.1; section 4.2.8 for a client that lost its session."""
        address, now = format_address(addr), self._loop.time()
        # What is no ClientHello costs next to nothing and must not use up the budget.
        hello = records.first_handshake_record(data)
        if not self._accepting or hello is None or hello.client_random is None:
            self.dropped += 1
            return
        returning = self._listener.knows_the_cookie(data, address)
        if not (self._returning if returning else self._hellos).take(now):
            self.dropped += 1
            return
        replies, session = self._listener.receive_datagram(data, address, now)
        if session is None:
            for reply in replies:
                self._transmit(reply, addr)
            return
        previous = self._channels.get(addr)
        if previous is not None:
            previous.close(ChannelClosed("the peer began a new session"))
        if not self._make_room():
            self.dropped += 1
            return
        self._open(session, replies, addr)

    def _open(self, session: DtlsSession, flight: list[bytes], addr: SocketAddress) -> None:
        open_user = self._open_user

        def handshake_complete(channel: DtlsChannel) -> ChannelUser:
            del self._handshakes[addr]
            return open_user(channel)

        channel = DtlsChannel(
            session,
            lambda datagram: self._transmit(datagram, addr),
            handshake_complete,
            lambda channel, reason: self._forget(channel, reason, addr),
            handshake_timeout=self._limits.handshake_timeout,
            idle_timeout=self._limits.idle_timeout,
        )
        self._channels[addr] = channel
        self._handshakes[addr] = channel
        for datagram in flight:
            self._transmit(datagram, addr)
        channel.begin()

    def _make_room(self) -> bool:
        if len(self._handshakes) >= self._limits.maximum_handshakes:
            longest = next(iter(self._handshakes.values()))
            if not self._may_end(longest):
                return False
            longest.close(HandshakeFailed("another handshake needed the room"))
        if len(self._channels) < self._limits.maximum_sessions:
            return True
        for channel in self._channels.values():
            if channel.established and not channel.busy and self._may_end(channel):
                channel.close(ChannelClosed("another session needed the room"))
                return True
        return False

    def _may_end(self, channel: DtlsChannel) -> bool:
        return self._loop.time() >= channel.last_activity + self._limits.grace

    def _forget(self, channel: DtlsChannel, reason: ChannelError, addr: SocketAddress) -> None:
        _log.debug("%s: session over: %s", channel.session.address, reason)
        self._handshakes.pop(addr, None)
        self._channels.pop(addr, None)

    def _transmit(self, datagram: bytes, addr: SocketAddress) -> None:
        if not send_datagram(self._transport, datagram, addr, self._limits.send_buffer):
            self.dropped += 1


class _Budget:
    """A number of things per second, no more than one second's worth at once."""

    def __init__(self, per_second: int, now: float) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._at = now

    def take(self, now: float) -> bool:
        """Whether there is one left."""
        grown = self._left + (now - self._at) * self._per_second
        self._left = min(float(self._per_second), grown)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _opens_another_session(data: bytes, channel: DtlsChannel) -> bool:
    """Whether a ClientHello came that is no duplicate of the one that opened the session."""
    first = records.first_handshake_record(data)
    random = first.client_random if first is not None else None
    return random is not None and random != channel.session.client_random
