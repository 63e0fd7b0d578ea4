"""aiohttp set up the way that every HTTP server here has it: within bounds, and saying little."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from est_server.https.deadlines import timed


class RunnerLimits(Protocol):
    """The bounds that aiohttp keeps; see :class:`est_server.https.limits.HttpsLimits`."""

    @property
    def idle_timeout(self) -> float: ...
    @property
    def linger_timeout(self) -> float: ...
    @property
    def drain_timeout(self) -> float: ...
    @property
    def header_line_size(self) -> int: ...
    @property
    def header_count(self) -> int: ...


class _Http(web.RequestHandler):
    """aiohttp's side of one connection."""

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


async def start_runner(
    app: web.Application,
    limits: RunnerLimits,
    *,
    logger: logging.Logger,
    access_log: logging.Logger | None = None,
) -> tuple[web.AppRunner, Callable[[], asyncio.Protocol]]:
    """Start an application; its runner, and what makes the protocol of each connection.

    The protocol wants to be inside :class:`~est_server.https.deadlines.RequestDeadlines`.
    """
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
    http = runner.server
    assert http is not None
    http.request_handler = timed(http.request_handler)
    loop = asyncio.get_running_loop()
    return runner, lambda: _Http(http, loop=loop, **options)
