"""The enrollment service over CoAP and DTLS (RFC 9148)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.coap.session import largest_block_exponent
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


class CoapsServer:
    """A server that listens; an async context manager that stops it. Made by :func:`serve`."""

    def __init__(self, service: EstService, endpoint: CoapsEndpoint) -> None:
        self._endpoint = endpoint
        limits = endpoint.limits.site
        fitting = min(limits.block_size_exponent, largest_block_exponent(endpoint.policy.mtu))
        self._site = EstSite(service, replace(limits, block_size_exponent=fitting))
        context = dtls_context(
            endpoint.policy,
            server=True,
            credentials=endpoint.credentials,
            anchors=endpoint.anchors,
        )
        listener = DtlsListener(context, endpoint.anchors, endpoint.policy)
        self._dtls = DtlsServer(listener, self._open_session, endpoint.limits.datagram)

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
        endpoint = self._endpoint
        await self._dtls.listen(endpoint.host, endpoint.port, endpoint.transport_factory)

    async def close(self) -> None:
        """Let no new session in, finish what is being worked on, say goodbye to every client."""
        self._dtls.stop_accepting()
        loop = asyncio.get_running_loop()
        end = loop.time() + self._endpoint.limits.drain_timeout
        # What ends a session's work happens in its session, which announces nothing.
        while self._dtls.busy and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_INTERVAL)
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

    def _open_session(self, channel: DtlsChannel) -> ServerSession:
        return ServerSession(
            channel,
            self._site,
            parameters=self._endpoint.parameters,
            limits=self._endpoint.limits.coap,
            on_lost=self._site.transfers.forget,
        )


async def serve(service: EstService, endpoint: CoapsEndpoint) -> CoapsServer:
    """Serve EST over CoAPS.

    :param service: answers the requests.
    :raises ConfigurationError: OpenSSL rejects the policy or the credentials.
    :raises OSError: the address cannot be listened on.
    """
    server = CoapsServer(service, endpoint)
    await server.start()
    return server
