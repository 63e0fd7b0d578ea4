"""EST over CoAPS for the client (RFC 9148): one DTLS session, and the requests over it."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Any

from aiocoap import Message
from aiocoap.error import Error as CoapError
from aiocoap.numbers import Code
from cryptography import x509

from est_client.blockwise import BlockwiseClient, CoapRequest
from est_client.discovery import (
    EST_RESOURCES,
    WELL_KNOWN_CORE,
    EstLink,
    paths_under,
    read_links,
)
from est_client.http_answers import DEFAULT_RETRY_AFTER, LONGEST_RETRY_AFTER, printable
from est_client.redirects import Origin
from est_client.server_identity import server_name
from est_protocol import certs_only, key_delivery
from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.coap.session import (
    CoapLimits,
    CoapSession,
    block_exponent,
    largest_block_exponent,
    make_context,
)
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import (
    ChannelClosed,
    ChannelError,
    ConfigurationError,
    HandshakeFailed,
    MessageError,
    ServerRefused,
)
from est_protocol.media_types import ContentFormat
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    GeneratedKeyResponse,
    Pending,
    Transport,
)
from est_protocol.operations import SERVERKEYGEN_BARE, Operation
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, dtls_context
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_channel import DtlsChannel
from est_protocol.secure_channel.dtls_client import DtlsClient, NobodyThere, connect_dtls
from est_protocol.secure_channel.policy import DtlsPolicy
from est_protocol.secure_channel.stream import format_address
from est_protocol.secure_channel.udp import DatagramTransportFactory, udp_transport

COAPS_PORT = 5684
WELL_KNOWN_EST = (".well-known", "est")

#: How many of a server's addresses are tried.
_MAXIMUM_ADDRESSES = 4


@dataclass(frozen=True, slots=True)
class CoapsClientLimits:
    """The bounds of one CoAPS connection of a client.

    :param handshake_timeout: seconds for the DTLS handshake.
    :param answer_timeout: seconds for the answer to one message, so to each block; ``None`` for
        MAX_TRANSMIT_WAIT.
    :param exchange_timeout: seconds for a request and its answer with all their blocks.
    :param answer_size: octets of the longest answer.
    :param coap: bounds of the CoAP layer.
    """

    handshake_timeout: float = 60.0
    answer_timeout: float | None = None
    exchange_timeout: float = 300.0
    answer_size: int = 65536
    coap: CoapLimits = field(default_factory=CoapLimits)


class CoapsConnector:
    """Makes DTLS sessions to one EST server; an :class:`est_client.connection.Connector`.

    :param host: DNS name, or IP address literal without brackets.
    :param port: UDP port.
    :param root: path segments in front of the label and the short name: ``/.well-known/est``, or
        a shorter one that discovery or the operator named (RFC 9148 section 4.1).
    :param policy: suites, groups, MTU.
    :param block_size: octets per block, 16 to 1024; the MTU may make it smaller.
    :param parameters: CoAP's transmission parameters; the server's should be the same.
    :param limits: the bounds.
    :param bare_certificates: ask for generated keys at /skc, where the certificate comes bare,
        rather than at /skg, which saves some 40 octets (RFC 9148 section 4.1).
    :param discover: ask each session's server where its EST resources are, and go there instead of
        ``root`` (RFC 9148 section 4.1).
    :param transport_factory: opens the socket.
    :raises ConfigurationError: there is no such block size.
    """

    transport = Transport.COAPS

    def __init__(
        self,
        host: str,
        port: int = COAPS_PORT,
        *,
        root: tuple[str, ...] = WELL_KNOWN_EST,
        policy: DtlsPolicy | None = None,
        block_size: int = 1024,
        parameters: TransmissionParameters | None = None,
        limits: CoapsClientLimits | None = None,
        bare_certificates: bool = False,
        discover: bool = False,
        transport_factory: DatagramTransportFactory = udp_transport,
    ) -> None:
        self.host = host
        self.root = root
        self.policy = policy or DtlsPolicy()
        self.exponent = block_exponent(block_size)
        self.parameters = parameters or TransmissionParameters()
        self.limits = limits or CoapsClientLimits()
        self.bare_certificates = bare_certificates
        self.discover = discover
        self._port = port
        self._transport_factory = transport_factory

    @property
    def origin(self) -> Origin:
        """Host and port, however they were written."""
        return Origin.of(self.host, self._port)

    async def connect(
        self,
        *,
        credentials: LocalCredentials | None,
        anchors: TrustAnchors,
        require_trust: bool = True,
    ) -> CoapsConnection:
        """Open a channel; see :meth:`est_client.connection.Connector.connect`.

        :raises ConfigurationError: there are no credentials, and RFC 9148 section 3 has clients
            authenticate with a certificate.
        """
        if credentials is None or not credentials.chain:
            raise ConfigurationError("EST over CoAPS needs a client certificate, if self-signed")
        context = dtls_context(
            self.policy,
            server=False,
            credentials=credentials,
            anchors=anchors,
            require_trust=require_trust,
        )
        nobody: ChannelError = HandshakeFailed(f"{self.host} has no address")
        for address in await self._addresses():
            session = DtlsSession(
                context,
                anchors,
                self.policy,
                server=False,
                address=format_address(address),
                server_name=server_name(self.host),
            )
            try:
                return await self._open(session, address)
            except NobodyThere as error:
                nobody = error
        raise nobody

    async def _open(self, session: DtlsSession, address: tuple[str, int]) -> CoapsConnection:
        context = make_context()
        coap: CoapSession | None = None

        def open_user(channel: DtlsChannel) -> CoapSession:
            nonlocal coap
            coap = CoapSession(
                channel, context, parameters=self.parameters, limits=self.limits.coap
            )
            return coap

        client = await connect_dtls(
            session,
            open_user,
            remote=address,
            handshake_timeout=self.limits.handshake_timeout,
            factory=self._transport_factory,
        )
        assert coap is not None
        context.request_interfaces.append(coap.tokens)
        return CoapsConnection(self, client, coap, context)

    async def _addresses(self) -> list[tuple[str, int]]:
        """Where the server may be; a name may stand for an address where nobody listens."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self.host, self._port, type=socket.SOCK_DGRAM
            )
        except OSError as error:
            raise ChannelError(f"{self.host}: {error.strerror or error}") from error
        addresses = dict.fromkeys((entry[4][0], entry[4][1]) for entry in found)
        return [(str(host), int(port)) for host, port in addresses][:_MAXIMUM_ADDRESSES]


