"""The server as one object: both transports over one service."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from est_protocol.errors import ConfigurationError
from est_server.assembly import open_service
from est_server.config import ServerConfig
from est_server.https import HttpsEndpoint, HttpsServer, est_application, serve
from est_server.interfaces import Authorizer
from est_server.service import EnrollmentService

#: Where EST is found on any host (RFC 7030 section 3.2.2).
WELL_KNOWN = "/.well-known/est"


class EstServer:
    """An EST server; an async context manager that listens inside and drains at its end.

    :param service: answers the requests.
    :param https: where and how to serve HTTPS, or ``None``.
    :raises ConfigurationError: there is nothing to serve.
    """

    def __init__(self, service: EnrollmentService, *, https: HttpsEndpoint | None = None) -> None:
        if https is None:
            raise ConfigurationError("neither HTTPS nor CoAPS is to be served")
        self._service = service
        self._https_endpoint = https
        self._https: HttpsServer | None = None
        self._open = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def from_config(
        cls, config: ServerConfig | Path | str, *, authorizer: Authorizer | None = None
    ) -> AsyncIterator[Self]:
        """A server that listens as its configuration says; its store is closed at the end.

        :param config: a configuration, or the path of an ``est-server.toml``.
        :param authorizer: decides for every label, in place of the configured authorizers.
        :raises ConfigurationError: the configuration, or a file that it names, is not usable.
        :raises OSError: an address cannot be listened on.
        """
        async with open_service(config, authorizer=authorizer) as parts:
            async with cls(parts.service, https=parts.https) as server:
                yield server

    @property
    def https_address(self) -> str | None:
        """Where HTTPS listens, as ``host:port``; ``None`` where it does not."""
        return self._https.addresses[0] if self._https else None

    def __str__(self) -> str:
        """Where it listens, such as ``https=127.0.0.1:8443 coaps=127.0.0.1:5684``."""
        return f"https={self.https_address}"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            opening.push_async_callback(self._service.close)
            app = web.Application()
            app.add_subapp(WELL_KNOWN, est_application(self._service, self._https_endpoint.limits))
            self._https = await serve(app, self._https_endpoint)
            opening.push_async_callback(self._https.close)
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set from now on, in place of ending the program."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event
