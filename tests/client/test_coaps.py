from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiocoap import Message
from aiocoap.numbers import Code
from aiocoap.numbers.types import ACK, NON
from cryptography.hazmat.primitives.serialization import Encoding

from est_client.blockwise import BlockwiseClient, CoapRequest
from est_client.client import EstClient
from est_client.coaps import CoapsClientLimits, CoapsConnector, _certificates
from est_client.connectors import ConnectorOptions, connector_for
from est_client.http_answers import LONGEST_RETRY_AFTER
from est_client.trust import TrustDatabase
from est_protocol import certs_only, pkcs10
from est_protocol.coap.codec import decode_message
from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.errors import (
    ChannelClosed,
    ChannelError,
    ConfigurationError,
    MessageError,
    PeerNotTrusted,
    RefusalReason,
    RequestRefused,
    ServerRefused,
)
from est_protocol.key_package import encode_private_key
from est_protocol.messages import (
    CertificatesResponse,
    EstRequest,
    GeneratedKeyResponse,
    Pending,
    Transport,
)
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors
from est_protocol.secure_channel.datagram import DtlsServer
from est_protocol.secure_channel.dtls_channel import DtlsChannel
from est_protocol.secure_channel.policy import DtlsPolicy
from tests import pki
from tests.lossy import LossyNetwork
from tests.secure_channel.dtls_ends import make_listener
from tests.server.coaps_ends import (
    ANCHORS,
    DEVICE,
    ISSUER,
    ROOT,
    IssuingService,
    connected,
    connector_to,
    endpoint_of,
    serving,
)

CACERTS = EstRequest(Operation.CACERTS, Transport.COAPS)


def enrollment(label: str | None = None) -> EstRequest:
    csr = pkcs10.build(DEVICE.key, pki.make_name("device"))
    return EstRequest(Operation.SIMPLEENROLL, Transport.COAPS, label, csr.der)


@pytest.mark.conformance("BW-01", "BW-02", "BW-03", "BW-14")
@pytest.mark.parametrize("block_size", [16, 64, 256, 1024])
async def test_both_directions_in_blocks(block_size: int) -> None:
    service = IssuingService()
    request = enrollment("plant")
    async with serving(service) as server, connected(server, block_size=block_size) as connection:
        answer = await connection.request(CACERTS)
        assert isinstance(answer, CertificatesResponse)
        assert set(answer.certificates) == {ISSUER.certificate, ROOT.certificate}
        answer = await connection.request(request)
        assert isinstance(answer, CertificatesResponse)
        assert answer.certificates[0].public_key() == DEVICE.key.public_key()
        binding = connection.server.channel_binding
    assert service.requests == [CACERTS, request]
    assert service.peers[0].channel_binding == binding


@pytest.mark.parametrize("mtu", [256, 512])
async def test_small_mtu(mtu: int) -> None:
    policy = DtlsPolicy(mtu=mtu)
    async with (
        serving(IssuingService(), endpoint_of(policy=policy)) as server,
        connected(server, policy=policy) as connection,
    ):
        assert isinstance(await connection.request(CACERTS), CertificatesResponse)
        assert isinstance(await connection.request(enrollment()), CertificatesResponse)


@pytest.mark.conformance("CR-10", "CR-12", "CR-13", "BW-05")
async def test_a_fifth_of_all_datagrams_lost_each_way() -> None:
    service = IssuingService()
    network = LossyNetwork(0.0, seed=1)
    async with (
        serving(service) as server,
        connected(server, block_size=64, transport_factory=network) as connection,
    ):
        # OpenSSL's first retransmission takes a second; lossy handshakes have a test of their own.
        network.loss = 0.2
        for _ in range(2):
            assert isinstance(await connection.request(CACERTS), CertificatesResponse)
            assert isinstance(await connection.request(enrollment()), CertificatesResponse)
        network.loss = 0.0
    assert network.lost > 10
    assert len(service.requests) == 4, "nothing was enrolled twice"


@pytest.mark.conformance("PA-02")
async def test_one_request_of_a_connection_is_under_way_at_a_time() -> None:
    service = IssuingService()
    service.gate = asyncio.Event()
    async with serving(service) as server, connected(server) as connection:
        requests = [asyncio.create_task(connection.request(CACERTS)) for _ in range(2)]
        while not service.requests:  # noqa: ASYNC110 - until it has arrived
            await asyncio.sleep(0)
        # Until the first has been acknowledged, and longer than the second would take.
        await asyncio.sleep(0.2)
        assert len(service.requests) == 1
        service.gate.set()
        await asyncio.gather(*requests)
    assert len(service.requests) == 2


