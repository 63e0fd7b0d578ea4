"""The server's socket, driven datagram by datagram through a transport in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from est_protocol.errors import ChannelClosed, ChannelError, ConfigurationError, PeerNotTrusted
from est_protocol.secure_channel.context import TrustAnchors, dtls_context
from est_protocol.secure_channel.datagram import DatagramLimits, DtlsServer
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_channel import DtlsChannel
from est_protocol.secure_channel.dtls_client import NobodyThere, connect_dtls
from est_protocol.secure_channel.policy import DtlsPolicy
from tests.loop_time import skip, stop_time
from tests.secure_channel.dtls_ends import CLIENT_ANCHORS, DEVICE, make_client, make_listener

#: A grace that is over when the next datagram comes.
_AT_ONCE = 1e-9


class Wire(asyncio.DatagramTransport):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[bytes, object]] = []
        self.buffered = 0

    def sendto(self, data: object, addr: object = None) -> None:
        assert isinstance(data, bytes)
        self.sent.append((data, addr))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.buffered


class Recorder:
    """Uses a session: remembers, and is busy when told so."""

    def __init__(self, channel: DtlsChannel) -> None:
        self.channel = channel
        self.busy = False
        self.received: list[bytes] = []
        self.lost: list[ChannelError] = []

    def datagram_received(self, plaintext: bytes) -> None:
        self.received.append(plaintext)

    def channel_lost(self, reason: ChannelError) -> None:
        self.lost.append(reason)


class Ends:
    """A server over a wire, and what its sessions' users saw."""

    def __init__(self, limits: DatagramLimits | None = None) -> None:
        self.users: list[Recorder] = []
        self.server = DtlsServer(make_listener(), self._open, limits)
        self.wire = Wire()
        self.server.connection_made(self.wire)

    def _open(self, channel: DtlsChannel) -> Recorder:
        self.users.append(Recorder(channel))
        return self.users[-1]

    def exchange(self, client: DtlsSession, port: int, turns: int = 6) -> None:
        """Carry what both ends have to say."""
        for _ in range(turns):
            for datagram in client.datagrams_to_send():
                self.server.datagram_received(datagram, ("127.0.0.1", port))
            sent, self.wire.sent = self.wire.sent, []
            for datagram, addr in sent:
                if addr == ("127.0.0.1", port):
                    client.receive_datagram(datagram)
                else:
                    self.wire.sent.append((datagram, addr))

    def connect(self, port: int) -> DtlsSession:
        """An established client."""
        client = make_client()
        self.exchange(client, port)
        assert client.established
        return client

    def send(self, client: DtlsSession, port: int, plaintext: bytes) -> None:
        client.send_plaintext(plaintext)
        self.exchange(client, port, 1)


async def test_sessions_are_told_apart_by_address() -> None:
    ends = Ends()
    first, second = ends.connect(1), ends.connect(2)
    ends.send(first, 1, b"one")
    ends.send(second, 2, b"two")
    assert [user.received for user in ends.users] == [[b"one"], [b"two"]]
    assert ends.server.sessions == 2


async def test_close_notify_of_the_client_ends_the_session() -> None:
    ends = Ends()
    client = ends.connect(1)
    client.close()
    ends.exchange(client, 1, 1)
    assert ends.server.sessions == 0
    assert len(ends.users[0].lost) == 1


async def test_server_says_close_notify_to_every_client() -> None:
    ends = Ends()
    clients = [ends.connect(port) for port in (1, 2)]
    for user in ends.users:
        user.channel.close()
        user.channel.close()
    for port, client in enumerate(clients, 1):
        ends.exchange(client, port, 1)
        assert client.peer_closed
    assert [len(user.lost) for user in ends.users] == [1, 1]


async def test_a_client_that_restarts_replaces_its_session_after_the_cookie() -> None:
    ends = Ends()
    ends.connect(1)
    restarted = make_client()
    (hello,) = restarted.datagrams_to_send()
    ends.server.datagram_received(hello, ("127.0.0.1", 1))
    assert ends.users[0].lost == [], "a hello without a cookie proves nothing"
    (answer, _) = ends.wire.sent.pop()
    restarted.receive_datagram(answer)
    ends.exchange(restarted, 1)
    assert restarted.established
    assert len(ends.users[0].lost) == 1
    assert ends.server.sessions == 1
    ends.send(restarted, 1, b"again")
    assert ends.users[1].received == [b"again"]


