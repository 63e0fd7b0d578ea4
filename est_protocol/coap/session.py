"""CoAP over one DTLS session: aiocoap's layers, put together for that session alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiocoap import Context, Message, interfaces
from aiocoap.numbers.types import ACK, NON, RST
from aiocoap.tokenmanager import TokenManager

from est_protocol.coap.codec import decode_message
from est_protocol.coap.exchanges import BoundedMessageManager
from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ChannelClosed, ChannelError, ConfigurationError, MessageError
from est_protocol.secure_channel.dtls import RECORD_OVERHEAD
from est_protocol.secure_channel.dtls_channel import DtlsChannel

_log = logging.getLogger("est_protocol.coap")

#: Octets of an answer beside its payload, at most: header, token, options and marker.
_ANSWER_OVERHEAD = 48
#: The SZX of the largest block, 1024 octets (RFC 7959 section 2.2).
LARGEST_EXPONENT = 6


def block_exponent(size: int) -> int:
    """The SZX of a block size (RFC 7959 section 2.2).

    :raises ConfigurationError: there is no such block size.
    """
    if not 16 <= size <= 1024 or size & (size - 1):
        raise ConfigurationError(f"{size} is no block size: 16, 32, 64, 128, 256, 512 or 1024")
    return size.bit_length() - 5


def largest_block_exponent(mtu: int, overhead: int = _ANSWER_OVERHEAD) -> int:
    """The SZX of the largest block that fits into a datagram.

    :param mtu: octets of the largest DTLS datagram.
    :param overhead: octets of the CoAP message beside the block.
    :raises ConfigurationError: not even the smallest block fits.
    """
    room = mtu - RECORD_OVERHEAD - overhead
    if room < 16:
        raise ConfigurationError(f"{overhead} octets of header and options leave no room")
    return min(LARGEST_EXPONENT, room.bit_length() - 5)


@dataclass(frozen=True, slots=True)
class CoapLimits:
    """Bounds of CoAP over one session.

    :param maximum_requests: requests of the peer that are worked on at a time; one more is
        ignored, so that the peer repeats it.
    :param remembered_requests: requests whose duplicates are recognized.
    :param remembered_octets: octets of answers that are kept for duplicates.
    """

    maximum_requests: int = 4
    remembered_requests: int = 32
    remembered_octets: int = 32768

    def __post_init__(self) -> None:
        if self.maximum_requests < 1 or self.remembered_octets < 1:
            raise ConfigurationError("maximum_requests and remembered_octets must be positive")
        if self.remembered_requests < self.maximum_requests:
            raise ConfigurationError("remembered_requests must not be below maximum_requests")


class SessionAddress(interfaces.EndpointAddress):  # type: ignore[misc]
    """The peer of one DTLS session; equal to nothing but itself.

    :param channel: the session.
    """

    scheme = "coaps"
    is_multicast = False
    is_multicast_locally = False
    maximum_block_size_exp: int = LARGEST_EXPONENT
    maximum_payload_size: int = 0

    def __init__(self, channel: DtlsChannel) -> None:
        self._address = channel.session.address
        #: Who it is, as far as the handshake proved it.
        self.peer: PeerCredentials = channel.peer
        #: SZX of the largest block to send it; the MTU's unless set smaller.
        self.maximum_block_size_exp = largest_block_exponent(channel.session.mtu)
        #: Octets of payload that fit into one datagram beside an answer's options.
        self.maximum_payload_size = channel.session.maximum_plaintext - _ANSWER_OVERHEAD

    @property
    def hostinfo(self) -> str:
        """The peer's address and port."""
        return self._address

    @property
    def hostinfo_local(self) -> str:
        """Unknown, and of no interest: EST makes no URIs of it."""
        return ""

    @property
    def uri_base(self) -> str:
        """The peer as a URI."""
        return f"coaps://{self._address}"

    @property
    def uri_base_local(self) -> str:
        """As :attr:`hostinfo_local`."""
        return "coaps://"

    @property
    def blockwise_key(self) -> SessionAddress:
        """Blocks of one session are put together, and no others."""
        return self

    def __repr__(self) -> str:
        return f"<SessionAddress {self._address}>"


