"""CoAP over one DTLS session, the server's half of RFC 7252 section 4: requests in, answers out.

What aiocoap does for any endpoint took 130 to 220 us of CPU per exchange; a server that sends
nothing but answers needs little of it. Every request is answered once: in its acknowledgement if
the answer is there in time, else by a message of its own that is repeated until it is
acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from est_protocol.coap.octets import ACK, CON, EMPTY, NON, RST, CoapOctets, encode, parse
from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.coap.recent import RecentRequests
from est_protocol.coap.session import CoapLimits
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ChannelClosed, ChannelError, MessageError
from est_protocol.secure_channel.dtls_channel import DtlsChannel
from est_server.coaps.messages import UNDERSTOOD, Request, Response

_log = logging.getLogger("est_server.coaps")

#: Code classes of RFC 7252 section 12.1.
_REQUEST_CLASS = 0
_INTERNAL_SERVER_ERROR = 0xA0


class Site(Protocol):
    """What answers requests."""

    def answer(self, request: Request) -> Response | Coroutine[Any, Any, Response]:
        """The answer if it is there at once, else a coroutine that makes it."""
        ...


class ServerSession:
    """The user of one established DTLS session.

    :param channel: the session.
    :param site: answers its requests.
    :param parameters: the transmission parameters.
    :param limits: the bounds.
    :param on_lost: called when the session is over.
    """

    def __init__(
        self,
        channel: DtlsChannel,
        site: Site,
        *,
        parameters: TransmissionParameters,
        limits: CoapLimits,
        on_lost: Callable[[ServerSession], None] = lambda _: None,
    ) -> None:
        self._channel = channel
        self._site = site
        self._parameters = parameters
        self._limits = limits
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._recent = RecentRequests(
            count=limits.remembered_requests,
            octets=limits.remembered_octets,
            lifetime=parameters.exchange_lifetime,
        )
        self._working: dict[bytes, _Work] = {}
        self._separate = _SeparateAnswers(self._send, parameters)
        #: Datagrams of the peer that were no CoAP, or one request too many.
        self.dropped = 0

    @property
    def peer(self) -> PeerCredentials:
        """Who it is, as far as the handshake proved it."""
        return self._channel.peer

    @property
    def busy(self) -> bool:
        """Whether a request is being worked on or an answer is not acknowledged yet."""
        return bool(self._working or self._separate.waiting)

    def datagram_received(self, plaintext: bytes) -> None:
        """Take one CoAP message; what is none is dropped and counted."""
        try:
            message = parse(plaintext, UNDERSTOOD)
        except MessageError as error:
            self.dropped += 1
            _log.debug("%s: %s", self._channel.session.address, error)
            return
        if message.type in (ACK, RST):
            self._separate.acknowledged(message.message_id)
        elif message.code == EMPTY or message.code >> 5 != _REQUEST_CLASS:
            # A ping (section 4.3), or an answer to what nobody asked.
            if message.type == CON:
                self._send(encode(RST, EMPTY, message.message_id))
        elif not self._is_duplicate(message):
            self._begin(message)

    def channel_lost(self, reason: ChannelError) -> None:
        """End every exchange; nothing of the session is left in the event loop."""
        self._separate.cancel()
        for work in list(self._working.values()):
            work.cancel()
        self._on_lost(self)

    def _is_duplicate(self, message: CoapOctets) -> bool:
        """Whether the request came before; its answer, if there is one yet, is sent again."""
        if not self._recent.is_duplicate(message.message_id, self._loop.time()):
            return False
        answer = self._recent.answer(message.message_id)
        if message.type == CON and answer is not None:
            self._send(answer)
        return True

    def _begin(self, message: CoapOctets) -> None:
        request = Request.of(message, self)
        ignorable = message.type == NON and request.bad_option is not None
        no_room = len(self._working) >= self._limits.maximum_requests
        # A request may not take the token of one that is being worked on (section 5.3.1).
        if ignorable or no_room or message.token in self._working:
            self.dropped += 1
            return
        self._recent.begin(message.message_id, self._loop.time())
        answer = self._site.answer(request)
        if isinstance(answer, Response):
            self._reply(message, answer, acknowledged=False)
        else:
            self._working[message.token] = _Work(self, message, answer)

    def _reply(self, message: CoapOctets, answer: Response, *, acknowledged: bool) -> None:
        options = answer.options()
        if message.type == NON:
            number = self._separate.next_message_id()
            self._send(encode(NON, answer.code, number, message.token, options, answer.payload))
        elif acknowledged:
            self._separate.send(answer.code, message.token, options, answer.payload)
        else:
            number = message.message_id
            octets = encode(ACK, answer.code, number, message.token, options, answer.payload)
            self._recent.complete(number, octets)
            self._send(octets)

    def _acknowledge(self, message: CoapOctets) -> None:
        """Say that the answer comes by itself (section 5.2.2)."""
        octets = encode(ACK, EMPTY, message.message_id)
        self._recent.complete(message.message_id, octets)
        self._send(octets)

    def _finished(self, work: _Work, answer: Response) -> None:
        self._working.pop(work.message.token, None)
        if not self._channel.lost:
            self._reply(work.message, answer, acknowledged=work.acknowledged)

    def _send(self, octets: bytes) -> None:
        try:
            self._channel.send(octets)
        except ChannelClosed:
            _log.debug("%s: the session is over", self._channel.session.address)
        except ValueError:
            address = self._channel.session.address
            _log.error("%s: a message of %d octets exceeds the MTU", address, len(octets))


class _Work:
    """One request whose answer takes its time."""

    def __init__(
        self, session: ServerSession, message: CoapOctets, answer: Coroutine[Any, Any, Response]
    ) -> None:
        self.message = message
        self.acknowledged = False
        self._session = session
        loop = session._loop
        self._task = loop.create_task(answer)
        self._task.add_done_callback(self._done)
        self._timer: asyncio.TimerHandle | None = None
        if message.type == CON:
            delay = session._parameters.empty_ack_delay
            self._timer = loop.call_later(delay, self._acknowledge)

    def cancel(self) -> None:
        """Wait for the answer no longer; the service decides and records it all the same."""
        self._stop_timer()
        self._task.cancel()

    def _acknowledge(self) -> None:
        self.acknowledged = True
        self._session._acknowledge(self.message)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _done(self, task: asyncio.Task[Response]) -> None:
        self._stop_timer()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            # A bug: it must neither reach the client nor go unseen.
            _log.error("a request could not be answered", exc_info=error)
            self._session._finished(self, Response(_INTERNAL_SERVER_ERROR))
        else:
            self._session._finished(self, task.result())


class _SeparateAnswers:
    """Confirmable answers, one at a time (NSTART is 1), repeated until acknowledged (section 4.2).

    :param send: sends octets.
    """

    def __init__(self, send: Callable[[bytes], None], parameters: TransmissionParameters) -> None:
        self._send = send
        self._parameters = parameters
        self._loop = asyncio.get_running_loop()
        self._message_id = random.randrange(1 << 16)
        self._queue: deque[tuple[int, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._repeated = 0
        self._timeout = 0.0

    @property
    def waiting(self) -> bool:
        """Whether one is not acknowledged yet."""
        return bool(self._queue)

    def next_message_id(self) -> int:
        """A Message ID of this end's."""
        self._message_id = (self._message_id + 1) & 0xFFFF
        return self._message_id

    def send(
        self, code: int, token: bytes, options: list[tuple[int, bytes]], payload: bytes
    ) -> None:
        """Send an answer when its turn has come; there are no more than requests at a time."""
        number = self.next_message_id()
        self._queue.append((number, encode(CON, code, number, token, options, payload)))
        if len(self._queue) == 1:
            self._begin()

    def acknowledged(self, message_id: int) -> None:
        """The peer has the message, or wants none of it (a reset)."""
        if self._queue and self._queue[0][0] == message_id:
            self._next()

    def cancel(self) -> None:
        """Repeat nothing any more."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        self._repeated = 0
        factor = random.uniform(1.0, self._parameters.ack_random_factor)
        self._timeout = self._parameters.ack_timeout * factor
        self._transmit()

    def _transmit(self) -> None:
        self._timer = self._loop.call_later(self._timeout, self._on_timeout)
        self._send(self._queue[0][1])

    def _on_timeout(self) -> None:
        if self._repeated >= self._parameters.max_retransmit:
            self._next()
            return
        self._repeated += 1
        self._timeout *= 2
        self._transmit()

    def _next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._queue.popleft()
        if self._queue:
            self._begin()