class CoapsConnection:
    """One DTLS session to an EST server; an :class:`est_client.connection.EstConnection`.

    Made by :meth:`CoapsConnector.connect`.
    """

    def __init__(
        self, connector: CoapsConnector, client: DtlsClient, coap: CoapSession, context: Any
    ) -> None:
        self._connector = connector
        self._client = client
        self._coap = coap
        self._context = context
        # RFC 9148 section 6: one outstanding interaction at a time.
        self._turn = asyncio.Lock()
        self._links: tuple[EstLink, ...] | None = None

    @property
    def server(self) -> PeerCredentials:
        """The server, as far as the handshake proved it."""
        return self._coap.address.peer

    @property
    def repeated(self) -> int:
        """CoAP messages that were sent again because no acknowledgement came."""
        return self._coap.repeated

    async def request(self, request: EstRequest) -> EstResponse:
        """Send one request; see :meth:`est_client.connection.EstConnection.request`.

        :raises ConfigurationError: CoAPS has no such operation, or the path leaves no room for a
            block within the MTU.
        """
        timeout = self._connector.limits.exchange_timeout
        async with self._turn:
            try:
                async with asyncio.timeout(timeout):
                    await self._discover()
                    answer = await self._carry_out(self._coap_request(request))
            except TimeoutError as error:
                self._coap.close()
                raise ChannelClosed(f"no complete answer within {timeout:g} s") from error
        return self._translate(request.operation, answer)

    async def close(self) -> None:
        """Close the channel with a close_notify; does nothing the second time."""
        await self._client.close()

    async def _carry_out(self, request: CoapRequest) -> Any:
        largest = largest_block_exponent(self._connector.policy.mtu, request.overhead)
        blockwise = BlockwiseClient(
            self._exchange,
            exponent=min(self._connector.exponent, largest),
            answer_size=self._connector.limits.answer_size,
        )
        return await blockwise.request(request)

    async def _discover(self) -> None:
        """Find out where the EST resources are, once, if that is to be found out."""
        if not self._connector.discover or self._links is not None:
            return
        answer = await self._carry_out(
            CoapRequest(
                Code.GET, WELL_KNOWN_CORE, ContentFormat.LINK_FORMAT, query=(EST_RESOURCES,)
            )
        )
        if answer.code is not Code.CONTENT:
            raise ServerRefused(answer.code.dotted, "the server tells nothing of its resources")
        if answer.opt.content_format != ContentFormat.LINK_FORMAT:
            raise MessageError(f"the links have content-format {answer.opt.content_format}")
        self._links = read_links(answer.payload, self._connector.origin)

    def _path(self, name: str, label: str | None) -> tuple[str, ...]:
        if self._links is None:
            return (*self._connector.root, *(() if label is None else (label,)), name)
        paths = paths_under(self._links, label)
        if name not in paths:
            # What a server does not link to, it does not have (RFC 9148 section 4.1).
            raise ServerRefused("4.04", f"the server has no resource for {name}")
        return paths[name]

    def _coap_request(self, request: EstRequest) -> CoapRequest:
        name = request.operation.short_name
        if name is None:
            raise ConfigurationError(f"there is no {request.operation.value} on CoAPS")
        if request.operation is Operation.SERVERKEYGEN and self._connector.bare_certificates:
            name = SERVERKEYGEN_BARE
        path = self._path(name, request.label)
        if request.operation is Operation.CSRATTRS:
            return CoapRequest(Code.GET, path, ContentFormat.CSR_ATTRIBUTES)
        if request.operation is Operation.SERVERKEYGEN:
            return CoapRequest(
                Code.POST, path, ContentFormat.MULTIPART_CORE, request.body, ContentFormat.PKCS10
            )
        if request.operation.method == "GET":
            return CoapRequest(Code.GET, path, ContentFormat.CERTS_ONLY)
        return CoapRequest(
            Code.POST, path, ContentFormat.CERTS_ONLY, request.body, ContentFormat.PKCS10
        )

    async def _exchange(self, message: Message) -> Any:
        """Send one message and wait for its answer, which may come separately."""
        if self._coap.lost is not None:
            raise ChannelClosed(f"the session is over: {self._coap.lost}")
        parameters = self._connector.parameters
        message.remote = self._coap.address
        message.transport_tuning = parameters.tuning
        patience = self._connector.limits.answer_timeout or parameters.max_transmit_wait
        try:
            async with asyncio.timeout(patience):
                return await self._context.request(message, handle_blockwise=False).response
        except TimeoutError as error:
            self._coap.close()
            raise ChannelClosed(f"no answer within {patience:g} s") from error
        except CoapError as error:
            self._coap.close()
            raise ChannelClosed(f"no answer: {error or type(error).__name__}") from error
        except asyncio.CancelledError:
            # Half an answer may still come; no other request may meet it.
            self._coap.close()
            raise

    def _translate(self, operation: Operation, answer: Any) -> EstResponse:
        if answer.code in (Code.CONTENT, Code.CHANGED):
            if operation is Operation.CSRATTRS:
                return CsrAttributesResponse(_csr_attributes(answer))
            if operation is Operation.SERVERKEYGEN:
                return _generated_key(answer)
            return CertificatesResponse(_certificates(answer))
        if answer.code is Code.SERVICE_UNAVAILABLE:
            # Without the option a minute (RFC 7252 section 5.10.5).
            retry_after = _retry_after(answer)
            return Pending(DEFAULT_RETRY_AFTER if retry_after is None else retry_after)
        if answer.code.is_successful():
            raise MessageError(f"the server answered {answer.code.dotted}")
        text = printable(answer.payload)
        raise ServerRefused(answer.code.dotted, text, retry_after=_retry_after(answer))


def _retry_after(answer: Any) -> int | None:
    """Seconds to wait by the Max-Age option."""
    max_age = answer.opt.max_age
    return None if max_age is None else min(int(max_age), LONGEST_RETRY_AFTER)


def _csr_attributes(answer: Any) -> bytes:
    if answer.opt.content_format != ContentFormat.CSR_ATTRIBUTES:
        raise MessageError(f"the answer has content-format {answer.opt.content_format}")
    return bytes(answer.payload)


def _generated_key(answer: Any) -> GeneratedKeyResponse:
    if answer.opt.content_format != ContentFormat.MULTIPART_CORE:
        raise MessageError(f"the answer has content-format {answer.opt.content_format}")
    return key_delivery.from_multipart_core(bytes(answer.payload))


def _certificates(answer: Any) -> tuple[x509.Certificate, ...]:
    """RFC 9148 section 4.3: certs-only, or one bare certificate."""
    if answer.opt.content_format == ContentFormat.CERTS_ONLY:
        return certs_only.decode(answer.payload)
    if answer.opt.content_format == ContentFormat.PKIX_CERT:
        return (certs_only.decode_certificate(answer.payload),)
    raise MessageError(f"the answer has content-format {answer.opt.content_format}")
