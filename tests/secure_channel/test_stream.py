"""The TLS stream driver over real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from est_protocol.credentials import AnchorSet
from est_protocol.errors import ChannelError, HandshakeFailed, PeerNotTrusted
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, tls_context
from est_protocol.secure_channel.policy import TlsPolicy
from est_protocol.secure_channel.stream import (
    DEFAULT_STREAM_LIMITS,
    PEER_CLOSED,
    PEER_CREDENTIALS,
    StreamLimits,
    TlsTransport,
    format_address,
)
from est_protocol.secure_channel.tls_endpoints import TlsServer, connect_tls, serve_tls
from tests import foreign_tls
from tests.loop_time import skip
from tests.pki import CLIENT_AUTH, make_ca, make_leaf, make_server

CA = make_ca("operational")
SERVER_ANCHORS = TrustAnchors({AnchorSet.OPERATIONAL: [CA.certificate]})
CLIENT_ANCHORS = TrustAnchors({AnchorSet.EXPLICIT: [CA.certificate]})
SERVER_CONTEXT = tls_context(
    TlsPolicy(), server=True, credentials=make_server(CA), anchors=SERVER_ANCHORS
)
HOST = "127.0.0.1"


def client_context(credentials: LocalCredentials | None = None) -> Any:
    return tls_context(
        TlsPolicy(),
        server=False,
        credentials=credentials,
        anchors=CLIENT_ANCHORS,
        require_trust=True,
    )


class Recorder(asyncio.Protocol):
    """An application protocol that writes down what happens to it."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.transport: TlsTransport
        self.eof = False
        self.writing_paused = False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.arrived.set()

    def eof_received(self) -> None:
        self.eof = True

    def pause_writing(self) -> None:
        self.writing_paused = True

    def resume_writing(self) -> None:
        self.writing_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def wait_for(self, size: int) -> bytes:
        while len(self.received) < size:
            self.arrived.clear()
            await self.arrived.wait()
        return bytes(self.received)


class Echo(Recorder):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Harness:
    """One server; its application protocols in order of appearance."""

    server: TlsServer

    def __init__(self) -> None:
        self.protocols: list[Recorder] = []
        self.appeared = asyncio.Event()

    def register(self, factory: Callable[[], Recorder]) -> Recorder:
        self.protocols.append(factory())
        self.appeared.set()
        return self.protocols[-1]

    async def first(self) -> Recorder:
        await self.appeared.wait()
        return self.protocols[0]


@asynccontextmanager
async def serving(
    factory: Callable[[], Recorder] = Recorder,
    limits: StreamLimits = DEFAULT_STREAM_LIMITS,
    max_connections: int = 10,
) -> AsyncIterator[Harness]:
    harness = Harness()
    harness.server = await serve_tls(
        lambda: harness.register(factory),
        HOST,
        0,
        context=SERVER_CONTEXT,
        anchors=SERVER_ANCHORS,
        limits=limits,
        max_connections=max_connections,
    )
    try:
        yield harness
    finally:
        harness.server.close()
        await harness.server.drain(0.5)


async def connect(
    harness: Harness,
    credentials: LocalCredentials | None = None,
    limits: StreamLimits = DEFAULT_STREAM_LIMITS,
    server_name: str | None = "localhost",
) -> Recorder:
    _, protocol = await connect_tls(
        Recorder,
        HOST,
        harness.server.port,
        context=client_context(credentials),
        anchors=CLIENT_ANCHORS,
        server_name=server_name,
        limits=limits,
    )
    return protocol


async def test_both_ends_know_each_other_and_their_channel() -> None:
    device = make_leaf(CA, "device", usage=CLIENT_AUTH)
    async with serving() as harness:
        client = await connect(harness, device)
        server = await harness.first()
        at_server = server.transport.get_extra_info(PEER_CREDENTIALS)
        at_client = client.transport.get_extra_info(PEER_CREDENTIALS)
        assert at_server.anchor_set is AnchorSet.OPERATIONAL
        assert at_client.anchor_set is AnchorSet.EXPLICIT
        assert at_server.channel_binding == at_client.channel_binding
        assert at_server.address == format_address(client.transport.get_extra_info("sockname"))
        assert at_client.address == format_address(client.transport.get_extra_info("peername"))
        assert client.transport.get_extra_info("sslcontext")
        assert client.transport.get_extra_info("cipher")[1] == "TLSv1.3"
        assert client.transport.get_extra_info("nonsense", 7) == 7
        client.transport.close()
        assert await client.lost is None


