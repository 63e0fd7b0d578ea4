"""CoAP messages of any shape over one DTLS session."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from aiocoap import Message
from aiocoap.numbers import Code
from aiocoap.numbers.types import ACK, CON

from est_client.conformance.reply import Reply
from est_protocol.coap.codec import ReceivedMessage, decode_message
from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.coap.session import largest_block_exponent
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ChannelClosed, ChannelError, MessageError
from est_protocol.messages import Transport
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, dtls_context
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_channel import DtlsChannel
from est_protocol.secure_channel.dtls_client import DtlsClient, connect_dtls
from est_protocol.secure_channel.policy import DtlsPolicy

#: Octets of one answer, all blocks together.
_ANSWER_SIZE = 1 << 18
#: Octets of a request beside its block: header, token, a path with a label, options.
_OVERHEAD = 128


@dataclass(frozen=True, slots=True)
class Received:
    """One message of the server, and its octets."""

    message: ReceivedMessage
    octets: bytes


class CoapChannel:
    """One DTLS session; made by :meth:`open`.

    No layer repairs what a check sends: message IDs, tokens, options and blocks are its own.
    """

    busy = False

    def __init__(self, channel: DtlsChannel, patience: float) -> None:
        self._channel = channel
        self._patience = patience
        self._szx = largest_block_exponent(channel.session.mtu, _OVERHEAD)
        self._message_id = secrets.randbelow(1 << 16)
        self._inbox: asyncio.Queue[Received] = asyncio.Queue()
        self._client: DtlsClient
        self.server: PeerCredentials = channel.peer
        self.lost: ChannelError | None = None

    @classmethod
    async def open(
        cls,
        address: tuple[str, int],
        server_name: str | None,
        *,
        credentials: LocalCredentials | None,
        anchors: TrustAnchors,
        policy: DtlsPolicy,
        patience: float,
    ) -> CoapChannel:
        """Open a session.

        :param patience: seconds for the handshake and each answer.
        :raises ChannelError: there is no server, or no handshake.
        """
        context = dtls_context(
            policy, server=False, credentials=credentials, anchors=anchors, require_trust=True
        )
        session = DtlsSession(
            context, anchors, policy, server=False, address=address[0], server_name=server_name
        )
        opened: list[CoapChannel] = []

        def open_user(channel: DtlsChannel) -> CoapChannel:
            opened.append(cls(channel, patience))
            return opened[0]

        client = await connect_dtls(session, open_user, remote=address, handshake_timeout=patience)
        opened[0]._client = client
        return opened[0]

    # -- the channel's user ---------------------------------------------------------------------

    def datagram_received(self, plaintext: bytes) -> None:
        """Take one message; what is no CoAP is dropped."""
        try:
            message = decode_message(plaintext)
        except MessageError:
            return
        if message.mtype is CON and message.code.is_response():
            self._channel.send(bytes([0x60, 0]) + message.mid.to_bytes(2, "big"))
        self._inbox.put_nowait(Received(message, plaintext))

    def channel_lost(self, reason: ChannelError) -> None:
        """Remember why the session is over."""
        self.lost = reason

    # -- messages -------------------------------------------------------------------------------

    @property
    def extended_master_secret(self) -> bool:
        """Whether the session has it (RFC 7627)."""
        return self._channel.session.extended_master_secret

    def encode(self, message: Message) -> tuple[bytes, bytes]:
        """The octets of a confirmable message with an ID and a token of its own, and the token."""
        self._message_id = (self._message_id + 1) % (1 << 16)
        message.mtype, message.mid, message.token = CON, self._message_id, secrets.token_bytes(4)
        return bytes(message.encode()), bytes(message.token)

    async def exchange(self, message: Message) -> Received:
        """Send a request and wait for its answer, separate or not.

        :raises ChannelClosed: there is none.
        """
        return await self.exchange_octets(*self.encode(message))

    async def exchange_octets(self, octets: bytes, token: bytes) -> Received:
        """Send a message as it is, repeat it, and wait for what carries its token.

        :raises ChannelClosed: there is nothing.
        """
        wait = TransmissionParameters().ack_timeout
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    self.send(octets)
                    try:
                        async with asyncio.timeout(wait):
                            return await self._find(token)
                    except TimeoutError:
                        wait *= 2
        except TimeoutError as error:
            why = self.lost or f"none within {self._patience:g} s"
            raise ChannelClosed(f"no answer: {why}") from error

    def send(self, octets: bytes) -> None:
        """Send octets as they are.

        :raises ChannelClosed: the session is over.
        """
        self._channel.send(octets)

    async def next(self, within: float) -> Received | None:
        """The next message of the server, whatever it is, if one comes within some seconds."""
        try:
            async with asyncio.timeout(within):
                return await self._inbox.get()
        except TimeoutError:
            return None

    async def _find(self, token: bytes) -> Received:
        while True:
            received = await self._inbox.get()
            empty = received.message.mtype is ACK and received.message.code is Code.EMPTY
            if not empty and received.message.token == token:
                return received

    async def fetch(self, message: Message) -> tuple[Received, bytes]:
        """Send a request, upload and download it block by block, as any client would.

        :return: the first message of the answer, and the whole body.
        :raises MessageError: the blocks of the answer do not fit together.
        :raises ChannelClosed: an answer did not come.
        """
        first = await self.upload(message)
        return first, await self.download(message, first)

    async def upload(self, message: Message, szx: int | None = None) -> Received:
        """Send a request; the answer to its last block, or to one that was refused.

        :param szx: of the blocks, if it is longer than one; what fits the MTU by default.
        """
        blocks = self.blocks(message, self._szx if szx is None else szx)
        for block in blocks[:-1]:
            answer = await self.exchange(block)
            if answer.message.code is not Code.CONTINUE:
                return answer
        return await self.exchange(blocks[-1])

    def blocks(self, message: Message, szx: int) -> list[Message]:
        """A request as the messages that carry its payload."""
        size = 1 << (szx + 4)
        if len(message.payload) <= size:
            return [message]
        blocks = []
        for start in range(0, len(message.payload), size):
            block = _without_blocks(message, message.payload[start : start + size])
            more = start + size < len(message.payload)
            block.opt.block1 = (start >> (szx + 4), more, szx)
            blocks.append(block)
        return blocks

    async def download(self, message: Message, first: Received) -> bytes:
        """The whole body of the answer to a request, of which the first block is there.

        :raises MessageError: the blocks do not fit together.
        """
        answer, body = first.message, bytes(first.message.payload)
        while answer.opt.block2 is not None and answer.opt.block2.more:
            szx = answer.opt.block2.size_exponent
            follow = _without_blocks(message, b"")
            follow.opt.block2 = (len(body) >> (szx + 4), False, szx)
            answer = (await self.exchange(follow)).message
            if answer.opt.block2 is None or answer.opt.block2.start != len(body):
                raise MessageError("a block of the answer is missing")
            body += answer.payload
            if not answer.payload or len(body) > _ANSWER_SIZE:
                raise MessageError("the answer has an empty block, or is too large")
        return body

    async def close(self) -> None:
        """Close the session."""
        await self._client.close()


def _without_blocks(message: Message, payload: bytes) -> Message:
    """The same request with another payload, and without the options of blocks."""
    part = Message(code=message.code, payload=payload)
    for option in message.opt.option_list():
        part.opt.add_option(option)
    part.opt.block1 = part.opt.block2 = None
    return part


def options_of(octets: bytes) -> list[tuple[int, bytes]]:
    """The options of a well-formed message, number and value, octet for octet."""
    found, number, at = [], 0, 4 + (octets[0] & 0x0F)
    while at < len(octets) and octets[at] != 0xFF:
        delta, length = octets[at] >> 4, octets[at] & 0x0F
        at += 1
        fields = []
        for nibble in (delta, length):
            size, base = {13: (1, 13), 14: (2, 269)}.get(nibble, (0, nibble))
            fields.append(base + int.from_bytes(octets[at : at + size], "big"))
            at += size
        number += fields[0]
        found.append((number, octets[at : at + fields[1]]))
        at += fields[1]
    return found


def reply_of(received: Received, body: bytes) -> Reply:
    """The answer as a transport-neutral value."""
    code = received.message.code
    return Reply(
        Transport.COAPS,
        code.class_ * 100 + (int(code) & 0x1F),
        code.dotted,
        body,
        content_format=_number(received.message.opt.content_format),
    )


def _number(content_format: int | None) -> int | None:
    """The bare number: aiocoap's prints its media type with it."""
    return None if content_format is None else int(content_format)
