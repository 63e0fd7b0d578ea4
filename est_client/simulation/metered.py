"""A connector that says what its device is doing: for the meter, and for the processor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from est_client.coaps import CoapsConnection
from est_client.connection import Connector, EstConnection
from est_client.simulation.microcontroller import Processor
from est_client.simulation.traffic import Meter, Phase
from est_protocol.credentials import PeerCredentials
from est_protocol.messages import CertificatesResponse, EstRequest, EstResponse, Transport
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors

_PHASES = {
    Operation.CACERTS: Phase.CACERTS,
    Operation.CSRATTRS: Phase.CSRATTRS,
    Operation.SIMPLEENROLL: Phase.ENROLL,
    Operation.SIMPLEREENROLL: Phase.RENEW,
}


class MeteredConnector:
    """A :class:`~est_client.connection.Connector` around another one.

    :param inner: makes the connections.
    :param meter: is told of phases.
    :param processor: computes signatures.
    :param now: seconds since the start of the simulation.
    """

    def __init__(
        self, inner: Connector, meter: Meter, processor: Processor, now: Callable[[], float]
    ) -> None:
        self._inner = inner
        self.meter = meter
        self.processor = processor
        self.now = now

    @property
    def transport(self) -> Transport:
        """The transport."""
        return self._inner.transport

    @property
    def host(self) -> str:
        """The server's host."""
        return self._inner.host

    async def connect(
        self,
        *,
        credentials: LocalCredentials | None,
        anchors: TrustAnchors,
        require_trust: bool = True,
    ) -> MeteredConnection:
        """Open a channel; see :meth:`est_client.connection.Connector.connect`."""
        self.meter.enter(Phase.HANDSHAKE, self.now())
        self.processor.begin_handshake()
        try:
            connection = await self._inner.connect(
                credentials=credentials, anchors=anchors, require_trust=require_trust
            )
        finally:
            self.meter.pause(self.now())
        return MeteredConnection(connection, self)


class MeteredConnection:
    """An :class:`~est_client.connection.EstConnection` around another one."""

    def __init__(self, inner: EstConnection, connector: MeteredConnector) -> None:
        self._inner = inner
        self._connector = connector

    @property
    def server(self) -> PeerCredentials:
        """The server, as far as the handshake proved it."""
        return self._inner.server

    async def request(self, request: EstRequest) -> EstResponse:
        """Send one request; see :meth:`est_client.connection.EstConnection.request`."""
        meter, processor, now = (
            self._connector.meter,
            self._connector.processor,
            self._connector.now,
        )
        meter.enter(_PHASES[request.operation], now())
        repeated = self._repeated
        try:
            if request.body:
                processor.sign()
                await _computed(processor, now)
            answer = await self._inner.request(request)
            if isinstance(answer, CertificatesResponse):
                processor.verify(len(answer.certificates))
                await _computed(processor, now)
            return answer
        finally:
            meter.count_repeats(self._repeated - repeated)
            meter.pause(now())

    async def close(self) -> None:
        """Close the channel; does nothing the second time."""
        self._connector.meter.enter(Phase.CLOSE, self._connector.now())
        try:
            await self._inner.close()
        finally:
            self._connector.meter.pause(self._connector.now())

    @property
    def _repeated(self) -> int:
        return self._inner.repeated if isinstance(self._inner, CoapsConnection) else 0


async def _computed(processor: Processor, now: Callable[[], float]) -> None:
    await asyncio.sleep(max(0.0, processor.free_at - now()))
