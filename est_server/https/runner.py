"""aiohttp set up the way that every HTTP server here has it: within bounds, and saying little."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from aiohttp import web

from est_server.https.connections import HttpConnection
from est_server.https.deadlines import RequestDeadlines, RequestTimes, TimedHandler, timed


class RunnerLimits(RequestTimes, Protocol):
    """The bounds that aiohttp keeps; see :class:`est_server.https.limits.HttpsLimits`."""

    @property
    def idle_timeout(self) -> float: ...
    @property
    def drain_timeout(self) -> float: ...
    @property
    def header_line_size(self) -> int: ...
    @property
    def header_count(self) -> int: ...


class _Http(TimedHandler):
    """aiohttp's side of one connection, which says little."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer octets that are no HTTP, without the versions of Python and aiohttp."""
        response = super().handle_error(request, status, exc, message)
        # It is set where it is missing, and no signal of the application comes by to remove it.
        response.headers["Server"] = "est"
        return response


async def conceal_software(http: web.Request, response: web.StreamResponse) -> None:
    """Leave out the versions of Python and aiohttp, which help nobody but an attacker."""
    response.headers.pop("Server", None)


class RunningApplication:
    """An aiohttp application that is ready to be served (a
    :class:`~est_server.https.connections.RunningHttp`). Made by :func:`start_application`.
    """

    def __init__(
        self, runner: web.AppRunner, limits: RunnerLimits, options: dict[str, Any]
    ) -> None:
        assert runner.server is not None
        self._runner = runner
        self._http = runner.server
        self._limits = limits
        self._options = options
        self._loop = asyncio.get_running_loop()

    def connection(self) -> HttpConnection:
        """The protocol of a new connection."""
        http = _Http(self._http, loop=self._loop, **self._options)
        http.deadlines = RequestDeadlines(http, self._limits)
        return http.deadlines

    async def close(self) -> None:
        """Finish what is under way within bounds, and end the connections."""
        await self._runner.cleanup()


async def start_application(
    app: web.Application,
    limits: RunnerLimits,
    *,
    logger: logging.Logger,
    access_log: logging.Logger | None = None,
) -> RunningApplication:
    """Start an application."""
    options: dict[str, Any] = {
        "logger": logger,
        "access_log": access_log,
        "keepalive_timeout": limits.idle_timeout,
        "lingering_time": limits.linger_timeout,
        "max_line_size": limits.header_line_size,
        "max_field_size": limits.header_line_size,
        "max_headers": limits.header_count,
        # Nobody inflates what a stranger compressed.
        "auto_decompress": False,
    }
    app.on_response_prepare.append(conceal_software)
    runner = web.AppRunner(app, shutdown_timeout=limits.drain_timeout, **options)
    await runner.setup()
    assert runner.server is not None
    runner.server.request_handler = timed(runner.server.request_handler)
    return RunningApplication(runner, limits, options)
