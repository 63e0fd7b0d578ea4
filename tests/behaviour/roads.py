"""The roads that a request can take to the service, behind one face for the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from cryptography import x509

from est_client.coaps import CoapsConnector
from est_client.connection import EstConnection
from est_client.https import HttpsConnector
from est_protocol import pkcs10
from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.credentials import PeerCredentials
from est_protocol.csr_attributes import ExtensionTemplate
from est_protocol.errors import RequestRefused, ServerRefused, StillPending
from est_protocol.keys import SigningKey
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    GeneratedKeyResponse,
    Pending,
    Transport,
)
from est_protocol.oid_names import CHALLENGE_PASSWORD
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials, tls_context
from est_protocol.secure_channel.policy import TlsPolicy, TlsVersion
from est_protocol.secure_channel.tls import TlsEngine
from est_protocol.secure_channel.udp import DatagramTransportFactory, udp_transport
from est_server.coaps.server import CoapsEndpoint
from est_server.coaps.server import serve as serve_coaps
from est_server.https import HttpsEndpoint, est_application
from est_server.https import serve as serve_https
from est_server.service import EnrollmentService
from tests.behaviour.world import KEYS, Device, World
from tests.pki import make_key, make_leaf

Connect = Callable[[LocalCredentials | None], Awaitable[EstConnection]]


class Session:
    """One connection as a test uses it: every request of a device in one line."""

    def __init__(self, connection: EstConnection, transport: Transport, device: Device) -> None:
        self._connection = connection
        self._transport = transport
        self._device = device

    @property
    def cipher(self) -> str:
        """The cipher suite of the channel, in OpenSSL's words."""
        return self._connection.server.cipher

    def csr(
        self,
        key: SigningKey,
        subject: x509.Name,
        *,
        names: tuple[x509.GeneralName, ...] = (),
        extensions: tuple[ExtensionTemplate, ...] = (),
        linked: bool = True,
        linked_by: str = CHALLENGE_PASSWORD,
    ) -> pkcs10.CertificationRequest:
        """A CSR, linked to this very channel unless told otherwise."""
        return pkcs10.build(
            key,
            subject,
            subject_alt_names=names,
            extensions=extensions,
            binding=self._connection.server.channel_binding if linked else None,
            linked_by=linked_by,
        )

    async def get(
        self, operation: Operation, *, label: str | None = None
    ) -> tuple[x509.Certificate, ...]:
        """Ask for something that needs no body."""
        return await self._certificates(operation, b"", label)

    async def csrattrs(self, *, label: str | None = None) -> bytes | None:
        """Ask what the server wants to see in a CSR; the DER octets, or ``None`` for nothing."""
        request = EstRequest(Operation.CSRATTRS, self._transport, label)
        try:
            answer = await self._connection.request(request)
        except ServerRefused as refused:
            if refused.status == "4.04":
                return None
            raise
        assert isinstance(answer, CsrAttributesResponse)
        assert answer.der is not None or self._transport is Transport.HTTPS
        return answer.der

    async def post(
        self, operation: Operation, body: bytes, *, label: str | None = None
    ) -> x509.Certificate:
        """Send a body as it is; the answer is one certificate."""
        (certificate,) = await self._certificates(operation, body, label)
        return certificate

    async def simpleenroll(
        self,
        key: SigningKey,
        *,
        subject: x509.Name | None = None,
        names: tuple[x509.GeneralName, ...] = (),
        label: str | None = None,
        linked: bool = True,
    ) -> x509.Certificate:
        """Enroll ``key``."""
        wish = subject or x509.Name([])
        csr = self.csr(key, wish, names=names, linked=linked)
        return await self.post(Operation.SIMPLEENROLL, csr.der, label=label)

    async def simplereenroll(
        self,
        key: SigningKey,
        *,
        subject: x509.Name | None = None,
        names: tuple[x509.GeneralName, ...] = (),
        label: str | None = None,
    ) -> x509.Certificate:
        """Renew the device's certificate, for ``key``."""
        wish = subject or self._device.certificate.subject
        csr = self.csr(key, wish, names=names)
        return await self.post(Operation.SIMPLEREENROLL, csr.der, label=label)

    async def serverkeygen(
        self,
        csr: pkcs10.CertificationRequest | bytes | None = None,
        *,
        label: str | None = KEYS,
    ) -> GeneratedKeyResponse:
        """Ask for a key; with a CSR whose key is of no consequence unless told otherwise."""
        if csr is None:
            csr = self.csr(make_key("of no consequence"), x509.Name([]))
        body = csr if isinstance(csr, bytes) else csr.der
        request = EstRequest(Operation.SERVERKEYGEN, self._transport, label, body)
        answer = await self._request(request)
        assert isinstance(answer, GeneratedKeyResponse)
        return answer

    async def _certificates(
        self, operation: Operation, body: bytes, label: str | None
    ) -> tuple[x509.Certificate, ...]:
        request = EstRequest(operation, self._transport, label, body)
        answer = await self._request(request)
        assert isinstance(answer, CertificatesResponse)
        return answer.certificates

    async def _request(self, request: EstRequest) -> EstResponse:
        answer = await self._connection.request(request)
        if isinstance(answer, Pending):
            raise StillPending(answer.retry_after)
        return answer


