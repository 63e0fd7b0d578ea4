"""Time-outs of HTTP requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from est_server.https.connections import HttpConnection

_log = logging.getLogger(__name__)

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Deadline:
    """One time-out after the other on one connection, by one timer for most of them.

    A timer that is set and cancelled costs 2 us and stays in the event loop's heap for its time.
    Here a later deadline is an assignment: the timer finds it when it goes off.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._at = 0.0
        self._expired: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float, expired: Callable[[], None]) -> None:
        """Call ``expired`` in ``seconds``, and nothing of what was set before."""
        self._at = self._loop.time() + seconds
        self._expired = expired
        if self._timer is not None:
            if self._timer.when() <= self._at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(self._at, self._went_off)

    def is_set(self, expired: Callable[[], None]) -> bool:
        """Whether ``expired`` is what will be called."""
        return self._expired == expired

    def clear(self) -> None:
        """Call nothing."""
        self._expired = None

    def cancel(self) -> None:
        """The same, for good."""
        self._expired = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _went_off(self) -> None:
        self._timer = None
        expired = self._expired
        if expired is None:
            return
        if self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._went_off)
        else:
            self._expired = None
            expired()


class RequestTimes(Protocol):
    """Seconds that the parts of a request may take; see
    :class:`~est_server.https.limits.HttpsLimits`."""

    @property
    def header_timeout(self) -> float: ...

    @property
    def body_timeout(self) -> float: ...

    @property
    def linger_timeout(self) -> float: ...


class RequestDeadlines(HttpConnection):
    """Stands between the transport and aiohttp's protocol, and ends slow connections, which
    aiohttp does not.

    A client that dribbles its header or its body costs its connection, after the times that
    ``limits`` names. :func:`timed` tells when a header is complete and when a request is done.
    """

    def __init__(self, handler: asyncio.Protocol, limits: RequestTimes) -> None:
        self._handler = handler
        self._limits = limits
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None
        self._in_request = False
        self._body_is_missing: Callable[[], bool] = lambda: False
        self._writing_paused = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do but wait for the client: for a request or the rest of
        its body, or until it takes what it was answered."""
        return not self._in_request or self._body_is_missing() or self._writing_paused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, its TLS handshake complete."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._handler.connection_made(transport)
        self._set_deadline(self._limits.header_timeout, "header")

    def data_received(self, data: bytes) -> None:
        """Octets of a request; the first ones start the clock."""
        if not self._in_request and self._deadline is None:
            self._set_deadline(self._limits.header_timeout, "header")
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        """The client ended its side."""
        return self._handler.eof_received()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._writing_paused = True
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writing_paused = False
        self._handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._cancel()
        self._handler.connection_lost(exc)

    def request_began(self, request: web.BaseRequest) -> None:
        """A header is complete and its request is about to be handled."""
        self._in_request = True
        self._cancel()
        self._body_is_missing = lambda: not request.content.is_eof()
        if self._body_is_missing():
            # The application may answer a slow body itself, as EST does, and comes first.
            self._set_deadline(
                self._limits.body_timeout + self._limits.linger_timeout,
                "body",
                self._body_is_missing,
            )

    def request_ended(self) -> None:
        """A request has been handled; aiohttp sends the answer and then waits for the next."""
        self._in_request = False
        self._cancel()

    def _set_deadline(
        self, seconds: float, what: str, still_missing: Callable[[], bool] = lambda: True
    ) -> None:
        def expired() -> None:
            self._deadline = None
            if still_missing():
                peer = self._transport.get_extra_info("peername")
                _log.info("ending the connection of %s: no %s within %g s", peer, what, seconds)
                self._transport.abort()

        self._deadline = asyncio.get_running_loop().call_later(seconds, expired)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class TimedHandler(web.RequestHandler):
    """aiohttp's side of one connection that is inside :class:`RequestDeadlines`."""

    __slots__ = ("deadlines",)
    deadlines: RequestDeadlines


def timed(handle: _Handler) -> _Handler:
    """A request handler that tells the connection's deadlines what is going on."""

    async def handle_in_time(request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is None:
            return web.Response(status=400)  # The client is gone; nobody will read this.
        http = request.protocol
        assert isinstance(http, TimedHandler)
        http.deadlines.request_began(request)
        try:
            return await handle(request)
        finally:
            http.deadlines.request_ended()

    return handle_in_time
