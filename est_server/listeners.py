"""All that one server listens with: opened, given other settings, closed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

from est_protocol.errors import ConfigurationError
from est_server.assembly import Assembly
from est_server.coaps.server import CoapsApplication, CoapsEndpoint, CoapsServer
from est_server.coaps.server import serve as serve_coaps
from est_server.crl_server import CrlEndpoint, CrlServer, prepare_crls, serve_crls
from est_server.https import (
    EstSite,
    HttpsEndpoint,
    HttpsLimits,
    HttpsServer,
    PlainHttpEndpoint,
    PlainHttpServer,
    ProxyTrust,
    prepare,
    prepare_plain,
    serve_plain,
)
from est_server.https import serve as serve_https
from est_server.https.peers import NO_PROXIES
from est_server.retirement import Retired
from est_server.service import EnrollmentService


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and where and how.

    :param service: answers the requests of both transports.
    :param https: where and how to serve HTTPS, or ``None``.
    :param coaps: where and how to serve CoAPS, or ``None``.
    :param crls: which CRLs to publish and where, or ``None``.
    :param proxied: where to serve TLS-terminating proxies over plain HTTP, or ``None``.
    :param proxies: whose word is taken for who the client is.
    :raises ConfigurationError: there is nothing to serve.
    """

    service: EnrollmentService
    https: HttpsEndpoint | None = None
    coaps: CoapsEndpoint | None = None
    crls: CrlEndpoint | None = None
    proxied: PlainHttpEndpoint | None = None
    proxies: ProxyTrust = NO_PROXIES

    def __post_init__(self) -> None:
        if self.https is None and self.coaps is None and self.proxied is None:
            raise ConfigurationError("neither HTTPS nor CoAPS is to be served")

    @classmethod
    def of(cls, parts: Assembly) -> Self:
        """What a configuration describes."""
        return cls(
            parts.service, parts.https, parts.coaps, parts.crls, parts.proxied, parts.proxies
        )


class Listeners:
    """The listeners of one server, each of them ``None`` where there is none."""

    def __init__(self) -> None:
        self.https: HttpsServer | None = None
        self.coaps: CoapsServer | None = None
        self.proxied: PlainHttpServer | None = None
        self.crls: CrlServer | None = None

    @classmethod
    async def open(cls, served: Served) -> Self:
        """Listen with everything that ``served`` has.

        :raises ConfigurationError: OpenSSL rejects a policy or credentials.
        :raises OSError: an address cannot be listened on.
        """
        self = cls()
        async with AsyncExitStack() as failing:
            failing.push_async_callback(self.close)
            if served.https is not None:
                self.https = await serve_https(_est(served, served.https.limits), served.https)
            if served.coaps is not None:
                self.coaps = await serve_coaps(served.service, served.coaps)
            if served.proxied is not None:
                app = _est(served, _limits_of_proxied(served))
                self.proxied = await serve_plain(app, served.proxied)
            if served.crls is not None:
                self.crls = await serve_crls(served.crls)
            failing.pop_all()
        return self

    async def renew(self, served: Served) -> list[Retired]:
        """Serve new connections according to ``served``, which has the same listeners.

        :return: the connections that there are, which go on as they began.
        :raises ConfigurationError: OpenSSL rejects a policy or credentials; nothing has changed.
        """
        retired: list[Retired] = []
        async with AsyncExitStack() as failing:
            if self.https and served.https:
                https = await prepare(_est(served, served.https.limits), served.https)
                failing.push_async_callback(https.close)
            if self.coaps and served.coaps:
                coaps = CoapsApplication(served.service, served.coaps)
            if self.proxied and served.proxied:
                app = _est(served, _limits_of_proxied(served))
                proxied = await prepare_plain(app, served.proxied.limits)
                failing.push_async_callback(proxied.close)
            if self.crls and served.crls:
                crls = await prepare_crls(served.crls)
            failing.pop_all()
        # From here on nothing fails, so that all of them have the same settings.
        if self.https and served.https:
            retired.append(self.https.renew(https))
        if self.coaps and served.coaps:
            retired.append(self.coaps.renew(coaps))
        if self.proxied and served.proxied:
            retired.append(self.proxied.renew(proxied))
        if self.crls and served.crls:
            retired.append(self.crls.renew(crls))
        return retired

    async def close(self) -> None:
        """Stop listening, finish what is under way within bounds, and end all connections."""
        open_ones = (self.https, self.coaps, self.proxied, self.crls)
        async with asyncio.TaskGroup() as closing:
            for listener in open_ones:
                if listener is not None:
                    closing.create_task(listener.close())


def _est(served: Served, limits: HttpsLimits) -> EstSite:
    return EstSite(served.service, limits, served.proxies)


def _limits_of_proxied(served: Served) -> HttpsLimits:
    limits = served.proxied.limits if served.proxied else None
    # Those for CRLs do not say what EST needs to know.
    return limits if isinstance(limits, HttpsLimits) else HttpsLimits()
