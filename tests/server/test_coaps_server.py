"""The CoAPS server at the other end of real DTLS sessions, message by message."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiocoap import Message
from aiocoap.numbers import Code
from aiocoap.numbers.types import ACK, CON, NON, RST

from est_protocol.coap.codec import decode_message
from est_protocol.coap.session import CoapLimits
from est_protocol.errors import ChannelError, ConfigurationError
from est_protocol.messages import CertificatesResponse, EstRequest, Transport
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials, dtls_context
from est_protocol.secure_channel.datagram import DatagramLimits
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_channel import DtlsChannel
from est_protocol.secure_channel.dtls_client import connect_dtls
from est_protocol.secure_channel.policy import DtlsPolicy
from est_server.coaps.limits import CoapsLimits
from est_server.coaps.server import CoapsServer
from est_server.coaps.site import SiteLimits
from tests.loop_time import skip
from tests.server.coaps_ends import (
    ANCHORS,
    DEVICE,
    ROOT,
    IssuingService,
    connected,
    endpoint_of,
    serving,
)

#: Empty, the methods, some responses, and codes that mean nothing.
_CODES = (0, 1, 2, 3, 4, 5, 30, 65, 69, 95, 132, 160, 224, 225, 255)


class RawClient:
    """Sends and receives single CoAP messages over one session."""

    def __init__(self, channel: DtlsChannel) -> None:
        self.channel = channel
        self.busy = False
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.lost: asyncio.Event = asyncio.Event()

    def datagram_received(self, plaintext: bytes) -> None:
        self.received.put_nowait(decode_message(plaintext))

    def channel_lost(self, reason: ChannelError) -> None:
        self.lost.set()

    def send(self, code: Code, mid: int, mtype: Any = CON, token: bytes = b"t", **o: Any) -> None:
        message = Message(code=code, **o)
        message.mtype, message.mid, message.token = mtype, mid, token
        self.channel.send(message.encode())

    async def receive(self) -> Any:
        async with asyncio.timeout(60):
            return await self.received.get()

    async def get(self, mid: int, *path: str, **options: Any) -> Any:
        self.send(Code.GET, mid, uri_path=path, **options)
        return await self.receive()


@asynccontextmanager
async def raw(
    server: CoapsServer, credentials: LocalCredentials | None = DEVICE
) -> AsyncIterator[RawClient]:
    """A raw client of ``server``."""
    policy = DtlsPolicy()
    context = dtls_context(
        policy, server=False, credentials=credentials, anchors=ANCHORS, require_trust=True
    )
    session = DtlsSession(context, ANCHORS, policy, server=False)
    clients: list[RawClient] = []

    def open_user(channel: DtlsChannel) -> RawClient:
        clients.append(RawClient(channel))
        return clients[-1]

    client = await connect_dtls(session, open_user, remote=("127.0.0.1", server.port))
    try:
        yield clients[0]
    finally:
        await client.close()


def timers() -> int:
    """Timers of the event loop that still count."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum(not timer.cancelled() for timer in scheduled)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)


@pytest.mark.conformance("CD-06", "CD-07")
@pytest.mark.parametrize("path", [("est", "crts"), (".well-known", "est", "crts")])
async def test_client_without_certificate_is_told_4_01(path: tuple[str, ...]) -> None:
    async with serving(IssuingService()) as server, raw(server, credentials=None) as client:
        answer = await client.get(1, *path)
    assert answer.code is Code.UNAUTHORIZED
    assert answer.mtype is ACK
    assert answer.payload.decode() == "a client certificate is required"
    assert answer.opt.content_format is None


@pytest.mark.conformance("CR-12")
async def test_duplicate_of_a_request_is_answered_and_not_served_again() -> None:
    service = IssuingService()
    async with serving(service) as server, raw(server) as client:
        first = await client.get(7, "est", "crts")
        again = await client.get(7, "est", "crts")
        assert (first.mid, first.payload) == (again.mid, again.payload)
        await client.get(8, "est", "crts")
    assert len(service.requests) == 2


@pytest.mark.conformance("CD-22")
async def test_message_ids_of_two_sessions_have_nothing_to_do_with_each_other() -> None:
    service = IssuingService()
    async with serving(service) as server, raw(server) as one, raw(server) as other:
        await one.get(7, "est", "crts")
        await other.get(7, "est", "crts")
    assert len(service.requests) == 2


