"""The CoAP resources of EST (RFC 9148 section 4): requests to values, values to answers.

The site is what aiocoap calls for every request. It knows paths, options and blocks, and decides
nothing: whether a request is granted is the service's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiocoap import Message
from aiocoap.numbers import Code

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_server.coaps import discovery
from est_server.coaps.blockwise import LARGEST_SZX, Block, BlockwiseState, Body, TransferKey
from est_server.coaps.resources import (
    AnsweredByService,
    Discovery,
    EstResource,
    EstService,
    Resource,
)

WELL_KNOWN_EST = (".well-known", "est")
WELL_KNOWN_CORE = (".well-known", "core")

_OPERATIONS = {name: operation for operation in Operation for name in operation.short_names}

#: Options that a request may carry (RFC 9148 section 4.4); an option with an odd number that is
#: none of them, or that comes twice, is refused with 4.02 (RFC 7252 sections 5.4.1 and 5.4.5).
_REPEATABLE = frozenset({11, 15})
_UNDERSTOOD = frozenset({3, 7, 12, 17, 23, 27}) | _REPEATABLE

#: Octets of a diagnostic payload: no more than fits into one block of the client's, but enough
#: to say something.
_SMALLEST_DIAGNOSTIC = 64


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """The bounds of the site, and where it is.

    :param max_body: octets of a request body; more is answered 4.13.
    :param block_size_exponent: SZX of the blocks that answers are sent in unless the client
        wants them smaller; 0 to 6 for 16 to 1024 octets.
    :param max_transfers: block-wise transfers of one session in each direction.
    :param max_transfer_octets: octets of all sessions' transfers together.
    :param transfer_lifetime: seconds that a client may take from one block to the next.
    :param short_root: path of the short root, beside ``/.well-known/est``; empty for none.
    """

    max_body: int = 65536
    block_size_exponent: int = LARGEST_SZX
    max_transfers: int = 4
    max_transfer_octets: int = 64 * 1024 * 1024
    transfer_lifetime: float = 93.0
    short_root: str = "est"


class EstSite:
    """The site of one CoAPS server.

    :param service: answers the requests.
    :param now: seconds of a clock that never jumps.
    """

    def __init__(
        self,
        service: EstService,
        limits: SiteLimits | None = None,
        *,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._service = service
        self._limits = limits or SiteLimits()
        self._now = now or (lambda: asyncio.get_running_loop().time())
        short_root = tuple(part for part in self._limits.short_root.split("/") if part)
        self._roots = (WELL_KNOWN_EST, short_root) if short_root else (WELL_KNOWN_EST,)
        served = {label: service.operations(label) for label in service.labels}
        links = discovery.links(self._roots[-1], served)
        self._discovery = Discovery(links)
        self.transfers = BlockwiseState(
            max_body=self._limits.max_body,
            max_transfers=self._limits.max_transfers,
            max_total=self._limits.max_transfer_octets,
            lifetime=self._limits.transfer_lifetime,
        )

    async def render_to_pipe(self, pipe: Any) -> None:
        """Answer the request of an aiocoap pipe."""
        pipe.add_response(await self.respond(pipe.request), is_last=True)

    async def respond(self, request: Any) -> Any:
        """Answer one CoAP message; never raises but for a bug.

        ``request.remote`` stands for the DTLS session and has the client's credentials as
        ``peer``.
        """
        resource: Resource | None = None
        try:
            _check_options(request)
            resource = self._find(request.opt.uri_path)
            return await self._exchange(request, resource)
        except AnsweredByService as answered:
            return self._refusal(answered.refused, request)
        except RequestRefused as refused:
            await self._service.record_refusal(
                refused,
                operation=resource.operation if resource else None,
                label=resource.label if resource else None,
                transport=Transport.COAPS,
                peer=request.remote.peer,
            )
            return self._refusal(refused, request)

    # -- Finding the resource ------------------------------------------------------------------

    def _find(self, path: tuple[str, ...]) -> Resource:
        if path == WELL_KNOWN_CORE:
            return self._discovery
        for root in self._roots:
            if path[: len(root)] == root:
                return self._find_below(path[len(root) :])
        raise RequestRefused(RefusalReason.UNKNOWN_OPERATION, "there is nothing here")

    def _find_below(self, path: tuple[str, ...]) -> Resource:
        if not 1 <= len(path) <= 2:
            raise RequestRefused(RefusalReason.UNKNOWN_OPERATION, "there is nothing here")
        name, label = path[-1], path[0] if len(path) == 2 else None
        operation = _OPERATIONS.get(name)
        # What an unknown label serves is for the service to say.
        known = label in self._service.labels
        if operation is None or (known and operation not in self._service.operations(label)):
            raise RequestRefused(
                RefusalReason.UNKNOWN_OPERATION, f"there is no operation {name!r} here"
            )
        return EstResource(self._service, operation, label, name=name)

    # -- Block-wise transfer -------------------------------------------------------------------

    async def _exchange(self, request: Any, resource: Resource) -> Any:
        """Collect the request's blocks, have it answered, and send the answer's first block."""
        key = (int(request.code), request.opt.uri_path, request.opt.uri_query)
        block1, block2 = _block(request.opt.block1), _block(request.opt.block2)
        if block2 is not None and block2.szx > LARGEST_SZX:
            raise RequestRefused(RefusalReason.MALFORMED_REQUEST, "block size 7 is reserved")
        body = self._already_answered(request, key, block1, block2)
        if body is None:
            resource.check(request)
            payload = self._collect(request, key, block1)
            if payload is None:
                return self._continue(block1)
            body = await resource.answer(request, payload)
            if block1 is not None:
                body = Body(body.code, body.payload, body.content_format, (block1, request.payload))
        return self._send(request, key, body, block1, block2)

    def _already_answered(
        self, request: Any, key: TransferKey, block1: Block | None, block2: Block | None
    ) -> Body | None:
        """The kept answer that this request goes on fetching, or asks for a second time.

        A further block of an answer to POST is asked for by a POST without a body (RFC 7959
        section 3.3), which must not be taken for another enrollment.
        """
        fetches_on = block2 is not None and block2.number > 0
        repeats_end = block1 is not None and not block1.more and block1.number > 0
        if not fetches_on and not repeats_end:
            return None
        body = self.transfers.kept(request.remote, key, now=self._now())
        if repeats_end and not fetches_on:
            repeated = body is not None and body.upload_end == (block1, request.payload)
            return body if repeated else None
        if body is None and request.code != Code.GET:
            raise RequestRefused(
                RefusalReason.BLOCKS_INCOMPLETE,
                "the answer is no longer here; send the whole request again",
            )
        return body

    def _collect(self, request: Any, key: TransferKey, block1: Block | None) -> bytes | None:
        announced = request.opt.size1
        if announced is not None and announced > self.transfers.max_body:
            raise self.transfers.too_large()
        if block1 is None:
            if len(request.payload) > self.transfers.max_body:
                raise self.transfers.too_large()
            return bytes(request.payload)
        return self.transfers.receive(request.remote, key, block1, request.payload, now=self._now())

    def _send(
        self, request: Any, key: TransferKey, body: Body, block1: Block | None, block2: Block | None
    ) -> Any:
        szx = min(
            self._limits.block_size_exponent,
            block1.szx if block1 else LARGEST_SZX,
            block2.szx if block2 else LARGEST_SZX,
        )
        # What has been fetched was counted in the client's blocks; what is sent, in ours.
        start = block2.offset if block2 else 0
        number = start >> (szx + 4)
        size = 1 << (szx + 4)
        if number > 0 and start >= len(body.payload):
            raise RequestRefused(
                RefusalReason.MALFORMED_REQUEST, "the answer has no block with this number"
            )
        more = start + size < len(body.payload)
        response = _message(body.code, body.payload[start : start + size], body.content_format)
        if block1 is not None:
            response.opt.block1 = (block1.number, False, block1.szx)
        if len(body.payload) > size:
            response.opt.block2 = (number, more, szx)
            response.opt.etag = body.etag
        if request.opt.size2 is not None:
            response.opt.size2 = len(body.payload)
        if number == 0 and (more or block1 is not None):
            self.transfers.keep(request.remote, key, body, now=self._now())
        return response

    def _continue(self, block1: Block | None) -> Any:
        """2.31 for a block that is not the last (RFC 7959 section 2.9.1)."""
        assert block1 is not None
        response = _message(int(Code.CONTINUE), b"", None)
        # A smaller size here asks the client to go on in smaller blocks.
        szx = min(block1.szx, self._limits.block_size_exponent)
        response.opt.block1 = (block1.number, True, szx)
        return response

    def _refusal(self, refused: RequestRefused, request: Any) -> Any:
        """The status of a refusal, with its sentence as diagnostic payload."""
        blocks = [_block(request.opt.block1), _block(request.opt.block2)]
        sizes = [block.size for block in blocks if block is not None]
        largest = 1 << (self._limits.block_size_exponent + 4)
        room = max(_SMALLEST_DIAGNOSTIC, min([largest, *sizes]))
        code = refused.status.coap[0] << 5 | refused.status.coap[1]
        response = _message(code, _cut(refused.sentence, room), None)
        if refused.retry_after is not None:
            response.opt.max_age = refused.retry_after
        if refused.reason is RefusalReason.BODY_TOO_LARGE:
            response.opt.size1 = self.transfers.max_body
        if blocks[0] is not None:
            response.opt.block1 = (blocks[0].number, False, min(blocks[0].szx, LARGEST_SZX))
        return response


def _check_options(request: Any) -> None:
    # The decoder leaves out what it does not understand, and says so.
    bad_option = getattr(request, "bad_option", None)
    if bad_option is not None:
        raise RequestRefused(
            RefusalReason.BAD_OPTION, f"option {bad_option} is critical and not understood here"
        )
    seen: set[int] = set()
    for option in request.opt.option_list():
        number = int(option.number)
        critical = number % 2 == 1
        repeated = number in seen and number not in _REPEATABLE
        if critical and (number not in _UNDERSTOOD or repeated):
            raise RequestRefused(
                RefusalReason.BAD_OPTION,
                f"option {number} is critical and " + ("repeated" if repeated else "unknown here"),
            )
        seen.add(number)


def _block(option: Any) -> Block | None:
    if option is None:
        return None
    return Block(option.block_number, bool(option.more), option.size_exponent)


def _message(code: int, payload: bytes, content_format: int | None) -> Any:
    message = Message(code=Code(code), payload=payload)
    if content_format is not None:
        message.opt.content_format = content_format
    return message


def _cut(sentence: str, room: int) -> bytes:
    return sentence.encode("utf-8")[:room].decode("utf-8", errors="ignore").encode("utf-8")