async def test_data_goes_both_ways_and_close_is_announced() -> None:
    async with serving(Echo) as harness:
        client = await connect(harness)
        client.transport.write(b"hello " * 50_000)
        assert await client.wait_for(300_000) == b"hello " * 50_000
        server = await harness.first()
        client.transport.close()
        assert client.transport.is_closing()
        assert await server.lost is None
        assert await client.lost is None
        assert server.eof
        assert server.transport.get_extra_info(PEER_CLOSED)
        client.transport.write(b"into the void")
        assert harness.server.connections == 0


async def test_what_was_written_before_close_arrives() -> None:
    class Parting(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.write(b"x" * 400_000)
            self.transport.close()

    async with serving(Parting) as harness:
        client = await connect(harness)
        assert await client.lost is None
        assert len(client.received) == 400_000
        assert client.transport.get_extra_info(PEER_CLOSED)


async def test_an_answer_survives_that_the_peer_was_still_sending() -> None:
    class Impatient(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"too much")
            self.transport.close()

    async with serving(Impatient) as harness:
        client = await connect(harness)
        for _ in range(20):
            client.transport.write(b"x" * 50_000)
        assert await client.wait_for(8) == b"too much"
        assert await client.lost is None


async def test_a_peer_that_just_hangs_up_is_told_from_one_that_says_so() -> None:
    async with serving() as harness:
        client = await connect(harness)
        server = await harness.first()
        client.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        assert await server.lost is None
        assert server.eof
        assert not server.transport.get_extra_info(PEER_CLOSED)
        await client.lost


async def test_paused_reading_holds_everything_back_and_loses_nothing() -> None:
    class Sipping(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    async with serving(Sipping) as harness:
        client = await connect(harness)
        server = await harness.first()
        client.transport.write(bytes(200_000))
        client.transport.close()
        seen = 0
        while seen < 200_000:
            server.arrived.clear()
            server.transport.resume_reading()
            assert server.transport.is_reading()
            if len(server.received) == seen:
                await server.arrived.wait()
            assert seen < len(server.received) <= seen + 16384
            assert not server.transport.is_reading()
            assert not server.eof
            seen = len(server.received)
        server.transport.resume_reading()
        assert await server.lost is None
        assert server.eof


async def test_a_writer_is_paused_while_its_peer_does_not_read() -> None:
    async with serving() as harness:
        client = await connect(harness)
        server = await harness.first()
        client.transport.pause_reading()
        written = 0
        while not server.writing_paused:
            server.transport.write(bytes(65536))
            written += 65536
            await asyncio.sleep(0)
            assert written < 100_000_000
        assert server.transport.get_write_buffer_size() > 0
        client.transport.resume_reading()
        await client.wait_for(written)
        assert not server.writing_paused
        client.transport.close()
        await client.lost


async def test_a_server_does_not_read_from_a_peer_that_does_not_read() -> None:
    async with serving() as harness:
        client = await connect(harness)
        server = await harness.first()
        client.transport.pause_reading()
        while not server.writing_paused:
            server.transport.write(bytes(65536))
            await asyncio.sleep(0)
        client.transport.write(b"more please")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not server.received
        client.transport.resume_reading()
        assert await server.wait_for(11) == b"more please"
        client.transport.close()
        await client.lost


async def test_output_that_nobody_takes_ends_the_connection() -> None:
    limits = StreamLimits()
    async with serving(limits=limits) as harness:
        client = await connect(harness)
        server = await harness.first()
        client.transport.pause_reading()
        while not server.writing_paused:
            server.transport.write(bytes(65536))
            await asyncio.sleep(0)
        while not server.lost.done():  # the kernel may take some more for a while
            skip(limits.write_timeout)
            await asyncio.sleep(0.01)
        error = await server.lost
        assert isinstance(error, ChannelError)
        assert "took no octets" in str(error)
        client.transport.abort()
        await client.lost


async def test_a_peer_that_never_ends_its_side_is_cut_off() -> None:
    async with serving(limits=StreamLimits(shutdown_timeout=0.05)) as harness:
        client = await connect(harness)
        server = await harness.first()
        client.transport.pause_reading()
        server.transport.close()
        await server.lost
        client.transport.abort()
        await client.lost


async def test_closing_towards_a_peer_that_is_gone_already() -> None:
    """Our close_notify is answered with a reset before there is time to end our side."""
    async with serving() as harness:
        tcp = socket.create_connection((HOST, harness.server.port))
        context = foreign_tls.client_context()
        client = await asyncio.to_thread(context.wrap_socket, tcp)
        server = await harness.first()
        server.transport.write(b"all that there is to read")
        await asyncio.to_thread(client.recv, 100)
        client.close()
        server.transport.close()
        await server.lost
        assert server.transport.is_closing()


# --- handshakes --------------------------------------------------------------------------------


async def test_a_stalled_handshake_is_cut_off() -> None:
    async with serving(limits=StreamLimits(handshake_timeout=0.05)) as harness:
        reader, writer = await asyncio.open_connection(HOST, harness.server.port)
        assert await reader.read() == b""
        writer.close()
        assert harness.protocols == []


async def test_a_client_gives_a_silent_server_up() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(never, HOST, 0)
    with pytest.raises(HandshakeFailed, match="no TLS handshake within"):
        await connect_tls(
            Recorder,
            HOST,
            server.sockets[0].getsockname()[1],
            context=client_context(),
            anchors=CLIENT_ANCHORS,
            limits=StreamLimits(handshake_timeout=0.05),
        )
    server.close()


async def test_a_failed_handshake_sends_its_alert() -> None:
    async with serving() as harness:
        reader, writer = await asyncio.open_connection(HOST, harness.server.port)
        writer.write(b"\x16\x03\x01\x00\x05hello")
        assert (await reader.read())[:1] == b"\x15"
        writer.close()
        assert harness.protocols == []


async def test_a_client_does_not_trust_a_stranger() -> None:
    async with serving() as harness:
        stranger = TrustAnchors({AnchorSet.EXPLICIT: [make_ca("stranger").certificate]})
        context = tls_context(
            TlsPolicy(), server=False, credentials=None, anchors=stranger, require_trust=True
        )
        with pytest.raises(PeerNotTrusted):
            await connect_tls(
                Recorder, HOST, harness.server.port, context=context, anchors=stranger
            )


async def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        with pytest.raises(ChannelError, match="no connection to"):
            await connect_tls(
                Recorder,
                HOST,
                unused.getsockname()[1],
                context=client_context(),
                anchors=CLIENT_ANCHORS,
            )


async def test_a_cancelled_connect_leaves_nothing_behind() -> None:
    accepted = asyncio.Event()
    gone = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await reader.read(-1)
        gone.set()
        writer.close()

    server = await asyncio.start_server(never, HOST, 0)
    connecting: Coroutine[Any, Any, Any] = connect_tls(
        Recorder,
        HOST,
        server.sockets[0].getsockname()[1],
        context=client_context(),
        anchors=CLIENT_ANCHORS,
    )
    task = asyncio.create_task(connecting)
    await accepted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone.wait()
    server.close()


# --- the server as a whole ---------------------------------------------------------------------


async def test_connections_are_capped() -> None:
    async with serving(max_connections=2) as harness:
        clients = [await connect(harness) for _ in range(2)]
        with pytest.raises(ChannelError):
            await connect(harness)
        assert harness.server.turned_away == 1
        assert harness.server.connections == 2
        clients[0].transport.close()
        await clients[0].lost
        await harness.protocols[0].lost
        third = await connect(harness)
        for client in (clients[1], third):
            client.transport.close()
            await client.lost


async def test_draining_waits_and_then_insists() -> None:
    async with serving() as harness:
        client = await connect(harness)
        server = await harness.first()
        harness.server.close()
        await harness.server.drain(0.01)
        assert harness.server.connections == 0
        assert server.lost.done()
        await client.lost


async def test_addresses_are_written_as_urls_write_them() -> None:
    assert format_address(("::1", 5684, 0, 0)) == "[::1]:5684"
    assert format_address(("192.0.2.1", 443)) == "192.0.2.1:443"
    assert format_address(None) == ""