@pytest.mark.conformance("CR-05")
async def test_slow_answer_comes_separately() -> None:
    service = IssuingService()
    service.gate = asyncio.Event()
    async with serving(service) as server, raw(server) as client:
        empty = await client.get(7, "est", "crts")
        assert (empty.code, empty.mtype, empty.mid) == (Code.EMPTY, ACK, 7)
        client.send(Code.GET, 7, uri_path=("est", "crts"))
        assert (await client.receive()).code is Code.EMPTY, "a duplicate while it is worked on"
        service.gate.set()
        answer = await client.receive()
        assert (answer.code, answer.mtype, answer.token) == (Code.CONTENT, CON, b"t")
        client.send(Code.EMPTY, answer.mid, ACK, b"")
    assert len(service.requests) == 1


@pytest.mark.conformance("CR-15")
async def test_ping() -> None:
    async with serving(IssuingService()) as server, raw(server) as client:
        client.send(Code.EMPTY, 5, CON, b"")
        answer = await client.receive()
    assert (answer.code, answer.mtype, answer.mid) == (Code.EMPTY, RST, 5)


@pytest.mark.conformance("CR-11")
async def test_critical_option_that_is_not_understood() -> None:
    service = IssuingService()
    async with serving(service) as server, raw(server) as client:
        client.channel.send(bytes.fromhex("4001000110"))  # CON with If-Match
        assert (await client.receive()).code is Code.BAD_OPTION
        client.channel.send(bytes.fromhex("5001000210"))  # NON: ignored
        assert (await client.get(3, "est", "crts")).code is Code.CONTENT
    assert [refused.reason for refused in service.refusals] == ["bad-option"]


async def test_what_is_no_coap_is_dropped() -> None:
    async with serving(IssuingService()) as server, raw(server) as client:
        for junk in (b"\x00", b"\xff" * 100, bytes.fromhex("40010001ff"), b"\x49" * 13):
            client.channel.send(junk)
        for mtype in (ACK, RST):
            client.send(Code.GET, 9, mtype, uri_path=("est", "crts"))
        assert (await client.get(1, "est", "crts")).code is Code.CONTENT
        assert client.received.empty()


async def test_non_confirmable_request_is_answered() -> None:
    async with serving(IssuingService()) as server, raw(server) as client:
        client.send(Code.GET, 1, NON, uri_path=("est", "crts"))
        answer = await client.receive()
    assert (answer.code, answer.mtype) == (Code.CONTENT, NON)


async def test_requests_at_a_time_are_capped() -> None:
    service = IssuingService()
    service.gate = asyncio.Event()
    limits = CoapsLimits(coap=CoapLimits(maximum_requests=2))
    async with serving(service, endpoint_of(limits=limits)) as server, raw(server) as client:
        for mid in range(6):
            client.send(Code.GET, mid, NON, bytes([mid]), uri_path=("est", "crts"))
        client.send(Code.EMPTY, 99, CON, b"")
        assert (await client.receive()).mid == 99
        assert len(service.requests) == 2
        service.gate.set()
        assert {(await client.receive()).token for _ in range(2)} == {b"\x00", b"\x01"}


async def test_lost_session_leaves_no_request_and_no_timer() -> None:
    service = IssuingService()
    service.gate = asyncio.Event()
    async with serving(service) as server:
        before, tasks = timers(), len(asyncio.all_tasks())
        async with raw(server) as client:
            client.send(Code.GET, 1, uri_path=("est", "crts"))
            assert (await client.receive()).code is Code.EMPTY
            client.send(Code.GET, 2, token=b"u", uri_path=("est", "crts"))
            await until(lambda: len(service.requests) == 2)
        await until(lambda: server.sessions == 0)
        await until(lambda: len(asyncio.all_tasks()) == tasks)
        assert timers() == before