async def test_requests_of_one_connection_take_turns() -> None:
    service = IssuingService()
    async with serving(service) as server, connected(server, block_size=32) as connection:
        answers = await asyncio.gather(*(connection.request(CACERTS) for _ in range(3)))
    assert all(isinstance(answer, CertificatesResponse) for answer in answers)


async def test_refusal_with_its_words() -> None:
    service = IssuingService()

    def refuse(_: EstRequest) -> CertificatesResponse:
        raise RequestRefused(RefusalReason.NOT_AUTHORIZED, "not \x1b[31mlisted\n here")

    service.answer = refuse
    async with serving(service) as server, connected(server) as connection:
        with pytest.raises(ServerRefused) as refused:
            await connection.request(enrollment())
    assert refused.value.status == "4.03"
    assert refused.value.explanation == "not [31mlisted here"


@pytest.mark.conformance("CR-06")
async def test_pending_with_max_age() -> None:
    service = IssuingService()
    service.answer = lambda _: Pending(37)
    async with serving(service) as server, connected(server) as connection:
        assert await connection.request(enrollment()) == Pending(37)


async def test_the_largest_max_age_is_a_bounded_wait() -> None:
    service = IssuingService()
    service.answer = lambda _: Pending(2**32 - 1)
    async with serving(service) as server, connected(server) as connection:
        assert await connection.request(enrollment()) == Pending(LONGEST_RETRY_AFTER)

    def refuse(_: EstRequest) -> CertificatesResponse:
        raise RequestRefused(RefusalReason.TOO_MANY_ATTEMPTS, "no", retry_after=2**32 - 1)

    service.answer = refuse
    async with serving(service) as server, connected(server) as connection:
        with pytest.raises(ServerRefused) as refused:
            await connection.request(enrollment())
    assert refused.value.retry_after == LONGEST_RETRY_AFTER


@pytest.mark.conformance("CR-09")
async def test_pending_without_max_age_is_a_minute() -> None:
    service = IssuingService()

    def refuse(_: EstRequest) -> CertificatesResponse:
        raise RequestRefused(RefusalReason.TRY_LATER, "later")

    service.answer = refuse
    async with serving(service) as server, connected(server) as connection:
        assert await connection.request(enrollment()) == Pending(60)


@pytest.mark.conformance("CD-06")
@pytest.mark.parametrize("credentials", [None, LocalCredentials(DEVICE.key, ())])
async def test_without_a_certificate_there_is_no_connection(
    credentials: LocalCredentials | None,
) -> None:
    with pytest.raises(ConfigurationError, match="certificate"):
        await CoapsConnector("127.0.0.1", 1).connect(credentials=credentials, anchors=ANCHORS)


async def test_server_that_is_not_trusted() -> None:
    async with serving(IssuingService()) as server:
        with pytest.raises(PeerNotTrusted):
            await connector_to(server).connect(credentials=DEVICE, anchors=TrustAnchors())


async def test_provisional_connection_to_a_server_that_is_not_trusted() -> None:
    async with serving(IssuingService()) as server:
        connection = await connector_to(server).connect(
            credentials=DEVICE, anchors=TrustAnchors(), require_trust=False
        )
        assert not connection.server.is_verified
        await connection.close()


async def test_answer_that_is_too_large() -> None:
    limits = CoapsClientLimits(answer_size=200)
    async with (
        serving(IssuingService()) as server,
        connected(server, block_size=64, limits=limits) as connection,
    ):
        with pytest.raises(MessageError, match="larger than 200 octets"):
            await connection.request(CACERTS)


async def test_giving_up_when_nothing_comes_back() -> None:
    network = LossyNetwork(0.0, 1)
    impatient = TransmissionParameters(ack_timeout=0.02, empty_ack_delay=0.01, max_retransmit=2)
    async with (
        serving(IssuingService()) as server,
        connected(server, transport_factory=network, parameters=impatient) as connection,
    ):
        network.loss = 1.0
        with pytest.raises(ChannelClosed):
            await connection.request(CACERTS)
        with pytest.raises(ChannelClosed, match="the session is over"):
            await connection.request(CACERTS)
        network.loss = 0.0


async def test_server_that_goes_away_in_the_middle_of_a_request() -> None:
    service = IssuingService()
    service.gate = asyncio.Event()
    async with serving(service, endpoint_of()) as server, connected(server) as connection:
        request = asyncio.create_task(connection.request(CACERTS))
        while not service.requests:  # noqa: ASYNC110 - until it has arrived
            await asyncio.sleep(0)
        await server._dtls.close()
        with pytest.raises(ChannelClosed):
            await request


