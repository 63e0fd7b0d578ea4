"""Block-wise transfer (RFC 7959) with bounds: what one session has half sent and half received.

aiocoap's own assembly has no bound in octets and is shared by all peers. Here every session has
its own state, one transfer in each direction per resource, limited in octets and in time, and a
budget of octets for all sessions together. Where that is spent, the session that has been silent
longest loses its transfers, so that nobody keeps the others out by holding on to what is begun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.coaps.messages import Block

#: SZX 7 is reserved on UDP (RFC 7959 section 2.2).
LARGEST_SZX = 6

#: What identifies a transfer within its session: method, path and query.
TransferKey = tuple[Hashable, ...]


@dataclass(frozen=True)
class Body:
    """A whole answer, kept for the blocks that the client still has to fetch.

    :param code: the CoAP response code.
    :param payload: all its octets.
    :param content_format: the Content-Format, or ``None`` for a diagnostic payload.
    :param upload_end: the last Block1 of the request that it answers, and that block's octets;
        ``None`` where the request came in one piece.
    """

    code: int
    payload: bytes
    content_format: int | None
    upload_end: tuple[Block, bytes] | None = None

    @cached_property
    def etag(self) -> bytes:
        """Identifies this body, so that blocks of two bodies are never mixed."""
        return hashlib.sha256(self.payload).digest()[:8]


@dataclass(slots=True)
class _Transfer:
    """What there is of one body, in either direction; ``body`` once it is an answer."""

    octets: bytearray | bytes
    deadline: float
    body: Body | None = None
    complete: bool = False


#: The transfers of one session, those of requests and those of answers apart.
_Direction = dict[TransferKey, _Transfer]


@dataclass(slots=True)
class _Transfers:
    uploads: _Direction = field(default_factory=dict)
    downloads: _Direction = field(default_factory=dict)
    octets: int = 0


class BlockwiseState:
    """The transfers of all sessions.

    A session is whatever object stands for one DTLS session; :meth:`forget` has to be called when
    it is over. Weak references in its place took 4 us per session and 1 each time it was heard of.

    :param max_body: octets of one request body; more is refused with 4.13.
    :param max_transfers: transfers of one session in each direction.
    :param max_total: octets of all sessions together.
    :param lifetime: seconds that a transfer may take from its latest block.
    """

    def __init__(
        self,
        *,
        max_body: int = 65536,
        max_transfers: int = 4,
        max_total: int = 64 * 1024 * 1024,
        lifetime: float = 93.0,
    ) -> None:
        #: Octets that a request body may have.
        self.max_body = max_body
        self._max_transfers = max_transfers
        self._max_total = max_total
        self._lifetime = lifetime
        self._sessions: dict[object, _Transfers] = {}
        #: Octets that all sessions hold.
        self.octets = 0

    def receive(
        self, session: object, key: TransferKey, block: Block, payload: bytes, *, now: float
    ) -> bytes | None:
        """Take one block of a request (Block1).

        :param now: seconds of a clock that never jumps.
        :return: the whole body after its last block, else ``None``.
        :raises RequestRefused: the block does not continue what came before, or is too much.
        """
        if block.szx > LARGEST_SZX:
            raise RequestRefused(RefusalReason.MALFORMED_REQUEST, "block size 7 is reserved")
        if block.more and len(payload) != block.size:
            raise RequestRefused(
                RefusalReason.MALFORMED_REQUEST,
                f"a block of {block.size} octets has {len(payload)}",
            )
        transfers = self._transfers(session, now)
        if block.number == 0:
            self._make_room(transfers, transfers.uploads, key)
            transfers.uploads[key] = _Transfer(bytearray(), 0.0)
        upload = transfers.uploads.get(key)
        if upload is None:
            raise _incomplete("no transfer is under way that this block belongs to")
        # A block that came twice, under two message IDs, is taken once.
        held = len(upload.octets)
        if block.offset >= held or upload.octets[block.offset :] != payload:
            self._append(transfers, key, upload, block, payload)
        upload.deadline = now + self._lifetime
        if block.more:
            return None
        self._drop(transfers, transfers.uploads, key)
        return bytes(upload.octets)

    def keep(self, session: object, key: TransferKey, body: Body, *, now: float) -> None:
        """Keep an answer for the client that fetches it block by block.

        :raises RequestRefused: all sessions together hold too much.
        """
        transfers = self._transfers(session, now)
        self._make_room(transfers, transfers.downloads, key)
        self._add(transfers, len(body.payload))
        transfers.downloads[key] = _Transfer(body.payload, now + self._lifetime, body)

    def kept(self, session: object, key: TransferKey, *, now: float) -> Body | None:
        """The answer that the client is fetching, if it is still there."""
        download = self._transfers(session, now).downloads.get(key)
        if download is None:
            return None
        download.deadline = now + self._lifetime
        return download.body

    def fetched(self, session: object, key: TransferKey, *, now: float) -> None:
        """Note that the client has been sent all of an answer; it may still ask again."""
        download = self._transfers(session, now).downloads.get(key)
        if download is not None:
            download.complete = True

    def under_way(self, now: float) -> bool:
        """Whether any client has more blocks to send or to fetch."""
        return any(
            not transfer.complete and transfer.deadline > now
            for transfers in list(self._sessions.values())
            for direction in (transfers.uploads, transfers.downloads)
            for transfer in direction.values()
        )

    def too_large(self) -> RequestRefused:
        """The refusal of a body that is larger than ``max_body``."""
        return RequestRefused(
            RefusalReason.BODY_TOO_LARGE, f"the body is larger than {self.max_body} octets"
        )

    def forget(self, session: object) -> None:
        """Let go at once of all that a session holds, because it is over."""
        transfers = self._sessions.pop(session, None)
        if transfers is not None:
            self.octets -= transfers.octets
            transfers.octets = 0

    def _append(
        self,
        transfers: _Transfers,
        key: TransferKey,
        upload: _Transfer,
        block: Block,
        payload: bytes,
    ) -> None:
        held = len(upload.octets)
        if block.offset != held:
            raise _incomplete(f"the block begins at octet {block.offset}, but {held} have come")
        if held + len(payload) > self.max_body:
            self._drop(transfers, transfers.uploads, key)
            raise self.too_large()
        self._add(transfers, len(payload))
        upload.octets += payload

    def _transfers(self, session: object, now: float) -> _Transfers:
        transfers = self._sessions.pop(session, None)
        if transfers is None:
            transfers = _Transfers()
        # The last in the dictionary is the last that was heard of.
        self._sessions[session] = transfers
        for direction in (transfers.uploads, transfers.downloads):
            if direction:
                for key in [key for key, item in direction.items() if item.deadline <= now]:
                    self._drop(transfers, direction, key)
        return transfers

    def _make_room(self, transfers: _Transfers, direction: _Direction, key: TransferKey) -> None:
        """Let go of what stands under ``key``, and of the oldest if there are too many others."""
        self._drop(transfers, direction, key)
        while len(direction) >= self._max_transfers:
            self._drop(transfers, direction, next(iter(direction)))

    def _drop(self, transfers: _Transfers, direction: _Direction, key: TransferKey) -> None:
        dropped = direction.pop(key, None)
        if dropped is not None:
            transfers.octets -= len(dropped.octets)
            self.octets -= len(dropped.octets)

    def _add(self, transfers: _Transfers, octets: int) -> None:
        if self.octets + octets > self._max_total:
            self._take_from_the_silent(transfers, octets)
        if self.octets + octets > self._max_total:
            raise RequestRefused(
                RefusalReason.TRY_LATER,
                "too many transfers are under way",
                detail=f"{self.octets} octets are held",
                retry_after=30,
            )
        transfers.octets += octets
        self.octets += octets

    def _take_from_the_silent(self, asking: _Transfers, octets: int) -> None:
        """Make room for ``octets`` at the expense of the sessions that were silent longest."""
        for transfers in list(self._sessions.values()):
            if self.octets + octets <= self._max_total or transfers is asking:
                return
            for direction in (transfers.uploads, transfers.downloads):
                for key in list(direction):
                    self._drop(transfers, direction, key)


def _incomplete(sentence: str) -> RequestRefused:
    return RequestRefused(
        RefusalReason.BLOCKS_INCOMPLETE, f"{sentence}; start again with the first block"
    )
