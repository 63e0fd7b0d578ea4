"""The asyncio driver of TLS: a transport that runs any :class:`asyncio.Protocol` on our engine.

:class:`TlsTransport` is downwards the protocol of a TCP transport and upwards the transport of
an application protocol, such as aiohttp's. Its life::

    HANDSHAKE --> OPEN --> ENDING --> ENDED
        |                     ^         ^
        +-- alert ------------+         |
        +-- time-out -------------------+

The application protocol is made when the handshake is complete, so that a peer that never gets
there costs no more than this object. In ENDING everything has been said, close_notify included:
what still arrives is dropped until the peer ends its side or a time-out does. Closing the socket
right away would make the kernel send a reset that overtakes the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, cast

from est_protocol.errors import ChannelClosed, ChannelError, HandshakeFailed
from est_protocol.secure_channel.tls import TlsEngine

_log = logging.getLogger(__name__)

#: ``get_extra_info`` name of the peer's :class:`~est_protocol.credentials.PeerCredentials`.
PEER_CREDENTIALS = "est.peer_credentials"
#: ``get_extra_info`` name of whether the peer ended its side with close_notify.
PEER_CLOSED = "est.peer_closed"


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """The bounds of one TLS connection.

    :param handshake_timeout: seconds from the TCP connection to the end of the handshake.
    :param write_timeout: seconds for which output may wait because the peer does not read.
    :param shutdown_timeout: seconds for the peer to take the last output and end its side.
    :param write_buffer: octets of output that may wait before the application is asked to pause,
        and before a server stops reading from the peer.
    """

    handshake_timeout: float = 10.0
    write_timeout: float = 30.0
    shutdown_timeout: float = 5.0
    write_buffer: int = 65536


DEFAULT_STREAM_LIMITS = StreamLimits()


class _State(Enum):
    HANDSHAKE = auto()
    OPEN = auto()
    ENDING = auto()
    ENDED = auto()


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """TLS between a TCP transport and an application protocol.

    ``get_extra_info`` answers ``est.peer_credentials`` (see :mod:`est_protocol.credentials`),
    ``est.peer_closed``, ``sslcontext`` with the OpenSSL context, ``cipher``, and what the TCP
    transport knows (``peername``, ``sockname``, ``socket``).

    :param make_engine: makes the engine when the peer's address (``host:port``) is known.
    :param protocol_factory: makes the application protocol once the handshake is complete.
    :param limits: the bounds.
    :param server: the role.
    :param ended: called once, when everything is over.
    """

    def __init__(
        self,
        make_engine: Callable[[str], TlsEngine],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        limits: StreamLimits,
        *,
        server: bool,
        ended: Callable[[TlsTransport], None] | None = None,
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._make_engine = make_engine
        self._protocol_factory = protocol_factory
        self._limits = limits
        self._server = server
        self._ended = ended
        self._state = _State.HANDSHAKE
        self._tcp: asyncio.Transport
        self._connected = False
        self._aborted = False
        self._engine: TlsEngine
        self._protocol: asyncio.Protocol | None = None
        self._address = ""
        #: Plaintext that arrived in the same read as what made the application pause.
        self._inbox: deque[bytes] = deque()
        self._reading_paused = False
        self._tcp_paused = False
        self._writing_paused = False
        self._stream_ended = False
        self._error: ChannelError | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        #: Done when the handshake is complete or has failed.
        self.handshake: asyncio.Future[asyncio.Protocol] = self._loop.create_future()
        self._over = asyncio.Event()

    # --- the protocol of the TCP transport -------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TCP connection is there: begin the handshake."""
        self._tcp = cast(asyncio.Transport, transport)
        self._connected = True
        self._tcp.set_write_buffer_limits(high=self._limits.write_buffer)
        self._address = format_address(self._tcp.get_extra_info("peername"))
        self._engine = self._make_engine(self._address)
        self._deadline = self._loop.call_later(
            self._limits.handshake_timeout, self._handshake_timed_out
        )
        if self._aborted:
            self._tcp.abort()
        else:
            self._drive(self._engine.start)

    def data_received(self, data: bytes) -> None:
        """Octets from the peer."""
        if self._state in (_State.HANDSHAKE, _State.OPEN):
            self._drive(self._engine.receive_octets, data)

    def eof_received(self) -> bool:
        """The peer ended its side of the TCP connection, with or without close_notify."""
        self._stream_ended = True
        if self._state is _State.ENDING:
            self._tcp.close()
        elif self._state in (_State.HANDSHAKE, _State.OPEN):
            self._drive(self._engine.receive_eof)
        # The TCP transport stays open for the rest of our output; _end closes it.
        return True

    def pause_writing(self) -> None:
        """The peer does not read fast enough."""
        self._writing_paused = True
        self._write_deadline = self._loop.call_later(
            self._limits.write_timeout, self._write_timed_out
        )
        self._set_reading()
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._writing_paused = False
        self._cancel_write_deadline()
        self._set_reading()
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The TCP connection is over."""
        self._state = _State.ENDED
        self._cancel_deadline()
        self._cancel_write_deadline()
        self._inbox.clear()
        if self._protocol is not None:
            self._protocol.connection_lost(self._error or exc)
        else:
            self._refuse(self._error or HandshakeFailed(f"the connection ended: {exc or 'closed'}"))
        self._over.set()
        if self._ended is not None:
            self._ended(self)

    # --- between the two -------------------------------------------------------------------------

    def _drive(self, step: Callable[..., list[bytes] | None], *arguments: bytes) -> None:
        """Take one step of the engine, send what it has to say, deliver what it understood."""
        error: ChannelError | None = None
        try:
            self._inbox.extend(step(*arguments) or ())
        except ChannelError as caught:
            error = caught
        complete = self._state is _State.HANDSHAKE and self._engine.established
        if error is not None or not (complete and self._engine.only_tickets_wait):
            self._flush()
        if error is not None:
            self._end(error)
            return
        if complete:
            self._open()
        self._deliver()

    def _flush(self) -> None:
        if octets := self._engine.octets_to_send():
            self._tcp.write(octets)

    def _open(self) -> None:
        self._cancel_deadline()
        self._state = _State.OPEN
        self._protocol = protocol = cast(asyncio.Protocol, self._protocol_factory())
        protocol.connection_made(self)
        if self._writing_paused:
            protocol.pause_writing()
        if not self.handshake.done():
            self.handshake.set_result(protocol)

    def _deliver(self) -> None:
        """Hand plaintext to the application as long as it takes it, then the end of the stream."""
        while self._inbox and not self._reading_paused and self._state is _State.OPEN:
            assert self._protocol is not None
            self._protocol.data_received(self._inbox.popleft())
        if self._state is not _State.OPEN:
            return
        self._set_reading()
        over = self._stream_ended or self._engine.peer_closed
        if over and not self._reading_paused:
            assert self._protocol is not None
            # As with asyncio's own TLS, a true answer does not keep the channel half open.
            self._protocol.eof_received()
            self.close()

    def _set_reading(self) -> None:
        """Read from the peer only what somebody takes.

        A server does not read from a peer that does not read its answers, or else the peer could
        make it buffer answers without bound, TLS KeyUpdate messages among them.
        """
        if self._tcp.is_closing() or self._stream_ended:
            return
        held = self._reading_paused or self._inbox or (self._server and self._writing_paused)
        paused = bool(held) and self._state is _State.OPEN
        if paused is self._tcp_paused:
            return
        self._tcp_paused = paused
        if paused:
            self._tcp.pause_reading()
        else:
            self._tcp.resume_reading()

    def _end(self, error: ChannelError | None = None) -> None:
        """Everything is said: end our side and wait, within bounds, for the peer's."""
        if self._state in (_State.ENDING, _State.ENDED):
            return
        self._state = _State.ENDING
        self._error = error
        if error is not None and self._protocol is None:
            self._refuse(error)
        self._inbox.clear()
        self._cancel_deadline()
        self._deadline = self._loop.call_later(self._limits.shutdown_timeout, self._tcp.abort)
        if self._stream_ended:
            self._tcp.close()
            return
        try:
            self._tcp.write_eof()
        except OSError:
            # The peer reset the connection, and the event loop has not come to it yet.
            self._tcp.abort()
            return
        self._set_reading()

    def _refuse(self, error: ChannelError) -> None:
        if not self.handshake.done():
            _log.info("TLS handshake with %s failed: %s", self._address, error)
            self.handshake.set_exception(error)
            # Whoever waits gets it; on a server nobody does, and the log line was all.
            self.handshake.exception()

    def _handshake_timed_out(self) -> None:
        self._error = HandshakeFailed(
            f"no TLS handshake within {self._limits.handshake_timeout:g} s"
        )
        self._tcp.abort()

    def _write_timed_out(self) -> None:
        self._error = ChannelClosed(f"the peer took no octets for {self._limits.write_timeout:g} s")
        self._tcp.abort()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cancel_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    # --- the transport of the application protocol -----------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See the class; other names are asked of the TCP transport."""
        if name == PEER_CREDENTIALS:
            return self._engine.peer
        if name == PEER_CLOSED:
            return self._engine.peer_closed
        if name == "sslcontext":
            return self._engine.context
        if name == "cipher" and self._engine.peer is not None:
            return (self._engine.peer.cipher, self._engine.peer.protocol, None)
        return self._tcp.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the channel to another application protocol."""
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The application protocol."""
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._state is not _State.OPEN or self._tcp.is_closing()

    def is_reading(self) -> bool:
        """Whether the application takes input."""
        return self._state is _State.OPEN and not self._reading_paused

    def pause_reading(self) -> None:
        """Deliver nothing until :meth:`resume_reading`."""
        self._reading_paused = True
        self._set_reading()

    def resume_reading(self) -> None:
        """Deliver again, beginning with the next turn of the event loop."""
        if self._reading_paused:
            self._reading_paused = False
            self._loop.call_soon(self._deliver)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; without effect once the channel is closing."""
        if self._state is _State.OPEN:
            self._drive_output(self._engine.send_plaintext, bytes(data))

    def close(self) -> None:
        """Send what was written and a close_notify, then end the connection."""
        if self._state is _State.HANDSHAKE:
            self.abort()
        elif self._state is _State.OPEN:
            self._drive_output(self._engine.close)
            self._end()

    def abort(self) -> None:
        """End the connection at once; what was not sent yet is lost."""
        # A server may want that before asyncio has told that there is a connection.
        self._aborted = True
        if self._connected:
            self._tcp.abort()

    async def wait_closed(self) -> None:
        """Wait until everything is over; after :meth:`close` that is bounded by the limits."""
        await self._over.wait()

    @property
    def established(self) -> bool:
        """Whether the handshake was completed."""
        return self._protocol is not None

    def _drive_output(self, step: Callable[..., None], *arguments: bytes) -> None:
        try:
            step(*arguments)
        except ChannelError as error:
            self._flush()
            self._end(error)
        else:
            self._flush()

    def can_write_eof(self) -> bool:
        """No: TLS 1.2 knows no half-closed channel (RFC 5246 section 7.2.1)."""
        return False

    def write_eof(self) -> None:
        """Not supported, see :meth:`can_write_eof`."""
        raise NotImplementedError("TLS channels are not half-closed")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As the TCP transport does, whose buffer is the only one."""
        self._tcp.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Octets that wait to be sent, encryption included."""
        return self._tcp.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high water mark in octets."""
        return self._tcp.get_write_buffer_limits()

    @property
    def _sendfile_compatible(self) -> object:
        # What asyncio's loop.sendfile looks at; aiohttp's FileResponse takes this error, and only
        # this one, as the advice to read and write instead.
        raise NotImplementedError("files are encrypted before they are sent")


def format_address(address: object) -> str:
    """A socket address as ``host:port``, IPv6 hosts in brackets; empty if there is none."""
    if not isinstance(address, tuple):
        return ""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
