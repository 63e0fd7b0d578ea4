"""The server that a configuration describes, as an application for any ASGI server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from est_protocol.errors import EstError
from est_server.alarms import AlarmSink
from est_server.assembly import Assembly, open_service
from est_server.config import ServerConfig
from est_server.https import HttpsLimits
from est_server.https.asgi import (
    AsgiApplication,
    Receive,
    Scope,
    Send,
    est_asgi_application,
)
from est_server.interfaces import Authorizer


def est_asgi(
    config: ServerConfig | Path | str,
    *,
    authorizer: Authorizer | None = None,
    alarm_sink: AlarmSink | None = None,
    processes: int = 1,
) -> AsgiApplication:
    """EST over HTTP as an ASGI application; the store is open from the server's start to its stop.

    ``[https]`` and ``[coaps]`` are not listened on: that is the ASGI server's to do, and who the
    client is comes from its TLS extension or from the proxies of ``[proxy]``. See
    :func:`est_server.https.asgi.est_asgi_application` for what the ASGI server must not do.

    :param config: a configuration, or the path of an ``est-server.toml``; read at the start.
    :param authorizer: decides for every label, in place of the configured authorizers.
    :param alarm_sink: hears of alarms, beside the log and the webhook of the configuration.
    :param processes: how many of these the ASGI server runs side by side; they share what may be
        guessed.
    """
    application: AsgiApplication | None = None

    async def begin(opened: AsyncExitStack) -> None:
        nonlocal application
        service = open_service(
            config, authorizer=authorizer, alarm_sink=alarm_sink, processes=processes
        )
        parts = await opened.enter_async_context(service)
        application = est_asgi_application(parts.service, _limits(parts), parts.proxies)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(begin, receive, send)
        elif application is None:
            raise RuntimeError("the ASGI server has to start the application (lifespan)")
        else:
            await application(scope, receive, send)

    return answer


async def _live(
    begin: Callable[[AsyncExitStack], Awaitable[None]], receive: Receive, send: Send
) -> None:
    """Take part in the server's start and stop."""
    await receive()
    async with AsyncExitStack() as opened:
        try:
            await begin(opened)
        except (EstError, OSError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _limits(parts: Assembly) -> HttpsLimits:
    """Those of the proxies' listener, or else of HTTPS."""
    if parts.proxied is not None and isinstance(parts.proxied.limits, HttpsLimits):
        return parts.proxied.limits
    return parts.https.limits if parts.https is not None else HttpsLimits()
