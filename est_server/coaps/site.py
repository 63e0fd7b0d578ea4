"""The CoAP resources of EST (RFC 9148 section 4): requests to values, values to answers.

The site is asked for every request. It knows paths, options and blocks, and decides nothing:
whether a request is granted is the service's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_server.coaps import discovery
from est_server.coaps.blockwise import LARGEST_SZX, BlockwiseState, Body, TransferKey
from est_server.coaps.messages import CONTINUE, GET, Block, Request, Response
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
        # Which path leads where does not change, and looking here took 0.2 us instead of 3.
        self._resources: dict[tuple[str, ...], Resource] = {WELL_KNOWN_CORE: Discovery(links)}
        for label, operations in served.items():
            for operation in operations:
                self._add(operation, label)
        self.transfers = BlockwiseState(
            max_body=self._limits.max_body,
            max_transfers=self._limits.max_transfers,
            max_total=self._limits.max_transfer_octets,
            lifetime=self._limits.transfer_lifetime,
        )

    @property
    def busy(self) -> bool:
        """Whether a client is between two blocks."""
        return self.transfers.under_way(self._now())

    def answer(self, request: Request) -> Response | Coroutine[Any, Any, Response]:
        """Answer one CoAP request; never raises but for a bug.

        :return: the answer where nobody has to be asked, as between the blocks of a transfer, or
            a coroutine that makes it.
        """
        resource: Resource | None = None
        try:
            if request.bad_option is not None:
                raise RequestRefused(
                    RefusalReason.BAD_OPTION,
                    f"option {request.bad_option} is critical and not understood here",
                )
            resource = self._find(request.path)
            key = (request.code, request.path, request.query)
            body = self._already_answered(request, key)
            if body is not None:
                return self._send(request, key, body)
            resource.check(request)
            payload = self._collect(request, key)
        except RequestRefused as refused:
            return self._refuse(refused, request, resource)
        if payload is None:
            return self._continue(request.block1)
        return self._answer(request, resource, key, payload)

    async def _answer(
        self, request: Request, resource: Resource, key: TransferKey, payload: bytes
    ) -> Response:
        """Have the whole request answered, and send the answer's first block."""
        try:
            body = await resource.answer(request, payload)
            if request.block1 is not None:
                upload_end = (request.block1, request.payload)
                body = Body(body.code, body.payload, body.content_format, upload_end)
            return self._send(request, key, body)
        except AnsweredByService as answered:
            return self._refusal(answered.refused, request)
        except RequestRefused as refused:
            return await self._refuse(refused, request, resource)

    async def _refuse(
        self, refused: RequestRefused, request: Request, resource: Resource | None
    ) -> Response:
        await self._service.record_refusal(
            refused,
            operation=resource.operation if resource else None,
            label=resource.label if resource else None,
            transport=Transport.COAPS,
            peer=request.session.peer,
        )
        return self._refusal(refused, request)

    # -- Finding the resource ------------------------------------------------------------------

    def _add(self, operation: Operation, label: str | None) -> None:
        for root in self._roots:
            below = root if label is None else (*root, label)
            for name in operation.short_names:
                resource = EstResource(self._service, operation, label, name=name)
                self._resources[*below, name] = resource

    def _find(self, path: tuple[str, ...]) -> Resource:
        resource = self._resources.get(path)
        if resource is not None:
            return resource
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

    def _already_answered(self, request: Request, key: TransferKey) -> Body | None:
        """The kept answer that this request goes on fetching, or asks for a second time.

        A further block of an answer to POST is asked for by a POST without a body (RFC 7959
        section 3.3), which must not be taken for another enrollment.
        """
        block1, block2 = request.block1, request.block2
        if block2 is not None and block2.szx > LARGEST_SZX:
            raise RequestRefused(RefusalReason.MALFORMED_REQUEST, "block size 7 is reserved")
        fetches_on = block2 is not None and block2.number > 0
        repeats_end = block1 is not None and not block1.more and block1.number > 0
        if not fetches_on and not repeats_end:
            return None
        body = self.transfers.kept(request.session, key, now=self._now())
        if repeats_end and not fetches_on:
            repeated = body is not None and body.upload_end == (block1, request.payload)
            return body if repeated else None
        if body is None and request.code != GET:
            raise RequestRefused(
                RefusalReason.BLOCKS_INCOMPLETE,
                "the answer is no longer here; send the whole request again",
            )
        return body

    def _collect(self, request: Request, key: TransferKey) -> bytes | None:
        block1 = request.block1
        announced = request.size1
        if announced is not None and announced > self.transfers.max_body:
            raise self.transfers.too_large()
        if block1 is None:
            if len(request.payload) > self.transfers.max_body:
                raise self.transfers.too_large()
            return request.payload
        return self.transfers.receive(
            request.session, key, block1, request.payload, now=self._now()
        )

    def _send(self, request: Request, key: TransferKey, body: Body) -> Response:
        block1, block2 = request.block1, request.block2
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
        response = Response(body.code, body.payload[start : start + size], body.content_format)
        if block1 is not None:
            response.block1 = Block(block1.number, False, block1.szx)
        if len(body.payload) > size:
            response.block2 = Block(number, more, szx)
            response.etag = body.etag
        if request.size2 is not None:
            response.size2 = len(body.payload)
        if number == 0 and (more or block1 is not None):
            self.transfers.keep(request.session, key, body, now=self._now())
        if not more:
            self.transfers.fetched(request.session, key, now=self._now())
        return response

    def _continue(self, block1: Block | None) -> Response:
        """2.31 for a block that is not the last (RFC 7959 section 2.9.1)."""
        assert block1 is not None
        # A smaller size here asks the client to go on in smaller blocks.
        szx = min(block1.szx, self._limits.block_size_exponent)
        return Response(CONTINUE, block1=Block(block1.number, True, szx))

    def _refusal(self, refused: RequestRefused, request: Request) -> Response:
        """The status of a refusal, with its sentence as diagnostic payload."""
        blocks = [request.block1, request.block2]
        sizes = [block.size for block in blocks if block is not None]
        largest = 1 << (self._limits.block_size_exponent + 4)
        room = max(_SMALLEST_DIAGNOSTIC, min([largest, *sizes]))
        code = refused.status.coap[0] << 5 | refused.status.coap[1]
        response = Response(code, _cut(refused.sentence, room))
        if refused.retry_after is not None:
            response.max_age = refused.retry_after
        if refused.reason is RefusalReason.BODY_TOO_LARGE:
            response.size1 = self.transfers.max_body
        if blocks[0] is not None:
            szx = min(blocks[0].szx, LARGEST_SZX)
            response.block1 = Block(blocks[0].number, False, szx)
        return response


def _cut(sentence: str, room: int) -> bytes:
    return sentence.encode("utf-8")[:room].decode("utf-8", errors="ignore").encode("utf-8")
