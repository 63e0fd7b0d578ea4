"""One HTTP/1.1 connection to EST and nothing else: requests in, answers out.

aiohttp's parser reads the requests (llhttp with aiohttp's own checks), so that what is refused as
malformed is the same as in any aiohttp application. What aiohttp has above it, an application
with routes, streams and a task per connection, takes 110 to 170 us per request on top of the 150
to 190 that remain, and up to 300 per connection; that is why EST is not served through it unless
it is mounted in one.

The life of a connection, each state within its time-out::

    header --> body --> answer --> rest of the body --> idle --> header ...
                                                   \\--> end

A request is answered before the next one is looked at: what a client sends meanwhile is held, and
no more is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Protocol
from urllib.parse import unquote

from aiohttp.http import HttpRequestParser, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import MessageError
from est_protocol.media_types import PLAIN_TEXT
from est_protocol.secure_channel.stream import PEER_CREDENTIALS, format_address
from est_server.https import answers
from est_server.https.connections import HttpConnection
from est_server.https.deadlines import Deadline
from est_server.https.peers import Connection
from est_server.https.runner import RunnerLimits
from est_server.https.translation import HttpAnswer, HttpRequest, segments_below

_log = logging.getLogger(__name__)

#: Octets of a body that are held while nobody takes them.
_MOST_HELD = 65536


class Site(Protocol):
    """What the connections of one server have in common."""

    limits: RunnerLimits
    access_log: logging.Logger | None

    async def answer(self, http: HttpRequest) -> HttpAnswer:
        """Answer a request."""
        ...

    def admit(self, connection: Http1Connection) -> bool:
        """Note that a connection is there; whether it may stay."""
        ...

    def forget(self, connection: Http1Connection) -> None:
        """Note that it is over, and nothing is under way on it."""
        ...


class _Unhindered:
    """What the parser wants to pause. Bodies are bounded here, not by it."""

    def pause_reading(self) -> None:
        pass

    def resume_reading(self, resume_parser: bool = True) -> None:
        pass


_UNHINDERED = _Unhindered()


class Http1Connection(HttpConnection):
    """See the module.

    :param site: whose connection it is.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._limits = limits = site.limits
        self._loop = loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(
            _UNHINDERED,  # type: ignore[arg-type]
            loop,
            _MOST_HELD,
            max_line_size=limits.header_line_size,
            max_field_size=limits.header_line_size,
            max_headers=limits.header_count,
            # Nobody inflates what a stranger compressed.
            auto_decompress=False,
            # Look at one request at a time.
            max_msg_queue_size=1,
        )
        self._transport: asyncio.Transport
        self._connection: Connection
        self._deadline = Deadline(loop)
        #: The body of the request under way; ``None`` between requests.
        self._body: StreamReader | None = None
        self._taken = 0
        self._broken = False
        self._body_came: asyncio.Future[None] | None = None
        #: What came after the request under way.
        self._held = bytearray()
        self._writing_paused = False
        #: Whether the connection ends with the answer that is next.
        self._closing = False
        self._ended = False
        self._lost = False
        #: Answers the request under way.
        self.answering: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """See :class:`HttpConnection`."""
        return self.answering is None or self._body_came is not None or self._writing_paused

    # --- the protocol of the transport -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, its TLS handshake complete."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        name = transport.get_extra_info("peername")
        channel: PeerCredentials | None = transport.get_extra_info(PEER_CREDENTIALS)
        self._connection = Connection(
            # The peer of a Unix socket has no name, or a path.
            host=str(name[0]) if isinstance(name, tuple) else None,
            address=format_address(name) if isinstance(name, tuple) else "unix",
            channel=channel,
            over_tls=transport.get_extra_info("sslcontext") is not None,
        )
        if not self._site.admit(self):
            self._end()
            return
        self._deadline.set(self._limits.header_timeout, self._no_header)

    def data_received(self, data: bytes) -> None:
        """Octets of a request or of what follows it."""
        if self._broken or self._ended:
            return
        if self._body is None:
            if not self._deadline.is_set(self._no_header):
                self._deadline.set(self._limits.header_timeout, self._no_header)
            self._feed(data)
        elif self._body.is_eof():
            self._held += data
            self._transport.pause_reading()
        else:
            self._feed(data)

    def pause_writing(self) -> None:
        """The client does not read."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writing_paused = False
        if self._body is not None and self.answering is None and self._body.is_eof():
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over; a request that is being answered is decided all the same."""
        self._lost = True
        self._deadline.cancel()
        self._wake()
        if self.answering is None:
            self._site.forget(self)

    # --- requests --------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        try:
            # The parser says ValueError of some paths.
            messages, _, _ = self._parser.feed_data(data)
        except (HttpProcessingError, ValueError) as error:
            self._malformed(error)
            return
        if messages:
            [(message, body)] = messages
            if message.version.major == 1:
                self._begin(message, body)
            else:
                self._malformed(ValueError("another version of HTTP"))
        elif self._body is not None:
            self._take_more(self._body)

    def _begin(self, message: RawRequestMessage, body: StreamReader) -> None:
        self._deadline.clear()
        self._body, self._taken = body, 0
        if message.should_close or message.upgrade or message.version != HttpVersion11:
            # Nobody needs what HTTP/1.0 calls keep-alive, nor another protocol from here on.
            self._closing = True
        self.answering = self._loop.create_task(self._answer(message, body))

    async def _answer(self, message: RawRequestMessage, body: StreamReader) -> None:
        try:
            answer = await self._site.answer(self._request(message, body))
            octets = self._encode(message, answer)
        except Exception:
            _log.exception("unexpected error while answering a request")
            headers = [("Content-Type", str(PLAIN_TEXT))]
            answer = HttpAnswer(500, b"internal error\n", headers, close=True)
            octets = self._encode(message, answer)
        finally:
            self.answering = None
            if self._lost:
                self._site.forget(self)
        if not self._lost:
            self._send(octets, body)
        if self._site.access_log is not None:
            self._site.access_log.info(
                '%s "%s %s" %d',
                self._connection.address,
                message.method,
                message.path,
                answer.status,
            )

    def _encode(self, message: RawRequestMessage, answer: HttpAnswer) -> bytes:
        self._closing |= answer.close or self._broken
        return answers.encode(answer, to_head=message.method == "HEAD", close=self._closing)

    def _send(self, octets: bytes, body: StreamReader) -> None:
        self._transport.write(octets)
        if body.is_eof():
            self._go_on()
        elif self._broken:
            self._end()
        else:
            # Closing at once would make the kernel send a reset that overtakes the answer.
            self._deadline.set(self._limits.linger_timeout, self._end)
            self._transport.resume_reading()
            self._take_more(body)

    def _go_on(self) -> None:
        """The request is done: wait for the next one, if it is not here already."""
        if self._closing:
            self._end()
        elif not self._writing_paused:
            # Otherwise its client would make us hold one answer after the other.
            self._body = None
            self._deadline.set(self._limits.idle_timeout, self._end)
            self._parser.message_consumed()
            held, self._held = bytes(self._held), bytearray()
            self._transport.resume_reading()
            self._feed(held)

    def finish(self) -> None:
        """End the connection once the request under way is answered."""
        self._closing = True
        if self.answering is None:
            self._end()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()
        if self.answering is not None:
            self.answering.cancel()

    def _end(self) -> None:
        self._ended = True
        self._body = None
        self._deadline.cancel()
        self._transport.close()

    def _no_header(self) -> None:
        _log.info(
            "ending the connection of %s: no header within %g s",
            self._connection.address,
            self._limits.header_timeout,
        )
        self._transport.abort()

    def _malformed(self, error: Exception) -> None:
        _log.info("malformed HTTP from %s: %s", self._connection.address, error)
        if self.answering is not None:
            # The answer says so, once there is one.
            self._broken = True
            self._wake()
        else:
            if self._body is None:
                self._transport.write(answers.MALFORMED)
            self._end()

    def _request(self, message: RawRequestMessage, body: StreamReader) -> HttpRequest:
        headers: dict[str, list[str]] = {}
        for name, value in message.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        invite = headers.get("expect", [""])[0].lower() == "100-continue"
        # For the form of a proxy's request, RFC 9112 section 3.2.2, the parser finds the path.
        path = message.path if message.path.startswith("/") else message.url.raw_path
        return HttpRequest(
            message.method,
            message.path,
            tuple(map(unquote, segments_below(path.partition("?")[0]))),
            headers,
            self._connection,
            lambda: self._read_body(body, invite=invite),
            arrived=None if invite or not body.is_eof() else body.read_nowait(),
        )

    # --- bodies ----------------------------------------------------------------------------------

    async def _read_body(self, body: StreamReader, *, invite: bool) -> AsyncIterator[bytes]:
        if invite:
            self._transport.write(answers.CONTINUE)
        while True:
            if self._lost:
                raise MessageError("the connection ended within the body")
            if self._broken:
                raise MessageError("the body's transfer coding is broken")
            piece = body.read_nowait()
            if piece:
                self._taken += len(piece)
                yield piece
            elif body.is_eof():
                return
            else:
                self._transport.resume_reading()
                self._body_came = self._loop.create_future()
                try:
                    await self._body_came
                finally:
                    self._body_came = None

    def _take_more(self, body: StreamReader) -> None:
        """Some of the body has arrived, or its end: for who reads it, or for nobody."""
        if self.answering is None:
            body.read_nowait()
            if body.is_eof():
                self._go_on()
        elif self._body_came is not None:
            self._wake()
        elif body.total_bytes - self._taken > _MOST_HELD:
            self._transport.pause_reading()

    def _wake(self) -> None:
        if self._body_came is not None and not self._body_came.done():
            self._body_came.set_result(None)