async def test_no_answer_in_time() -> None:
    service = IssuingService()
    service.gate = asyncio.Event()
    limits = CoapsClientLimits(answer_timeout=0.2)
    async with serving(service) as server, connected(server, limits=limits) as connection:
        with pytest.raises(ChannelClosed, match=r"no answer within 0\.2 s"):
            await connection.request(CACERTS)
        service.gate.set()


async def test_a_time_limit_is_for_all_blocks_together() -> None:
    """Each block comes in time, and the last one too late."""
    limits = CoapsClientLimits(answer_timeout=5.0, exchange_timeout=0.2)
    async with serving(IssuingService()) as server:
        connector = connector_to(server, limits=limits, block_size=16)
        connection = await connector.connect(credentials=DEVICE, anchors=ANCHORS)
        exchange = connection._exchange

        async def slowly(message: Message) -> Any:
            await asyncio.sleep(0.03)
            return await exchange(message)

        connection._exchange = slowly  # type: ignore[method-assign]
        with pytest.raises(ChannelClosed, match=r"no complete answer within 0\.2 s"):
            await connection.request(CACERTS)
        await connection.close()


def test_the_time_limit_of_a_caller_is_for_handshake_and_answers() -> None:
    connector = connector_for("coaps://h", ConnectorOptions(timeout=7.0))
    assert isinstance(connector, CoapsConnector)
    assert (connector.limits.handshake_timeout, connector.limits.exchange_timeout) == (7.0, 7.0)


@pytest.mark.parametrize("seconds", [0.05, 9.0])
def test_the_acknowledgement_timeout_of_a_caller_is_that_of_coap(seconds: float) -> None:
    connector = connector_for("coaps://h", ConnectorOptions(ack_timeout=seconds))
    assert isinstance(connector, CoapsConnector)
    assert connector.parameters.ack_timeout == seconds
    with pytest.raises(ConfigurationError):
        connector_for("coaps://h", ConnectorOptions(ack_timeout=0.0))


async def test_name_that_does_not_resolve() -> None:
    with pytest.raises(ChannelError):
        await CoapsConnector("nobody.invalid").connect(credentials=DEVICE, anchors=ANCHORS)


async def test_est_client_over_coaps_by_url() -> None:
    async with serving(IssuingService()) as server:
        connector = connector_for(f"coaps://127.0.0.1:{server.port}/est")
        trust = TrustDatabase(explicit=(ROOT.certificate,))
        bare = LocalCredentials(pki.make_key("bare"), ())
        async with EstClient(connector, trust=trust, identity=bare) as client:
            assert ROOT.certificate in await client.cacerts()
            certificate = await client.simpleenroll()
            assert certificate.public_key() == bare.key.public_key()


def test_block_size_that_is_none() -> None:
    with pytest.raises(ConfigurationError):
        CoapsConnector("h", block_size=48)


@pytest.mark.conformance("CF-11", "CF-12", "CR-02")
@pytest.mark.parametrize("bare", [False, True], ids=["skg", "skc"])
async def test_generated_key_comes_with_either_form_of_its_certificate(bare: bool) -> None:
    service = IssuingService()
    service.served = (*service.served, Operation.SERVERKEYGEN)
    generated = GeneratedKeyResponse(DEVICE.chain[:1], encode_private_key(DEVICE.key), False)
    service.answer = lambda _: generated
    request = replace(enrollment(), operation=Operation.SERVERKEYGEN)
    async with serving(service) as server, connected(server, bare_certificates=bare) as connection:
        assert await connection.request(request) == generated
    assert service.requests == [request]


class Muddler:
    """A server that answers every request twice: under another token first."""

    def __init__(self, channel: DtlsChannel) -> None:
        self.channel = channel
        self.busy = False

    def datagram_received(self, plaintext: bytes) -> None:
        request = decode_message(plaintext)
        for mtype, mid, token, issuer in (
            (NON, 1, b"another", ISSUER),
            (ACK, request.mid, request.token, ROOT),
        ):
            body = certs_only.encode([issuer.certificate])
            message = Message(code=Code.CONTENT, payload=body, content_format=281)
            message.mtype, message.mid, message.token = mtype, mid, token
            self.channel.send(message.encode())

    def channel_lost(self, reason: ChannelError) -> None:
        self.busy = False


@pytest.mark.conformance("CR-14")
async def test_an_answer_under_another_token_is_none() -> None:
    server = DtlsServer(make_listener(), Muddler)
    await server.listen("127.0.0.1", 0)
    connector = CoapsConnector("127.0.0.1", server.address[1])
    connection = await connector.connect(credentials=DEVICE, anchors=ANCHORS)
    assert await connection.request(CACERTS) == CertificatesResponse((ROOT.certificate,))
    await connection.close()
    await server.close()


