"""Blocks that a network doubles and delays: what arrives whole is asked of the service once."""

from __future__ import annotations

import random
from typing import Any

import pytest
from aiocoap import Message
from aiocoap.numbers import Code
from aiocoap.numbers.types import CON

from est_protocol.coap.session import CoapLimits
from est_protocol.messages import CertificatesResponse
from est_server.coaps.limits import CoapsLimits
from est_server.coaps.server import CoapsServer
from tests.server.coaps_ends import ISSUER, IssuingService, endpoint_of, serving
from tests.server.test_coaps_server import RawClient, raw

BODY = random.Random(1).randbytes(700)


class Disorderly:
    """Sends a body block by block over a session on which earlier messages arrive late, again.

    :param share: how likely it is that an earlier message comes before the next one.
    """

    def __init__(self, client: RawClient, seed: int, share: float) -> None:
        self._client = client
        self._random = random.Random(seed)
        self._share = share
        self._sent: list[bytes] = []
        self._message_id = 100

    async def send_block(self, number: int, size: int) -> Any:
        """The answer to one block."""
        while self._sent and self._random.random() < self._share:
            self.repeat(self._random.choice(self._sent))
        self._message_id += 1
        block = BODY[number * size : (number + 1) * size]
        more = (number + 1) * size < len(BODY)
        message = Message(
            code=Code.POST,
            uri_path=("est", "sen"),
            content_format=286,
            block1=(number, more, size.bit_length() - 5),
            payload=block,
        )
        message.mtype, message.mid = CON, self._message_id
        message.token = self._message_id.to_bytes(2, "big")
        self._sent.append(message.encode())
        self._client.channel.send(self._sent[-1])
        while (answer := await self._client.receive()).token != message.token or not answer.code:
            pass
        return answer

    def repeat(self, message: bytes) -> None:
        """A message that was sent before comes again: a retransmission that took its time."""
        self._client.channel.send(message)

    def repeat_first(self) -> None:
        """The first message comes again."""
        self.repeat(self._sent[0])


def issuing() -> IssuingService:
    service = IssuingService()
    service.answer = lambda request: CertificatesResponse((ISSUER.certificate,))
    return service


def remembering(count: int) -> CoapsLimits:
    return CoapsLimits(coap=CoapLimits(remembered_requests=count))


@pytest.mark.parametrize("seed", range(6))
async def test_late_duplicates_change_nothing(seed: int) -> None:
    service = issuing()
    async with serving(service) as server, raw(server) as client:
        network = Disorderly(client, seed, 0.6)
        answers = [await network.send_block(number, 64) for number in range(11)]
    assert [answer.code for answer in answers[:-1]] == [Code.CONTINUE] * 10
    assert answers[-1].code is Code.CHANGED
    assert [request.body for request in service.requests] == [BODY]


async def restart_until_complete(network: Disorderly) -> int:
    """Send the body as often as it takes; how often that was."""
    for attempt in range(1, 4):
        for number in range(11):
            answer = await network.send_block(number, 64)
            if answer.code is Code.REQUEST_ENTITY_INCOMPLETE:
                break
            if answer.code is Code.CHANGED:
                return attempt
    raise AssertionError("it was never complete")


async def test_a_first_block_that_comes_after_it_is_forgotten_costs_a_restart_and_no_more() -> None:
    service = issuing()
    endpoint = endpoint_of(limits=remembering(4))
    async with serving(service, endpoint) as server, raw(server) as client:
        network = Disorderly(client, 0, 0.0)
        for number in range(8):
            assert (await network.send_block(number, 64)).code is Code.CONTINUE
        network.repeat_first()
        assert (await network.send_block(8, 64)).code is Code.REQUEST_ENTITY_INCOMPLETE
        assert await restart_until_complete(network) == 1
        assert transfers_of(server) == 1, "the answer alone is kept"
    assert [request.body for request in service.requests] == [BODY]


async def test_a_block_that_overtakes_another_is_not_put_in_its_place() -> None:
    service = issuing()
    async with serving(service) as server, raw(server) as client:
        network = Disorderly(client, 0, 0.0)
        assert (await network.send_block(0, 64)).code is Code.CONTINUE
        assert (await network.send_block(2, 64)).code is Code.REQUEST_ENTITY_INCOMPLETE
        assert (await network.send_block(1, 64)).code is Code.CONTINUE
        assert await restart_until_complete(network) == 1
    assert [request.body for request in service.requests] == [BODY]


async def test_the_last_block_again_under_another_message_id_is_the_same_request() -> None:
    service = issuing()
    async with serving(service) as server, raw(server) as client:
        network = Disorderly(client, 0, 0.0)
        for number in range(10):
            await network.send_block(number, 64)
        first, second = [await network.send_block(10, 64) for _ in range(2)]
    assert (first.code, first.payload) == (second.code, second.payload)
    assert [request.body for request in service.requests] == [BODY]


def transfers_of(server: CoapsServer) -> int:
    """Transfers that are kept for all sessions."""
    return sum(
        len(transfers.uploads) + len(transfers.downloads)
        for transfers in server.application.site.transfers._sessions.values()
    )
