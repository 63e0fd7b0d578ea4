"""An EST server in memory: real TLS handshakes and a real CA, no socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ChannelClosed, HandshakeFailed, PeerNotTrusted
from est_protocol.messages import (
    CertificatesResponse,
    EstRequest,
    EstResponse,
    Transport,
)
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, tls_context
from est_protocol.secure_channel.engine import Engine
from est_protocol.secure_channel.policy import TlsPolicy, TlsVersion
from tests.pki import PRESENT, Ca

Handler = Callable[["MemoryConnection", EstRequest], Awaitable[EstResponse]]


def handshake(
    server: LocalCredentials,
    client: LocalCredentials | None,
    anchors: TrustAnchors,
    *,
    policy: TlsPolicy,
    require_trust: bool,
    options: int = 0,
) -> tuple[PeerCredentials, PeerCredentials]:
    """Shake hands; the server as the client sees it, and the client as the server does.

    :param options: OpenSSL's options that the server has on top.
    """
    nobody = TrustAnchors()
    context = tls_context(policy, server=True, credentials=server, anchors=nobody)
    context.set_options(options)
    ends = [
        Engine(
            tls_context(
                policy,
                server=False,
                credentials=client,
                anchors=anchors,
                require_trust=require_trust,
            ),
            anchors,
            server=False,
        ),
        Engine(context, nobody, server=True),
    ]
    for turn in range(12):
        end, other = ends[turn % 2], ends[(turn + 1) % 2]
        if end.peer is None:
            end._continue_handshake()
        octets = end._read_ciphertext()
        if octets:
            other._connection.bio_write(octets)
    first, second = ends[0].peer, ends[1].peer
    if first is None or second is None:
        raise HandshakeFailed("the handshake takes too many turns")
    return first, second


@dataclass
class MemoryConnection:
    """One channel to a :class:`MemoryServer`."""

    owner: MemoryServer
    server: PeerCredentials
    client: PeerCredentials
    provisional: bool
    closed: bool = False
    requests: list[EstRequest] = field(default_factory=list)

    async def request(self, request: EstRequest) -> EstResponse:
        """Let the server's handlers answer."""
        if self.closed:
            raise ChannelClosed("the connection is closed")
        self.requests.append(request)
        return await self.owner.answer(self, request)

    async def close(self) -> None:
        """Close; no request comes through any more."""
        self.closed = True


@dataclass
class MemoryServer:
    """A connector to a server that issues certificates with a real CA.

    :param ca: issues.
    :param credentials: the server's own.
    :param handlers: taken one by one, each for one enrollment request; then all are granted.
    """

    ca: Ca
    credentials: LocalCredentials
    host: str = "localhost"
    transport: Transport = Transport.HTTPS
    policy: TlsPolicy = field(default_factory=lambda: TlsPolicy(maximum_version=TlsVersion.TLS1_2))
    options: int = 0
    ca_certificates: Sequence[x509.Certificate] | None = None
    handlers: list[Handler] = field(default_factory=list)
    connections: list[MemoryConnection] = field(default_factory=list)
    attempts: int = 0

    async def connect(
        self,
        *,
        credentials: LocalCredentials | None,
        anchors: TrustAnchors,
        require_trust: bool = True,
    ) -> MemoryConnection:
        """Shake hands for real."""
        self.attempts += 1
        server, client = handshake(
            self.credentials,
            credentials,
            anchors,
            policy=self.policy,
            require_trust=require_trust,
            options=self.options,
        )
        if require_trust and not server.is_verified:
            raise PeerNotTrusted("the handshake should have ended")
        connection = MemoryConnection(self, server, client, provisional=not require_trust)
        self.connections.append(connection)
        return connection

    async def answer(self, connection: MemoryConnection, request: EstRequest) -> EstResponse:
        """Answer as a server would, or as the next handler does."""
        if request.operation is Operation.CACERTS:
            return CertificatesResponse(
                tuple(self.ca_certificates or (self.ca.certificate, *self.ca.issuers))
            )
        handler = self.handlers.pop(0) if self.handlers else grant
        return await handler(connection, request)

    @property
    def requests(self) -> list[tuple[MemoryConnection, EstRequest]]:
        """Every request so far, with the connection that it came over."""
        return [(c, r) for c in self.connections for r in c.requests]

    @property
    def enrollments(self) -> list[tuple[MemoryConnection, CertificationRequest]]:
        """Every CSR so far, with the connection that it came over."""
        return [
            (connection, CertificationRequest.decode(request.body))
            for connection, request in self.requests
            if request.operation.enrolls
        ]


def issue(ca: Ca, csr: CertificationRequest) -> x509.Certificate:
    """A certificate with the names that the CSR asks for."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(csr.subject)
        .issuer_name(ca.certificate.subject)
        .public_key(csr.public_key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(PRESENT - timedelta(minutes=5))
        .not_valid_after(PRESENT + timedelta(hours=12))
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
    )
    if csr.subject_alt_names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(csr.subject_alt_names), critical=False
        )
    return builder.sign(ca.key, hashes.SHA256())


async def grant(connection: MemoryConnection, request: EstRequest) -> EstResponse:
    """Issue what the CSR asks for, if it proves possession."""
    csr = CertificationRequest.decode(request.body)
    assert csr.proves_possession()
    return CertificatesResponse((issue(connection.owner.ca, csr),))