async def test_a_late_duplicate_of_the_hello_does_not_replace_the_session() -> None:
    ends = Ends()
    client = make_client()
    (hello,) = client.datagrams_to_send()
    ends.server.datagram_received(hello, ("127.0.0.1", 1))
    (answer, _) = ends.wire.sent.pop()
    client.receive_datagram(answer)
    (hello_with_cookie,) = client.datagrams_to_send()
    ends.server.datagram_received(hello_with_cookie, ("127.0.0.1", 1))
    ends.exchange(client, 1)
    assert client.established
    ends.server.datagram_received(hello_with_cookie, ("127.0.0.1", 1))
    ends.send(client, 1, b"still here")
    assert ends.users[0].received == [b"still here"]
    assert len(ends.users) == 1


async def test_the_session_idle_longest_makes_room_and_a_working_one_never() -> None:
    ends = Ends(DatagramLimits(maximum_sessions=3, grace=_AT_ONCE))
    clients = {port: ends.connect(port) for port in (1, 2, 3)}
    ends.users[0].busy = True
    ends.send(clients[2], 2, b"alive")
    ends.connect(4)
    assert [len(user.lost) for user in ends.users] == [0, 0, 1, 0]
    for user in ends.users:
        user.busy = True
    late = make_client()
    ends.exchange(late, 5)
    assert not late.established
    assert ends.server.sessions == 3
    assert ends.server.dropped > 0


async def test_handshakes_are_capped_and_time_out() -> None:
    ends = Ends(DatagramLimits(maximum_handshakes=1, handshake_timeout=0.05, grace=_AT_ONCE))
    stalled, second = make_client(), make_client()
    ends.exchange(stalled, 1, turns=2)
    assert ends.server.sessions == 1
    ends.exchange(second, 2, turns=2)
    assert ends.server.sessions == 1
    await until(lambda: ends.server.sessions == 0)
    ends.connect(3)


@pytest.mark.conformance("CD-16")
async def test_an_idle_session_is_closed_and_a_working_one_is_not() -> None:
    ends = Ends(DatagramLimits(idle_timeout=0.05))
    idle = ends.connect(1)
    ends.connect(2)
    ends.users[1].busy = True
    await until(lambda: bool(ends.users[0].lost))
    assert ends.users[1].lost == []
    ends.exchange(idle, 1, 1)
    assert idle.peer_closed
    ends.users[1].busy = False
    await until(lambda: bool(ends.users[1].lost))


async def test_hellos_beyond_the_budget_are_not_answered() -> None:
    stop_time()
    ends = Ends(DatagramLimits(hellos_per_second=5))
    (hello,) = make_client().datagrams_to_send()
    for port in range(20):
        ends.server.datagram_received(hello, ("127.0.0.1", port))
    assert len(ends.wire.sent) == 5
    assert ends.server.dropped == 15
    skip(0.41)
    for port in range(20):
        ends.server.datagram_received(hello, ("127.0.0.1", port))
    assert len(ends.wire.sent) == 7


async def test_a_flood_of_hellos_stops_nobody_who_has_a_cookie() -> None:
    stop_time()
    ends = Ends(DatagramLimits(hellos_per_second=5))
    waiting = make_client()
    ends.exchange(waiting, 1, turns=1)
    (forged,) = make_client().datagrams_to_send()
    for port in range(100, 200):
        ends.server.datagram_received(forged, ("127.0.0.1", port))
    assert ends.server.dropped >= 90
    ends.exchange(waiting, 1)
    assert waiting.established


async def test_hellos_with_a_cookie_have_a_budget_too() -> None:
    ends = Ends(DatagramLimits(handshakes_per_second=2))
    for port in (1, 2):
        ends.connect(port)
    third = make_client()
    ends.exchange(third, 3)
    assert not third.established


async def test_garbage_leaves_the_budget_to_clients() -> None:
    ends = Ends(DatagramLimits(hellos_per_second=5))
    for port in range(100):
        ends.server.datagram_received(b"no ClientHello at all", ("127.0.0.1", port))
    ends.connect(1)


async def test_silent_handshakes_keep_nobody_out() -> None:
    ends = Ends(DatagramLimits(maximum_handshakes=3, grace=_AT_ONCE))
    for port in range(1, 4):
        silent = make_client()
        ends.exchange(silent, port, turns=1)
        ends.exchange(silent, port, turns=1)
        assert not silent.established
    assert ends.server.sessions == 3
    ends.connect(9)
    # The one that had taken longest went; the others may still come to their end.
    assert ends.server.sessions == 3
    assert [user.channel.session.address for user in ends.users] == ["127.0.0.1:9"]


