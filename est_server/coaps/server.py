"""The enrollment service over CoAP and DTLS (RFC 9148)."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.coap.session import largest_block_exponent
from est_protocol.errors import ChannelClosed
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, dtls_context
from est_protocol.secure_channel.datagram import DtlsServer
from est_protocol.secure_channel.dtls_channel import DtlsChannel
from est_protocol.secure_channel.dtls_listener import DtlsListener
from est_protocol.secure_channel.policy import DtlsPolicy
from est_protocol.secure_channel.stream import format_address
from est_protocol.secure_channel.udp import DatagramTransportFactory, udp_transport
from est_server.coaps.limits import CoapsLimits
from est_server.coaps.resources import EstService
from est_server.coaps.session import ServerSession
from est_server.coaps.site import EstSite

#: How often a stopping server looks whether its work is done, in seconds.
_DRAIN_INTERVAL = 0.02


@dataclass(frozen=True, slots=True)
class CoapsEndpoint:
    """Where and how to serve CoAPS.

    :param credentials: the server's key and certificate chain.
    :param anchors: what the chains of clients may end at.
    :param host: the address to listen on; loopback unless told otherwise.
    :param port: 0 for any free one.
    :param policy: suites, groups, MTU.
    :param parameters: CoAP's transmission parameters; the clients' should be the same.
    :param limits: every bound.
    :param transport_factory: opens the socket.
    """

    credentials: LocalCredentials
    anchors: TrustAnchors = field(default_factory=TrustAnchors)
    host: str = "127.0.0.1"
    port: int = 5684
    policy: DtlsPolicy = field(default_factory=DtlsPolicy)
    parameters: TransmissionParameters = field(default_factory=TransmissionParameters)
    limits: CoapsLimits = field(default_factory=CoapsLimits)
    transport_factory: DatagramTransportFactory = udp_transport


class CoapsApplication:
    """EST over CoAP with the settings to serve it by.

    :param service: answers the requests.
    :param endpoint: where and how to serve it.
    :raises ConfigurationError: OpenSSL rejects the policy or the credentials.
    """

    def __init__(self, service: EstService, endpoint: CoapsEndpoint) -> None:
        self.endpoint = endpoint
        limits = endpoint.limits.site
        fitting = min(limits.block_size_exponent, largest_block_exponent(endpoint.policy.mtu))
        self.site = EstSite(service, replace(limits, block_size_exponent=fitting))
        self._dtls = dtls_context(
            endpoint.policy,
            server=True,
            credentials=endpoint.credentials,
            anchors=endpoint.anchors,
        )

    def make_listener(self, predecessor: DtlsListener | None = None) -> DtlsListener:
        """What answers unknown peers; there can be but one.

        :param predecessor: the listener whose cookies stay good.
        """
        endpoint = self.endpoint
        return DtlsListener(self._dtls, endpoint.anchors, endpoint.policy, predecessor=predecessor)

    def open_session(self, channel: DtlsChannel) -> ServerSession:
        """CoAP over one DTLS session."""
        return ServerSession(
            channel,
            self.site,
            parameters=self.endpoint.parameters,
            limits=self.endpoint.limits.coap,
            on_lost=self.site.transfers.forget,
        )


class RetiredCoaps:
    """The sessions that began before a :class:`CoapsServer` was renewed."""

    def __init__(
        self, site: EstSite, channels: tuple[DtlsChannel, ...], drain_timeout: float
    ) -> None:
        self._site = site
        self._channels = channels
        self._drain_timeout = drain_timeout

    @property
    def in_use(self) -> bool:
        """Whether one of them goes on."""
        return any(not channel.lost for channel in self._channels)

    async def close(self) -> None:
        """Finish what is under way on them within bounds, and end them."""
        await _until_idle(
            lambda: (
                self._site.busy
                or any(channel.busy and not channel.lost for channel in self._channels)
            ),
            self._drain_timeout,
        )
        for channel in self._channels:
            channel.close(ChannelClosed("the server has new settings"))


class CoapsServer:
    """A server that listens; an async context manager that stops it. Made by :func:`serve`.

    :param application: what new sessions are served.
    """

    def __init__(self, application: CoapsApplication) -> None:
        #: What new sessions are served.
        self.application = application
        # Those of former settings too, as long as they have sessions.
        self._sites = weakref.WeakSet({application.site})
        self._listener = application.make_listener()
        self._dtls = DtlsServer(
            self._listener, application.open_session, application.endpoint.limits.datagram
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._dtls.address[1]
        return port

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as ``host:port``."""
        return [format_address(self._dtls.address)]

    @property
    def sessions(self) -> int:
        """How many DTLS sessions there are."""
        return self._dtls.sessions

    async def start(self) -> None:
        """Listen.

        :raises OSError: the address cannot be listened on.
        """
        endpoint = self.application.endpoint
        await self._dtls.listen(endpoint.host, endpoint.port, endpoint.transport_factory)

    def renew(self, application: CoapsApplication) -> RetiredCoaps:
        """Serve this application to new sessions; where it listens stays as it is.

        :return: the sessions that there are, which go on as they began.
        """
        drain_timeout = self.application.endpoint.limits.drain_timeout
        former = self.application.site
        self.application = application
        self._sites.add(application.site)
        self._listener = application.make_listener(self._listener)
        channels = self._dtls.renew(
            self._listener, application.open_session, application.endpoint.limits.datagram
        )
        return RetiredCoaps(former, channels, drain_timeout)

    async def close(self) -> None:
        """Let no new session in, finish what is being worked on, say goodbye to every client."""
        self._dtls.stop_accepting()
        await _until_idle(
            lambda: self._dtls.busy or any(site.busy for site in self._sites),
            self.application.endpoint.limits.drain_timeout,
        )
        await self._dtls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _until_idle(is_busy: Callable[[], bool], within: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    # What ends a session's work happens in its session, which announces nothing.
    while is_busy() and loop.time() < end:  # noqa: ASYNC110
        await asyncio.sleep(_DRAIN_INTERVAL)


async def serve(service: EstService, endpoint: CoapsEndpoint) -> CoapsServer:
    """Serve EST over CoAPS.

    :param service: answers the requests.
    :raises ConfigurationError: OpenSSL rejects the policy or the credentials.
    :raises OSError: the address cannot be listened on.
    """
    server = CoapsServer(CoapsApplication(service, endpoint))
    await server.start()
    return server
