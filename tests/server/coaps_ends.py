"""A CoAPS server with a small real service, and clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from est_client.coaps import CoapsClientLimits, CoapsConnection, CoapsConnector
from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import CertificatesResponse, EstRequest, EstResponse, Transport
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors
from est_server.coaps.server import CoapsEndpoint, CoapsServer, serve
from tests import pki
from tests.client.memory import issue

ROOT = pki.make_ca("root")
ISSUER = pki.make_ca("issuer", ROOT)
DEVICE = pki.make_leaf(ISSUER, "device")
ANCHORS = TrustAnchors({AnchorSet.EXPLICIT: (ROOT.certificate,)})
#: As the defaults, but for a network where a datagram takes no time.
FAST = TransmissionParameters(ack_timeout=0.1, empty_ack_delay=0.05, max_retransmit=8)


class IssuingService:
    """Issues to every client that has a certificate."""

    labels = (None, "plant")
    served: tuple[Operation, ...] = (
        Operation.CACERTS,
        Operation.SIMPLEENROLL,
        Operation.SIMPLEREENROLL,
    )

    def __init__(self) -> None:
        self.requests: list[EstRequest] = []
        self.peers: list[PeerCredentials] = []
        self.refusals: list[RequestRefused] = []
        self.answer: Callable[[EstRequest], EstResponse] | None = None
        #: Seconds, or an event, that each answer waits for.
        self.gate: asyncio.Event | None = None

    def operations(self, label: str | None) -> tuple[Operation, ...]:
        """The same under every label."""
        return self.served

    async def respond(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        """Answer as an EST server would."""
        self.requests.append(request)
        self.peers.append(peer)
        if self.gate is not None:
            await self.gate.wait()
        if self.answer is not None:
            return self.answer(request)
        if peer.certificate is None:
            raise RequestRefused(
                RefusalReason.AUTHENTICATION_REQUIRED, "a client certificate is required"
            )
        if request.operation is Operation.CACERTS:
            return CertificatesResponse((ISSUER.certificate, ROOT.certificate))
        csr = CertificationRequest.decode(request.body)
        return CertificatesResponse((issue(ISSUER, csr),))

    async def record_refusal(
        self,
        refused: RequestRefused,
        *,
        operation: Operation | None,
        label: str | None,
        transport: Transport,
        peer: PeerCredentials,
    ) -> None:
        """Remember it."""
        self.refusals.append(refused)


@asynccontextmanager
async def serving(
    service: IssuingService, endpoint: CoapsEndpoint | None = None
) -> AsyncIterator[CoapsServer]:
    """Serve on a free port of loopback."""
    async with await serve(service, endpoint or endpoint_of()) as server:
        yield server


def endpoint_of(**options: object) -> CoapsEndpoint:
    """An endpoint on a free port, with transmission parameters for a fast network."""
    chosen: dict[str, object] = {
        "credentials": pki.make_server(ISSUER),
        "anchors": TrustAnchors({AnchorSet.OPERATIONAL: (ROOT.certificate,)}),
        "port": 0,
        "parameters": FAST,
        **options,
    }
    return CoapsEndpoint(**chosen)  # type: ignore[arg-type]


def connector_to(server: CoapsServer, **options: object) -> CoapsConnector:
    """A connector with the same transmission parameters."""
    chosen: dict[str, object] = {
        "parameters": FAST,
        "limits": CoapsClientLimits(handshake_timeout=20),
        **options,
    }
    return CoapsConnector("127.0.0.1", server.port, **chosen)  # type: ignore[arg-type]


@asynccontextmanager
async def connected(
    server: CoapsServer, credentials: LocalCredentials = DEVICE, **options: object
) -> AsyncIterator[CoapsConnection]:
    """A connection to the server."""
    connection = await connector_to(server, **options).connect(
        credentials=credentials, anchors=ANCHORS
    )
    try:
        yield connection
    finally:
        await connection.close()