async def test_a_young_handshake_is_left_alone_and_who_came_too_early_comes_again() -> None:
    ends = Ends(DatagramLimits(maximum_handshakes=1))
    first, second = make_client(), make_client()
    ends.exchange(first, 1, turns=2)
    ends.exchange(second, 2, turns=1)
    (hello,) = second.datagrams_to_send()
    for _ in range(3):
        ends.server.datagram_received(hello, ("127.0.0.1", 2))
    assert (ends.server.sessions, ends.server.dropped) == (1, 3)
    assert ends.wire.sent == []
    ends.exchange(first, 1)
    assert first.established
    ends.server.datagram_received(hello, ("127.0.0.1", 2))
    for datagram, _ in ends.wire.sent:
        second.receive_datagram(datagram)
    ends.wire.sent.clear()
    ends.exchange(second, 2)
    assert second.established


async def test_a_session_between_two_requests_is_left_alone() -> None:
    ends = Ends(DatagramLimits(maximum_sessions=1))
    client = ends.connect(1)
    late = make_client()
    ends.exchange(late, 2)
    assert not late.established
    ends.send(client, 1, b"the next request")
    assert ends.users[0].received == [b"the next request"]


async def test_nothing_is_queued_beyond_the_send_buffer() -> None:
    ends = Ends(DatagramLimits(send_buffer=2000))
    client = ends.connect(1)
    ends.wire.buffered = 1990
    ends.users[0].channel.send(b"dropped by the network, as it were")
    assert ends.wire.sent == []
    assert ends.server.dropped == 1
    assert not client.over


async def test_no_new_session_while_stopping() -> None:
    ends = Ends()
    old = ends.connect(1)
    ends.server.stop_accepting()
    new = make_client()
    ends.exchange(new, 2)
    assert not new.established
    ends.send(old, 1, b"still served")
    assert ends.users[0].received == [b"still served"]


async def test_garbage_in_and_out_of_sessions_costs_nothing() -> None:
    ends = Ends()
    client = ends.connect(1)
    for junk in (b"", b"\x16", b"\xff" * 64, bytes(1200)):
        ends.server.datagram_received(junk, ("127.0.0.1", 1))
        ends.server.datagram_received(junk, ("127.0.0.1", 9))
    assert ends.server.sessions == 1
    assert ends.wire.sent == []
    ends.send(client, 1, b"alive")
    assert ends.users[0].received == [b"alive"]


@pytest.mark.parametrize(
    "name",
    [
        "handshake_timeout",
        "idle_timeout",
        "maximum_sessions",
        "maximum_handshakes",
        "grace",
        "hellos_per_second",
        "handshakes_per_second",
    ],
)
def test_limits_must_be_positive(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        DatagramLimits(**{name: 0})


# -- Over real sockets -------------------------------------------------------------------------


def client_session(anchors: TrustAnchors = CLIENT_ANCHORS) -> DtlsSession:
    policy = DtlsPolicy()
    context = dtls_context(
        policy, server=False, credentials=DEVICE, anchors=anchors, require_trust=True
    )
    return DtlsSession(context, anchors, policy, server=False)


async def test_over_real_sockets() -> None:
    users: list[Recorder] = []

    def open_user(channel: DtlsChannel) -> Recorder:
        users.append(Recorder(channel))
        return users[-1]

    server = DtlsServer(make_listener(), open_user)
    await server.listen("127.0.0.1", 0)
    client = await connect_dtls(client_session(), Recorder, remote=("127.0.0.1", server.address[1]))
    client.channel.send(b"hello")
    await until(lambda: bool(users) and bool(users[0].received))
    assert users[0].received == [b"hello"]
    await server.close()
    await until(lambda: client.channel.lost)
    with pytest.raises(ChannelClosed):
        client.channel.send(b"late")
    await client.close()


async def test_a_server_that_is_not_trusted() -> None:
    server = DtlsServer(make_listener(), Recorder)
    await server.listen("127.0.0.1", 0)
    with pytest.raises(PeerNotTrusted):
        await connect_dtls(
            client_session(TrustAnchors()), Recorder, remote=("127.0.0.1", server.address[1])
        )
    await server.close()


async def test_where_nobody_listens() -> None:
    server = DtlsServer(make_listener(), Recorder)
    await server.listen("127.0.0.1", 0)
    port = server.address[1]
    await server.close()
    with pytest.raises(NobodyThere):
        await connect_dtls(client_session(), Recorder, remote=("127.0.0.1", port))


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until it is so."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - timers announce nothing
            await asyncio.sleep(0.005)