# -- Block-wise transfer against answers that are made by hand ---------------------------------


def answer(code: Code, payload: bytes = b"", **options: Any) -> Message:
    return Message(code=code, payload=payload, **options)


class Script:
    """Gives its answers one by one and keeps the requests."""

    def __init__(self, *answers: Message) -> None:
        self.answers = list(answers)
        self.requests: list[Any] = []

    async def exchange(self, message: Message) -> Any:
        self.requests.append(message)
        return self.answers.pop(0)

    def client(self, exponent: int = 6) -> BlockwiseClient:
        return BlockwiseClient(self.exchange, exponent=exponent, answer_size=1000)


UPLOAD = CoapRequest(Code.POST, ("est", "sen"), 281, bytes(range(100)), 286)
FETCH = CoapRequest(Code.GET, ("est", "crts"), 281)


@pytest.mark.conformance("BW-10")
async def test_server_that_wants_smaller_blocks_is_followed() -> None:
    script = Script(
        answer(Code.CONTINUE, block1=(0, True, 0)),
        *[answer(Code.CONTINUE, block1=(n, True, 0)) for n in (4, 5)],
        answer(Code.CHANGED, b"done", block1=(6, False, 0)),
    )
    assert (await script.client(2).request(UPLOAD)).payload == b"done"
    assert [r.opt.block1 for r in script.requests] == [
        (0, True, 2),
        (4, True, 0),
        (5, True, 0),
        (6, False, 0),
    ]


async def test_server_that_cannot_take_the_first_block_names_a_size() -> None:
    script = Script(
        answer(Code.REQUEST_ENTITY_TOO_LARGE, block1=(0, False, 5)),
        answer(Code.CHANGED, b"done"),
    )
    assert (await script.client().request(UPLOAD)).payload == b"done"


async def test_server_that_lost_its_place_gets_the_request_again() -> None:
    script = Script(
        answer(Code.CONTINUE, block1=(0, True, 2)),
        answer(Code.REQUEST_ENTITY_INCOMPLETE),
        answer(Code.CONTINUE, block1=(0, True, 2)),
        answer(Code.CHANGED, b"done"),
    )
    assert (await script.client(2).request(UPLOAD)).payload == b"done"


@pytest.mark.conformance("BW-12")
async def test_answer_that_changes_while_it_is_fetched_is_fetched_anew() -> None:
    script = Script(
        answer(Code.CONTENT, bytes(16), block2=(0, True, 0), etag=b"1"),
        answer(Code.CONTENT, b"new", block2=(1, False, 0), etag=b"2"),
        answer(Code.CONTENT, b"whole", etag=b"2"),
    )
    assert (await script.client(0).request(FETCH)).payload == b"whole"


@pytest.mark.conformance("BW-10")
@pytest.mark.parametrize(
    "answers",
    [
        [answer(Code.CONTENT, b"x", block2=(0, True, 0))],
        [answer(Code.CONTENT, b"", block2=(0, True, 0))] * 2,
        [answer(Code.CONTENT, bytes(16), block2=(1, True, 0))],
        [answer(Code.CONTENT, bytes(16), block2=(0, True, 7))],
        [
            answer(Code.CONTENT, bytes(16), block2=(0, True, 0)),
            answer(Code.CONTENT, b"x", block2=(2, False, 0)),
        ],
        [
            answer(Code.CONTENT, bytes(16), block2=(0, True, 0)),
            answer(Code.CONTENT, b"", block2=(1, True, 0)),
        ],
        [answer(Code.CONTENT, bytes(16), block2=(0, True, 0), size2=1001)],
        [answer(Code.CONTENT, bytes(1001))],
        [answer(Code.CONTINUE)],
    ],
)
async def test_answers_whose_blocks_do_not_fit(answers: list[Message]) -> None:
    with pytest.raises(MessageError):
        await Script(*answers).client().request(FETCH)


async def test_answer_before_the_request_is_whole() -> None:
    script = Script(answer(Code.CHANGED, block1=(0, False, 2)))
    with pytest.raises(MessageError):
        await script.client(2).request(UPLOAD)


def test_a_bare_certificate_of_no_version_is_no_answer() -> None:
    der = pki.make_leaf(pki.make_ca("root"), "device").chain[0].public_bytes(Encoding.DER)
    payload = der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020105"), 1)
    message = Message(code=Code.CONTENT, payload=payload, content_format=287)
    with pytest.raises(MessageError):
        _certificates(message)
