"""EST, or an aiohttp application, served over TLS with everything in bounds."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, tls_context
from est_protocol.secure_channel.policy import TlsPolicy
from est_protocol.secure_channel.stream import TlsTransport
from est_protocol.secure_channel.tcp import StreamListenerFactory, tcp_listener
from est_protocol.secure_channel.tls_endpoints import Acceptance, TlsServer, serve_tls
from est_server.https.connections import HttpConnection, RunningHttp
from est_server.https.limits import HttpsLimits
from est_server.https.peer_errors import PeerErrorsInOneLine
from est_server.https.starting import Servable, start

_log = logging.getLogger("est_server.https")


_log.addFilter(PeerErrorsInOneLine())


@dataclass(frozen=True, slots=True)
class HttpsEndpoint:
    """Where and how to serve HTTPS.

    :param credentials: the server's key and certificate chain.
    :param anchors: what the chains of clients may end at.
    :param host: the address to listen on; loopback unless told otherwise, ``None`` for all.
    :param port: 0 for any free one.
    :param policy: versions, suites, groups.
    :param limits: every bound.
    :param reuse_port: let several processes listen on the port.
    :param access_log: a logger for one line per HTTP request; EST's audit trail is elsewhere.
    :param open_listener: opens the listening socket.
    """

    credentials: LocalCredentials
    anchors: TrustAnchors = field(default_factory=TrustAnchors)
    host: str | None = "127.0.0.1"
    port: int = 8443
    policy: TlsPolicy = field(default_factory=TlsPolicy)
    limits: HttpsLimits = field(default_factory=HttpsLimits)
    reuse_port: bool = False
    access_log: logging.Logger | None = None
    open_listener: StreamListenerFactory = tcp_listener


class HttpsApplication:
    """An application with the settings to serve it by. Made by :func:`prepare`."""

    def __init__(self, http: RunningHttp, acceptance: Acceptance, endpoint: HttpsEndpoint) -> None:
        self.acceptance = acceptance
        self.endpoint = endpoint
        self._http = http

    async def close(self) -> None:
        """Finish what is under way within bounds, and end the connections."""
        await self._http.close()


class RetiredHttps:
    """The connections that began before an :class:`HttpsServer` was renewed."""

    def __init__(
        self, application: HttpsApplication, tls: TlsServer, connections: frozenset[TlsTransport]
    ) -> None:
        self._application = application
        self._tls = tls
        self._connections = connections

    @property
    def in_use(self) -> bool:
        """Whether one of them goes on."""
        return self._tls.has_any(self._connections)

    async def close(self) -> None:
        """Finish what is under way on them within bounds, and end them."""
        await self._application.close()


class HttpsServer:
    """A server that listens; an async context manager that stops it. Made by :func:`serve`."""

    def __init__(self, application: HttpsApplication, tls: TlsServer) -> None:
        self._application = application
        self._tls = tls
        self._closing: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._tls.port

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as ``host:port``."""
        return self._tls.addresses

    @property
    def connections(self) -> int:
        """How many connections there are, handshakes included."""
        return self._tls.connections

    def renew(self, application: HttpsApplication) -> RetiredHttps:
        """Serve this application to new connections; where it listens stays as it is.

        :return: the connections that there are, which go on as they began. Whoever closes the
            server has to close them too.
        """
        previous, self._application = self._application, application
        return RetiredHttps(previous, self._tls, self._tls.renew(application.acceptance))

    async def close(self) -> None:
        """Stop: accept nothing more, finish what is under way within bounds, close the rest.

        May be called again, also while it is at it.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._tls.close()
        await self._application.close()
        await self._tls.drain(self._application.endpoint.limits.shutdown_timeout + 1.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def prepare(app: Servable, endpoint: HttpsEndpoint) -> HttpsApplication:
    """Start an application, for :func:`serve` or :meth:`HttpsServer.renew`.

    :raises ConfigurationError: OpenSSL rejects the policy or the credentials.
    """
    limits = endpoint.limits
    context = tls_context(
        endpoint.policy, server=True, credentials=endpoint.credentials, anchors=endpoint.anchors
    )
    http = await start(app, limits, logger=_log, access_log=endpoint.access_log)
    acceptance = Acceptance(
        http.connection,
        context,
        endpoint.anchors,
        limits.stream,
        limits.max_connections,
    )
    return HttpsApplication(http, acceptance, endpoint)


async def serve(app: Servable, endpoint: HttpsEndpoint) -> HttpsServer:
    """Serve EST, or any aiohttp application, over HTTPS.

    The handlers of an application find the client in
    ``request.transport.get_extra_info("est.peer_credentials")``.

    :param app: an :class:`~est_server.https.EstSite` where EST is all there is, which halves what
        HTTP costs beside an aiohttp application that EST is mounted in.

    :raises ConfigurationError: OpenSSL rejects the policy or the credentials.
    :raises OSError: the address cannot be listened on.
    """
    application = await prepare(app, endpoint)
    acceptance = application.acceptance
    try:
        tls = await serve_tls(
            acceptance.protocol_factory,
            endpoint.host,
            endpoint.port,
            context=acceptance.context,
            anchors=acceptance.anchors,
            limits=acceptance.limits,
            max_connections=acceptance.max_connections,
            is_idle=lambda protocol: isinstance(protocol, HttpConnection) and protocol.idle,
            reuse_port=endpoint.reuse_port,
            listen=endpoint.open_listener,
        )
    except OSError:
        await application.close()
        raise
    return HttpsServer(application, tls)
