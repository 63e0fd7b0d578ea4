"""EST served on its own, below ``/.well-known/est`` (RFC 7030 section 3.2.2).

Where it is one part of an aiohttp application, :func:`~est_server.https.est_application` is that
part; this is for where it is all there is, and does without the application.
"""

from __future__ import annotations

import asyncio
import logging

from est_server.https.connections import HttpConnection
from est_server.https.http1 import Http1Connection
from est_server.https.limits import DEFAULT_HTTPS_LIMITS, HttpsLimits
from est_server.https.peers import NO_PROXIES, ProxyTrust
from est_server.https.runner import RunnerLimits
from est_server.https.translation import HttpAnswer, HttpRequest, HttpTranslation
from est_server.interfaces import HttpResponder


class EstSite:
    """EST and nothing else, for :func:`est_server.https.serve` and ``serve_plain``.

    It answers requests below ``/.well-known/est``, and all others with 404.

    :param service: answers the requests.
    :param limits: ``body_size``, ``body_timeout`` and ``retry_after`` apply; the others are those
        of the endpoint.
    :param proxies: TLS-terminating proxies that are believed (RFC 9440).
    """

    def __init__(
        self,
        service: HttpResponder,
        limits: HttpsLimits = DEFAULT_HTTPS_LIMITS,
        proxies: ProxyTrust = NO_PROXIES,
    ) -> None:
        self.translation = HttpTranslation(service, limits, proxies)


class RunningSite:
    """EST that is being served (a :class:`~est_server.https.connections.RunningHttp`).

    :param limits: every bound but those of the translation.
    :param access_log: gets one line per request.
    """

    def __init__(
        self, site: EstSite, limits: RunnerLimits, access_log: logging.Logger | None = None
    ) -> None:
        self.limits = limits
        self.access_log = access_log
        self._translation = site.translation
        self._connections: set[Http1Connection] = set()
        self._closing = False

    def connection(self) -> HttpConnection:
        """The protocol of a new connection."""
        return Http1Connection(self)

    async def answer(self, http: HttpRequest) -> HttpAnswer:
        """Answer a request."""
        return await self._translation.answer(http)

    def admit(self, connection: Http1Connection) -> bool:
        """See :class:`~est_server.https.http1.Site`."""
        self._connections.add(connection)
        return not self._closing

    def forget(self, connection: Http1Connection) -> None:
        """See :class:`~est_server.https.http1.Site`."""
        self._connections.discard(connection)

    async def close(self) -> None:
        """Finish what is under way within ``drain_timeout``, and end the connections."""
        self._closing = True
        for connection in list(self._connections):
            connection.finish()
        answering = {c.answering for c in self._connections if c.answering is not None}
        if answering:
            await asyncio.wait(answering, timeout=self.limits.drain_timeout)
        for connection in list(self._connections):
            if connection.answering is not None:
                connection.abort()
