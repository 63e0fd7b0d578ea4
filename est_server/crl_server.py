"""The CRLs of a server: made when they are due, and served over plain HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from est_server.https import (
    PlainHttpApplication,
    PlainHttpEndpoint,
    PlainHttpServer,
    prepare_plain,
    serve_plain,
)
from est_server.retirement import Retired
from est_server.revocation.application import crl_application
from est_server.revocation.publisher import CrlPublisher


@dataclass(frozen=True, slots=True)
class CrlEndpoint:
    """Which CRLs to publish, and where and how to serve them.

    :param max_age: for how long caches may answer without asking.
    """

    publisher: CrlPublisher
    http: PlainHttpEndpoint
    max_age: timedelta


@dataclass(frozen=True, slots=True)
class CrlApplication:
    """CRLs that are there to be served. Made by :func:`prepare_crls`."""

    publisher: CrlPublisher
    http: PlainHttpApplication


async def prepare_crls(endpoint: CrlEndpoint) -> CrlApplication:
    """Have CRLs ready, for :meth:`CrlServer.renew`."""
    app = crl_application(endpoint.publisher, max_age=endpoint.max_age)
    await endpoint.publisher.refresh()
    return CrlApplication(endpoint.publisher, await prepare_plain(app, endpoint.http.limits))


class CrlServer:
    """Publishes and serves CRLs. Made by :func:`serve_crls`."""

    def __init__(self, publisher: CrlPublisher, http: PlainHttpServer) -> None:
        self._http = http
        self._publishing = asyncio.create_task(publisher.run())

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as ``host:port``."""
        return self._http.addresses

    def renew(self, application: CrlApplication) -> Retired:
        """Publish and serve these from now on; see :meth:`PlainHttpServer.renew`."""
        self._publishing.cancel()
        self._publishing = asyncio.create_task(application.publisher.run())
        return self._http.renew(application.http)

    async def close(self) -> None:
        """Stop."""
        self._publishing.cancel()
        await asyncio.wait({self._publishing})
        await self._http.close()


async def serve_crls(endpoint: CrlEndpoint) -> CrlServer:
    """Publish and serve CRLs.

    :raises OSError: the address cannot be listened on.
    """
    app = crl_application(endpoint.publisher, max_age=endpoint.max_age)
    # So that whoever is told where it listens finds a CRL there.
    await endpoint.publisher.refresh()
    return CrlServer(endpoint.publisher, await serve_plain(app, endpoint.http))