@dataclass(frozen=True)
class Road:
    """One way to the service.

    :param transport: decides how statuses are written and how a bare key shows itself.
    :param connect: opens a channel.
    """

    name: str
    transport: Transport
    connect: Connect

    @property
    def bad_request(self) -> str:
        """The status of a request that is malformed."""
        return "4.00" if self.transport is Transport.COAPS else "400"

    @property
    def forbidden(self) -> str:
        """The status of a request that is not for this client."""
        return "4.03" if self.transport is Transport.COAPS else "403"

    @property
    def not_found(self) -> str:
        """The status of a path that is not there."""
        return "4.04" if self.transport is Transport.COAPS else "404"

    @asynccontextmanager
    async def connection(self, device: Device) -> AsyncIterator[Session]:
        """A fresh channel to the service, made by ``device``."""
        connection = await self.connect(self._credentials(device))
        try:
            yield Session(connection, self.transport, device)
        finally:
            await connection.close()

    def _credentials(self, device: Device) -> LocalCredentials | None:
        if device.chain:
            return LocalCredentials(device.key, device.chain)
        if self.transport is Transport.HTTPS:
            return None
        # On CoAPS a bare key shows itself in a certificate that it signed itself.
        return make_leaf(None, device.udid, key=device.key)


class InProcessConnection:
    """A channel of two TLS engines that share memory, and a service called as a coroutine."""

    def __init__(
        self, service: EnrollmentService, server: PeerCredentials, client: PeerCredentials
    ) -> None:
        self._service = service
        self.server = server
        self._client = client

    async def request(self, request: EstRequest) -> EstResponse:
        """Call the service; a refusal becomes what an HTTPS client would see."""
        try:
            return await self._service.respond(request, self._client)
        except RequestRefused as refused:
            raise ServerRefused(str(refused.status.http), refused.sentence) from refused

    async def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def in_process(world: World) -> AsyncIterator[Road]:
    """The service itself, with nothing in between but a real handshake."""
    policy = TlsPolicy()
    server_context = tls_context(
        policy, server=True, credentials=world.server_credentials, anchors=world.server_anchors
    )

    async def connect(credentials: LocalCredentials | None) -> EstConnection:
        client_context = tls_context(
            policy, server=False, credentials=credentials, anchors=world.client_anchors
        )
        client = TlsEngine(client_context, world.client_anchors, server=False)
        server = TlsEngine(server_context, world.server_anchors, server=True, address="in-process")
        _shake_hands(client, server)
        assert client.peer is not None
        assert server.peer is not None
        return InProcessConnection(world.service, client.peer, server.peer)

    yield Road("in-process", Transport.HTTPS, connect)


def _shake_hands(client: TlsEngine, server: TlsEngine) -> None:
    client.start()
    while octets := client.octets_to_send():
        server.receive_octets(octets)
        client.receive_octets(server.octets_to_send())
    assert client.established
    assert server.established


@asynccontextmanager
async def https(world: World, version: TlsVersion) -> AsyncIterator[Road]:
    """HTTPS over loopback in one version of TLS."""
    endpoint = HttpsEndpoint(
        credentials=world.server_credentials, anchors=world.server_anchors, port=0
    )
    application = web.Application()
    application.add_subapp("/.well-known/est", est_application(world.service))
    async with await serve_https(application, endpoint) as server:
        policy = TlsPolicy(minimum_version=version, maximum_version=version)
        connector = HttpsConnector("localhost", server.port, policy=policy)

        async def connect(credentials: LocalCredentials | None) -> EstConnection:
            return await connector.connect(credentials=credentials, anchors=world.client_anchors)

        yield Road(f"https-{version.name}", Transport.HTTPS, connect)


@asynccontextmanager
async def coaps(
    world: World, *, block_size: int, network: DatagramTransportFactory = udp_transport
) -> AsyncIterator[Road]:
    """CoAPS over loopback.

    :param network: what the client's datagrams travel over.
    """
    # Loopback answers at once, so a retransmission need not wait for seconds.
    parameters = TransmissionParameters(ack_timeout=0.05, empty_ack_delay=0.03, max_retransmit=9)
    endpoint = CoapsEndpoint(
        credentials=world.server_credentials,
        anchors=world.server_anchors,
        port=0,
        parameters=parameters,
    )
    async with await serve_coaps(world.service, endpoint) as server:
        connector = CoapsConnector(
            "127.0.0.1",
            server.port,
            block_size=block_size,
            parameters=parameters,
            transport_factory=network,
        )

        async def connect(credentials: LocalCredentials | None) -> EstConnection:
            return await connector.connect(credentials=credentials, anchors=world.client_anchors)

        yield Road(f"coaps-{block_size}", Transport.COAPS, connect)
