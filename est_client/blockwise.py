"""One request with a body and an answer of any size over CoAP (RFC 7959), for the client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiocoap import Message
from aiocoap.numbers import Code

from est_protocol.errors import MessageError

#: Sends one message and waits for its answer.
Exchange = Callable[[Message], Awaitable[Any]]

#: How often a transfer begins anew because the server lost its place or changed the answer.
_RESTARTS = 2


@dataclass(frozen=True, slots=True)
class CoapRequest:
    """A request before it is cut into blocks.

    :param code: the method.
    :param path: the segments of the path.
    :param accept: the content-format that is asked for.
    :param payload: the body; empty for none.
    :param content_format: what the body is, if there is one.
    :param query: Uri-Query options.
    """

    code: Code
    path: tuple[str, ...]
    accept: int
    payload: bytes = b""
    content_format: int | None = None
    query: tuple[str, ...] = ()

    def message(self, payload: bytes) -> Message:
        """A message of this request with a part of the body.

        The Content-Format stands in every one of them, also where there is no payload: libest
        insists on it.
        """
        message = Message(code=self.code, payload=payload)
        message.opt.uri_path = self.path
        message.opt.uri_query = self.query
        message.opt.accept = self.accept
        message.opt.content_format = self.content_format
        return message

    @property
    def overhead(self) -> int:
        """Octets of its longest message beside the block: header, token and options."""
        path = sum(3 + len(part.encode("utf-8")) for part in (*self.path, *self.query))
        return 4 + 8 + path + 2 * 4 + 2 * 5 + 1


class BlockwiseClient:
    """Carries out requests, block by block where they or their answers are long.

    :param exchange: sends one message and waits for its answer.
    :param exponent: SZX of the blocks that the client wants.
    :param answer_size: octets of the longest answer that it takes.
    """

    def __init__(self, exchange: Exchange, *, exponent: int, answer_size: int) -> None:
        self._exchange = exchange
        self._exponent = exponent
        self._answer_size = answer_size

    async def request(self, request: CoapRequest) -> Any:
        """Send a request; its answer with the whole payload.

        :raises MessageError: the answer is too large, or its blocks do not fit together.
        """
        for _ in range(_RESTARTS):
            first = await self._upload(request)
            answer = await self._download(request, first)
            if answer is not None:
                return answer
            if request.payload:
                break
        raise MessageError("the answer changed while it was being fetched")

    async def _upload(self, request: CoapRequest) -> Any:
        """Send the request; the answer to its last block, or to one that was refused."""
        exponent, start, restarts = self._exponent, 0, 0
        while True:
            size = 1 << (exponent + 4)
            part = request.payload[start : start + size]
            more = start + size < len(request.payload)
            message = request.message(part)
            if more or start:
                message.opt.block1 = (start // size, more, exponent)
            if not more:
                # Asks for the answer in blocks of this size (RFC 7959 section 2.7).
                message.opt.block2 = (0, False, exponent)
            elif start == 0:
                message.opt.size1 = len(request.payload)
            answer = await self._exchange(message)
            smaller = _smaller_exponent(answer, exponent)
            lost_place = answer.code is Code.REQUEST_ENTITY_INCOMPLETE and start > 0
            too_large = answer.code is Code.REQUEST_ENTITY_TOO_LARGE and smaller < exponent
            if (lost_place or too_large) and restarts < _RESTARTS:
                exponent, start, restarts = smaller, 0, restarts + 1
            elif not more or answer.code is not Code.CONTINUE:
                if more and answer.code.is_successful():
                    raise MessageError("the server answered before it had the whole request")
                return answer
            else:
                start += len(part)
                exponent = smaller

    async def _download(self, request: CoapRequest, first: Any) -> Any:
        """Fetch the rest of an answer; ``None`` if it is no longer the same."""
        if first.code is Code.CONTINUE:
            raise MessageError("the server waits for more than there is")
        answer, body = first, bytes(first.payload)
        if answer.opt.block2 is not None and answer.opt.block2.block_number:
            raise MessageError("the answer does not begin with its first block")
        while answer.opt.block2 is not None and answer.opt.block2.more:
            block2 = answer.opt.block2
            if block2.size_exponent > 6 or len(body) % block2.size:
                raise MessageError("a block of the answer does not have its size")
            self._check_size(max(len(body) + 1, answer.opt.size2 or 0))
            message = request.message(b"")
            exponent = min(self._exponent, block2.size_exponent)
            message.opt.block2 = (len(body) >> (exponent + 4), False, exponent)
            answer = await self._exchange(message)
            if answer.code != first.code or answer.opt.etag != first.opt.etag:
                if answer.code.is_successful() and answer.opt.block2 is not None:
                    return None
                return answer
            if answer.opt.block2 is None or answer.opt.block2.start != len(body):
                raise MessageError("a block of the answer is missing")
            if not answer.payload or not answer.opt.block2.is_valid_for_payload_size(
                len(answer.payload)
            ):
                raise MessageError("a block of the answer does not have its size")
            body += answer.payload
        self._check_size(len(body))
        first.payload = body
        return first

    def _check_size(self, octets: int) -> None:
        if octets > self._answer_size:
            raise MessageError(f"the answer is larger than {self._answer_size} octets")


def _smaller_exponent(answer: Any, exponent: int) -> int:
    """The SZX that the server asks to go on with, if it is a smaller one."""
    block1 = answer.opt.block1
    return exponent if block1 is None else min(exponent, int(block1.size_exponent))
