"""What a run knows and may do: the server, the device, what was granted so far, and the limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from aiocoap import Message
from aiocoap.numbers import Code
from cryptography import x509

from est_client.conformance.coap_channel import CoapChannel, Received, reply_of
from est_client.conformance.http_channel import HttpChannel
from est_client.conformance.reply import Reply
from est_client.conformance.requests import CsrMaker, Wish, linked
from est_client.conformance.rows import Failed, NotApplicable
from est_client.location import ServerLocation
from est_client.self_signed import self_signed, udid_name
from est_client.server_identity import verify_server
from est_protocol import base64_body
from est_protocol.errors import (
    ChannelError,
    ConfigurationError,
    EstError,
    MessageError,
)
from est_protocol.key_recipients import SymmetricKey
from est_protocol.keys import SigningKey, generate_key
from est_protocol.labels import path_segment
from est_protocol.media_types import ContentFormat
from est_protocol.messages import Transport
from est_protocol.operations import WELL_KNOWN_PATH, Operation
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors
from est_protocol.secure_channel.dtls_client import NobodyThere
from est_protocol.secure_channel.policy import DtlsPolicy, TlsPolicy

Channel = HttpChannel | CoapChannel

#: Codes that say that somebody else may have it.
_NOT_FOR_YOU = (401, 403)

#: Sends the DER of a CSR to an operation.
Sender = Callable[[Channel, Operation, bytes], Awaitable[Reply]]


class LimitReached(EstError):
    """The run may send no more; the text says which limit it is."""


@dataclass(frozen=True, slots=True)
class BenchLimits:
    """The bounds of a run.

    :param connections: connections at most.
    :param seconds: for the whole run.
    :param patience: seconds for one handshake, and for one answer.
    """

    connections: int = 500
    seconds: float = 300.0
    patience: float = 10.0

    def __post_init__(self) -> None:
        if self.connections < 1 or self.seconds <= 0 or self.patience <= 0:
            raise ConfigurationError("the limits of a run must be positive")


class Bench:
    """One run against one server.

    :param location: the server, and perhaps a label.
    :param anchors: what its chain must end at.
    :param identity: the device's key and chain, the chain empty for a bare key; ``None`` for no
        device: then only what anybody may do is checked.
    :param shared_key: a key that the server shares, to have generated keys encrypted with.
    :param limits: the bounds.
    :param now: the current time, timezone-aware.
    """

    def __init__(
        self,
        location: ServerLocation,
        anchors: TrustAnchors,
        *,
        identity: LocalCredentials | None = None,
        shared_key: SymmetricKey | None = None,
        limits: BenchLimits | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.location = location
        self.anchors = anchors
        self.identity = identity
        self.shared_key = shared_key
        self.limits = limits or BenchLimits()
        self.now = now
        #: Every answer of the run.
        self.replies: list[Reply] = []
        #: The certificate that was issued last in the run, with its key.
        self.operational: LocalCredentials | None = None
        #: What was answered to the first request that was granted.
        self.granted: Reply | None = None
        self._address: tuple[str, int] = (location.host, location.port)
        self._connections = 0
        self._wish: Wish | None = None
        self._why_no_wish: str | None = None

    # -- channels -------------------------------------------------------------------------------

    @property
    def transport(self) -> Transport:
        """The transport of the server."""
        return self.location.transport

    @property
    def address(self) -> tuple[str, int]:
        """The address of the server, found by :meth:`reach`."""
        return self._address

    @property
    def server_name(self) -> str | None:
        """What goes into the server_name extension: a DNS name, no address."""
        host = self.location.host
        return None if host.replace(".", "").isdigit() or ":" in host else host.rstrip(".")

    async def reach(self) -> None:
        """Find the server, and verify that it is the one that is meant.

        :raises PeerNotTrusted: it is not.
        :raises ChannelError: there is none.
        """
        async with self.channel() as channel:
            verify_server(channel.server, self.location.host)

    @asynccontextmanager
    async def channel(
        self,
        credentials: LocalCredentials | None = None,
        *,
        tls: TlsPolicy | None = None,
        dtls: DtlsPolicy | None = None,
    ) -> AsyncIterator[Channel]:
        """A fresh channel.

        :param credentials: what the client presents. ``None`` is nothing on HTTPS, and on CoAPS
            the device, since RFC 9148 section 4 has no anonymous requests.
        :raises ChannelError: there is none.
        :raises LimitReached: the run has made too many.
        """
        self.spend()
        channel: Channel
        if self.transport is Transport.HTTPS:
            channel = await HttpChannel.open(
                (self.location.host, self.location.port),
                self.server_name,
                credentials=credentials,
                anchors=self.anchors,
                policy=tls or TlsPolicy(),
                patience=self.limits.patience,
            )
        else:
            channel = await self._coap_channel(credentials or self._device(), dtls or DtlsPolicy())
        try:
            yield channel
        finally:
            await channel.close()

    @asynccontextmanager
    async def coap(
        self, credentials: LocalCredentials | None = None, *, dtls: DtlsPolicy | None = None
    ) -> AsyncIterator[CoapChannel]:
        """A fresh CoAPS session of the device."""
        async with self.channel(credentials, dtls=dtls) as channel:
            assert isinstance(channel, CoapChannel)
            yield channel

    @asynccontextmanager
    async def anonymous_coap(self) -> AsyncIterator[CoapChannel]:
        """A fresh CoAPS session without a client certificate."""
        self.spend()
        channel = await self._open_coap(self._address, None, DtlsPolicy())
        try:
            yield channel
        finally:
            await channel.close()

    def spend(self) -> None:
        """Count one connection.

        :raises LimitReached: it is one too many.
        """
        self._connections += 1
        if self._connections > self.limits.connections:
            raise LimitReached(f"{self.limits.connections} connections were made")

    def _device(self) -> LocalCredentials:
        if self.identity is None:
            raise NotApplicable("needs a device key")
        return with_certificate(self.identity, self.now())

    def self_signed(self, key: SigningKey) -> LocalCredentials:
        """A key with a certificate that it signs itself."""
        return with_certificate(LocalCredentials(key, ()), self.now())

    async def _coap_channel(self, credentials: LocalCredentials, policy: DtlsPolicy) -> CoapChannel:
        found = await asyncio.get_running_loop().getaddrinfo(*self._address, type=socket.SOCK_DGRAM)
        nobody: ChannelError = ChannelError(f"{self.location.host} has no address")
        for entry in found[:4]:
            address = (str(entry[4][0]), int(entry[4][1]))
            try:
                channel = await self._open_coap(address, credentials, policy)
            except NobodyThere as error:
                nobody = error
            else:
                self._address = address
                return channel
        raise nobody

    async def _open_coap(
        self, address: tuple[str, int], credentials: LocalCredentials | None, policy: DtlsPolicy
    ) -> CoapChannel:
        return await CoapChannel.open(
            address,
            self.server_name,
            credentials=credentials,
            anchors=self.anchors,
            policy=policy,
            patience=self.limits.patience,
        )

    # -- requests -------------------------------------------------------------------------------

    def path(self, operation: Operation | str, *, label: str | None = None) -> str:
        """The HTTP path of an operation, under the label of the run unless another is given."""
        segment = operation.path_segment if isinstance(operation, Operation) else operation
        label = self.location.label if label is None else label
        prefix = f"{WELL_KNOWN_PATH}/{path_segment(label)}" if label else WELL_KNOWN_PATH
        return f"{prefix}/{segment}"

    def coap_path(self, operation: Operation | str) -> tuple[str, ...]:
        """The CoAP path of an operation."""
        name = operation.short_name if isinstance(operation, Operation) else operation
        assert name is not None
        label = () if self.location.label is None else (self.location.label,)
        return (*self.location.root, *label, name)

    async def http(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        credentials: LocalCredentials | None = None,
    ) -> Reply:
        """One HTTP request over a connection of its own."""
        async with self.channel(credentials) as channel:
            assert isinstance(channel, HttpChannel)
            return self.note(await channel.exchange(method, path, headers, body))

    async def ask_coap(
        self, channel: CoapChannel, message: Message, *, anonymous: bool = False
    ) -> Reply:
        """One CoAP request and its whole answer.

        :param anonymous: the channel is nobody's, so that a refusal is what is looked for.
        :raises NotApplicable: the device may not even read: RFC 9148 section 4 has every request
            authenticated, and the server grants this device nothing.
        """
        reply = self.note(reply_of(*await channel.fetch(message)))
        if message.code is Code.GET and reply.code in _NOT_FOR_YOU and not anonymous:
            await self.wish()
        return reply

    async def complete(self, channel: CoapChannel, operation: Operation, first: Received) -> Reply:
        """The whole answer to a CSR that a check has sent by itself."""
        message = self.coap_post(operation, b"")
        return self.note(reply_of(first, await channel.download(message, first)))

    async def get(
        self, channel: Channel, operation: Operation, *, anonymous: bool = False
    ) -> Reply:
        """Ask for /cacerts or /csrattrs.

        :param anonymous: as for :meth:`ask_coap`.
        :raises NotApplicable: as :meth:`ask_coap`.
        """
        if isinstance(channel, HttpChannel):
            return self.note(await channel.exchange("GET", self.path(operation)))
        message = Message(code=Code.GET)
        message.opt.uri_path = self.coap_path(operation)
        return await self.ask_coap(channel, message, anonymous=anonymous)

    async def post(self, channel: Channel, operation: Operation, der: bytes) -> Reply:
        """Send a CSR as the RFCs have it."""
        if isinstance(channel, HttpChannel):
            headers = {"Content-Type": "application/pkcs10"}
            body = base64_body.encode(der)
            return self.note(await channel.exchange("POST", self.path(operation), headers, body))
        return await self.ask_coap(channel, self.coap_post(operation, der))

    def coap_post(self, operation: Operation, payload: bytes) -> Message:
        """A CoAP request that carries a CSR."""
        message = Message(code=Code.POST, payload=payload)
        message.opt.uri_path = self.coap_path(operation)
        message.opt.content_format = ContentFormat.PKCS10
        return message

    def note(self, reply: Reply) -> Reply:
        """Keep an answer for the rows about all answers."""
        self.replies.append(reply)
        return reply

    # -- what the server grants -----------------------------------------------------------------

    async def wish(self) -> Wish:
        """A request that the server granted in this run, to be sent again with a change.

        The first who needs it makes it: a first enrollment, or, where that is refused, a renewal.

        :raises NotApplicable: the server grants this device nothing.
        """
        if self._wish is None and self._why_no_wish is None:
            await self._find_wish()
        if self._wish is None:
            raise NotApplicable(self._why_no_wish or "no request was granted")
        if self._wish.operation is Operation.SIMPLEREENROLL:
            return renewal(await self.renewable())
        return self._wish

    def _keep(self, key: SigningKey, reply: Reply) -> None:
        """Go on with the certificate of ``key`` in an answer."""
        own = reply.certificate_of(key)
        self.operational = None if own is None else LocalCredentials(key, (own,))

    async def _find_wish(self) -> None:
        refusals = []
        for wish in self._candidates():
            try:
                reply = await self._submit(wish)
                if reply.accepted:
                    self._keep(wish.key, reply)
                    self._wish, self.granted = wish, reply
                    return
            except (ChannelError, MessageError, Failed) as error:
                refusals.append(f"/{wish.operation.path_segment}: {error}")
                continue
            refusals.append(f"/{wish.operation.path_segment}: {reply}")
        self._why_no_wish = (
            "; ".join(["the server grants this device nothing", *refusals])
            if refusals
            else "needs a device key"
        )

    def _candidates(self) -> list[Wish]:
        identity = self.identity
        if identity is None:
            return []
        credentials = identity if identity.chain else None
        first = Wish(
            Operation.SIMPLEENROLL, credentials, identity.key, udid_name(identity.key.public_key())
        )
        if not identity.chain:
            return [first]
        # Some servers want the name of the certificate, others a key that is new.
        first = replace(first, subject=identity.chain[0].subject)
        return [first, replace(first, key=generate_key()), renewal(identity)]

    async def submit(
        self,
        csr: CsrMaker = linked,
        send: Sender | None = None,
        *,
        wish: Wish | None = None,
        tls: TlsPolicy | None = None,
        dtls: DtlsPolicy | None = None,
    ) -> Reply:
        """Send the request that the server granted, with a change.

        :param csr: makes the CSR; as the granted one by default.
        :param send: sends it; as the RFCs have it by default.
        :param wish: another request than the granted one.
        :raises NotApplicable: the server grants this device nothing.
        """
        wish = wish or await self.wish()
        return await self._submit(wish, csr, send, tls=tls, dtls=dtls)

    async def _submit(
        self,
        wish: Wish,
        csr: CsrMaker = linked,
        send: Sender | None = None,
        *,
        tls: TlsPolicy | None = None,
        dtls: DtlsPolicy | None = None,
    ) -> Reply:
        async with self.channel(wish.credentials, tls=tls, dtls=dtls) as channel:
            der = csr(channel.server, wish)
            reply = await (send or self.post)(channel, wish.operation, der)
        if reply.accepted and wish.operation is Operation.SIMPLEREENROLL:
            # The server may count the old certificate as superseded from now on.
            self._keep(wish.key, reply)
        return reply

    async def renewable(self) -> LocalCredentials:
        """A certificate of this server with its key.

        :raises NotApplicable: the server issued none to this device.
        """
        if self._wish is None:
            await self.wish()
        if self.operational is None:
            raise NotApplicable("what the server issued is no certificate of the device's key")
        return self.operational

    async def require_granted(
        self,
        what: str,
        csr: CsrMaker = linked,
        send: Sender | None = None,
        *,
        tls: TlsPolicy | None = None,
        dtls: DtlsPolicy | None = None,
    ) -> Reply:
        """Check that a request is granted, changed in a way that makes no difference.

        :raises Failed: it is refused, while the same one without the change is granted.
        :raises NotApplicable: that one is refused too.
        """
        reply = await self.submit(csr, send, tls=tls, dtls=dtls)
        if reply.accepted:
            return reply
        control = await self.submit()
        if not control.accepted:
            raise NotApplicable(f"the server grants the plain request no more: {control}")
        raise Failed(f"{what}: {reply}")

    async def require_refused(
        self,
        what: str,
        csr: CsrMaker = linked,
        send: Sender | None = None,
        *,
        wish: Wish | None = None,
        tls: TlsPolicy | None = None,
    ) -> Reply:
        """Check that a request that the server grants otherwise is refused for its change.

        :raises Failed: it is granted, or its answer is no refusal of the client's fault.
        :raises NotApplicable: the server grants this device nothing.
        """
        reply = await self.submit(csr, send, wish=wish, tls=tls)
        if not reply.refused:
            raise Failed(f"{what}: {reply}")
        return reply


def with_certificate(identity: LocalCredentials, now: datetime) -> LocalCredentials:
    """The identity with a certificate: for a bare key one that it signs itself."""
    if identity.chain:
        return identity
    begin = now - timedelta(days=1)
    certificate = self_signed(identity.key, not_before=begin, validity=timedelta(days=30))
    return LocalCredentials(identity.key, (certificate,))


def renewal(identity: LocalCredentials) -> Wish:
    """The renewal of a certificate for the same key."""
    certificate = identity.chain[0]
    try:
        names = tuple(certificate.extensions.get_extension_for_class(_SAN).value)
    except x509.ExtensionNotFound:
        names = ()
    return Wish(Operation.SIMPLEREENROLL, identity, identity.key, certificate.subject, names)


_SAN = x509.SubjectAlternativeName
