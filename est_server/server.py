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
from est_server.assembly import CrlEndpoint, open_service
from est_server.coaps.server import CoapsEndpoint
from est_server.coaps.server import serve as serve_coaps
from est_server.config import ServerConfig
from est_server.https import (
    HttpsEndpoint,
    HttpsLimits,
    PlainHttpEndpoint,
    ProxyTrust,
    est_application,
    serve_plain,
)
from est_server.https import serve as serve_https
from est_server.https.peers import NO_PROXIES
from est_server.interfaces import Authorizer
from est_server.revocation.application import crl_application
from est_server.service import EnrollmentService

#: Where EST is found on any host (RFC 7030 section 3.2.2).
WELL_KNOWN = "/.well-known/est"


class EstServer:
    """An EST server; an async context manager that listens inside and drains at its end.

    :param service: answers the requests of both transports.
    :param https: where and how to serve HTTPS, or ``None``.
    :param coaps: where and how to serve CoAPS, or ``None``.
    :param crls: which CRLs to publish and where, or ``None``.
    :param proxied: where to serve TLS-terminating proxies over plain HTTP, or ``None``.
    :param proxies: whose word is taken for who the client is.
    :raises ConfigurationError: there is nothing to serve.
    """

    def __init__(
        self,
        service: EnrollmentService,
        *,
        https: HttpsEndpoint | None = None,
        coaps: CoapsEndpoint | None = None,
        crls: CrlEndpoint | None = None,
        proxied: PlainHttpEndpoint | None = None,
        proxies: ProxyTrust = NO_PROXIES,
    ) -> None:
        if https is None and coaps is None and proxied is None:
            raise ConfigurationError("neither HTTPS nor CoAPS is to be served")
        self._service = service
        self._https_endpoint = https
        self._coaps_endpoint = coaps
        self._crl_endpoint = crls
        self._proxied_endpoint = proxied
        self._proxies = proxies
        self._open = AsyncExitStack()
        #: Where HTTPS listens, as ``host:port``; ``None`` where it does not.
        self.https_address: str | None = None
        #: Where CoAPS listens, as ``host:port``; ``None`` where it does not.
        self.coaps_address: str | None = None
        #: Where CRLs are served, as ``host:port``; ``None`` where they are not.
        self.crl_address: str | None = None
        #: Where proxies are served, as ``host:port`` or ``unix:PATH``; ``None`` where they are not.
        self.proxy_address: str | None = None

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
            async with cls(
                parts.service,
                https=parts.https,
                coaps=parts.coaps,
                crls=parts.crls,
                proxied=parts.proxied,
                proxies=parts.proxies,
            ) as server:
                yield server

    def __str__(self) -> str:
        """Where it listens, such as ``https=127.0.0.1:8443 coaps=127.0.0.1:5684``."""
        addresses = {
            "https": self.https_address,
            "coaps": self.coaps_address,
            "crl": self.crl_address,
            "proxy": self.proxy_address,
        }
        return " ".join(f"{name}={address}" for name, address in addresses.items() if address)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            opening.push_async_callback(self._service.close)
            if self._https_endpoint is not None:
                app = self._application(self._https_endpoint.limits)
                https = await serve_https(app, self._https_endpoint)
                self.https_address = (await opening.enter_async_context(https)).addresses[0]
            if self._coaps_endpoint is not None:
                coaps = await serve_coaps(self._service, self._coaps_endpoint)
                self.coaps_address = (await opening.enter_async_context(coaps)).addresses[0]
            if self._proxied_endpoint is not None:
                limits = self._proxied_endpoint.limits
                # Those for CRLs do not say what EST needs to know.
                app = self._application(
                    limits if isinstance(limits, HttpsLimits) else HttpsLimits()
                )
                proxied = await serve_plain(app, self._proxied_endpoint)
                self.proxy_address = (await opening.enter_async_context(proxied)).addresses[0]
            if self._crl_endpoint is not None:
                self.crl_address = await opening.enter_async_context(
                    _serve_crls(self._crl_endpoint)
                )
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    def _application(self, limits: HttpsLimits) -> web.Application:
        app = web.Application()
        app.add_subapp(WELL_KNOWN, est_application(self._service, limits, self._proxies))
        return app


@asynccontextmanager
async def _serve_crls(endpoint: CrlEndpoint) -> AsyncIterator[str]:
    """Publish CRLs as long as the context lasts; gives the address."""
    publisher = endpoint.publisher
    app = crl_application(publisher, max_age=endpoint.max_age)
    # So that whoever is told where it listens finds a CRL there.
    await publisher.refresh()
    async with await serve_plain(app, endpoint.http) as http:
        publishing = asyncio.create_task(publisher.run())
        try:
            yield http.addresses[0]
        finally:
            publishing.cancel()
            await asyncio.wait({publishing})


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set from now on, in place of ending the program."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event