@pytest.mark.conformance("BW-11")
async def test_lost_session_lets_go_of_its_transfers() -> None:
    service = IssuingService()
    async with serving(service) as server:
        async with raw(server) as client:
            client.send(
                Code.POST,
                1,
                uri_path=("est", "sen"),
                content_format=286,
                block1=(0, True, 2),
                payload=bytes(64),
            )
            assert (await client.receive()).code is Code.CONTINUE
            assert server.application.site.transfers.octets == 64
        await until(lambda: server.sessions == 0)
        assert server.application.site.transfers.octets == 0


async def test_stopping_server_finishes_what_it_works_on() -> None:
    service = IssuingService()
    service.gate = asyncio.Event()
    async with serving(service) as server, connected(server) as connection:
        request = asyncio.create_task(
            connection.request(EstRequest(Operation.CACERTS, Transport.COAPS))
        )
        await until(lambda: bool(service.requests))
        stopping = asyncio.create_task(server.close())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        service.gate.set()
        answer = await request
        assert isinstance(answer, CertificatesResponse)
        assert ROOT.certificate in answer.certificates
        await stopping


async def test_stopping_server_does_not_wait_for_ever() -> None:
    service = IssuingService()
    service.gate = asyncio.Event()
    limits = CoapsLimits(drain_timeout=0.1)
    async with serving(service, endpoint_of(limits=limits)) as server, raw(server) as client:
        client.send(Code.GET, 1, uri_path=("est", "crts"))
        await until(lambda: bool(service.requests))
        await server.close()
        async with asyncio.timeout(60):
            await client.lost.wait()


@pytest.mark.conformance("CD-16")
async def test_working_session_outlives_the_idle_time_out() -> None:
    service = IssuingService()
    service.gate = asyncio.Event()
    idle = DatagramLimits().idle_timeout
    async with serving(service) as server, raw(server) as client:
        client.send(Code.GET, 1, uri_path=("est", "crts"))
        assert (await client.receive()).code is Code.EMPTY
        for _ in range(3):
            skip(idle)
            await asyncio.sleep(0.01)
        assert server.sessions == 1
        service.gate.set()
        answer = await client.receive()
        assert answer.code is Code.CONTENT
        client.send(Code.EMPTY, answer.mid, ACK, b"")
        while not client.lost.is_set():
            skip(idle)
            await asyncio.sleep(0.01)


@pytest.mark.conformance("BW-14")
async def test_block_size_follows_the_mtu() -> None:
    endpoint = endpoint_of(
        policy=DtlsPolicy(mtu=256), limits=CoapsLimits(site=SiteLimits(block_size_exponent=6))
    )
    async with serving(IssuingService(), endpoint) as server, raw(server) as client:
        answer = await client.get(1, "est", "crts")
        assert answer.opt.block2 == (0, True, 3)
        # A client that counts in larger blocks gets the octets that it asked for.
        larger = await client.get(2, "est", "crts", block2=(1, False, 4))
        assert larger.opt.block2 == (2, True, 3)


@pytest.mark.conformance("CU-03", "CU-13")
async def test_discovery() -> None:
    async with serving(IssuingService()) as server, raw(server, credentials=None) as client:
        answer = await client.get(1, ".well-known", "core", uri_query=("rt=ace.est.sen",))
    assert answer.code is Code.CONTENT
    assert int(answer.opt.content_format) == 40
    assert answer.payload.startswith(b'</est/sen>;rt="ace.est.sen";ct="281 287"')


async def test_port_that_is_taken() -> None:
    async with serving(IssuingService()) as server:
        with pytest.raises(OSError, match="in use"):
            async with serving(IssuingService(), endpoint_of(port=server.port)):
                pass


@pytest.mark.parametrize(
    "wrong",
    [{"maximum_requests": 0}, {"remembered_octets": 0}, {"remembered_requests": 1}],
)
def test_coap_limits_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        CoapLimits(**wrong)


async def test_random_messages_raise_nothing_into_the_event_loop() -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    generator = random.Random(7)
    async with serving(IssuingService()) as server, raw(server) as client:
        for _ in range(1500):
            head = bytes([0x40 | generator.randrange(64), generator.choice(_CODES)])
            client.channel.send(head + generator.randbytes(generator.randrange(2, 40)))
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        while not client.received.empty():
            client.received.get_nowait()
        client.send(Code.GET, 1, NON, b"last", uri_path=("est", "crts"))
        while (await client.receive()).token != b"last":
            pass
    assert raised == []