class CoapSession(interfaces.MessageInterface):  # type: ignore[misc]
    """CoAP over one established DTLS session: a channel's user, and aiocoap's message interface.

    :param channel: the session.
    :param context: carries the site that answers requests.
    :param parameters: the transmission parameters.
    :param limits: the bounds.
    :param on_lost: called when the session is over.
    """

    def __init__(
        self,
        channel: DtlsChannel,
        context: Context,
        *,
        parameters: TransmissionParameters,
        limits: CoapLimits,
        on_lost: Callable[[CoapSession], None] = lambda _: None,
    ) -> None:
        self._channel = channel
        self._parameters = parameters
        self._limits = limits
        self._on_lost = on_lost
        self.address = SessionAddress(channel)
        self.tokens = TokenManager(context)
        self._messages = BoundedMessageManager(
            self.tokens,
            self,
            count=limits.remembered_requests,
            octets=limits.remembered_octets,
            parameters=parameters,
        )
        self.tokens.token_interface = self._messages
        #: Why the session is over; ``None`` while it is not.
        self.lost: ChannelError | None = None
        #: Datagrams of the peer that were no CoAP, or one request too many.
        self.dropped = 0
        #: Messages that were sent again because no acknowledgement came.
        self.repeated = 0
        self._latest = b""

    @property
    def busy(self) -> bool:
        """Whether a request is being worked on or an exchange is not complete."""
        return bool(
            self.tokens.incoming_requests or self.tokens.outgoing_requests or self._messages.active
        )

    def datagram_received(self, plaintext: bytes) -> None:
        """Take one CoAP message; what is none is dropped and counted."""
        try:
            message = decode_message(plaintext)
        except MessageError as error:
            self.dropped += 1
            _log.debug("%s: %s", self.address, error)
            return
        message.remote = self.address
        message.transport_tuning = self._parameters.tuning
        if self._is_acceptable(message):
            self._messages.dispatch_message(message)
        else:
            self.dropped += 1

    def _is_acceptable(self, message: Any) -> bool:
        """RFC 7252 section 5.4.1 on critical options that are not understood, and the bounds."""
        if not message.code.is_request():
            return message.bad_option is None
        if message.mtype is NON and message.bad_option is not None:
            return False
        if message.mtype in (ACK, RST):
            return False
        working = self.tokens.incoming_requests
        # A new request may not take the token of one that is being worked on: aiocoap would
        # abandon that one.
        has_room = (
            len(working) < self._limits.maximum_requests
            and (message.token, self.address) not in working
        )
        return has_room or self._messages.is_duplicate(message)

    def channel_lost(self, reason: ChannelError) -> None:
        """End every exchange; nothing of the session is left in the event loop."""
        self.lost = reason
        self._messages.cancel(reason)
        self._on_lost(self)

    def close(self) -> None:
        """End the session with a close_notify."""
        self._channel.close()

    # -- aiocoap's MessageInterface -------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send one message; without a session, or too long for it, it is not sent."""
        self.send_octets(message.encode())

    def send_octets(self, octets: bytes) -> None:
        """Send one encoded message."""
        self.repeated += octets == self._latest
        self._latest = octets
        try:
            self._channel.send(octets)
        except ChannelClosed:
            _log.debug("%s: the session is over, nothing is sent", self.address)
        except ValueError:
            _log.error("%s: a message of %d octets exceeds the MTU", self.address, len(octets))

    async def recognize_remote(self, remote: object) -> bool:
        """Whether ``remote`` is this session's peer."""
        return remote is self.address

    async def determine_remote(self, message: Message) -> None:
        """No address is looked up: a session has one peer, and its user names it."""
        return

    async def shutdown(self) -> None:
        """End the session with a close_notify."""
        self.close()


def make_context(site: object | None = None) -> Context:
    """What aiocoap needs to be around its layers."""
    return Context(loop=asyncio.get_running_loop(), serversite=site, loggername="est_protocol.coap")
