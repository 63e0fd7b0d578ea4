"""Peers and strangers who send what no client would: it costs little, and harms nobody else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from OpenSSL import SSL

from est_protocol.errors import ChannelError, ConfigurationError, HandshakeFailed
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_channel import DtlsChannel
from est_protocol.secure_channel.policy import DtlsPolicy
from est_protocol.secure_channel.records import HEADER_SIZE, Record, split
from tests.secure_channel.dtls_ends import Pair, connect, make_client, make_listener

HANDSHAKE, APPLICATION_DATA = 22, 23
CERTIFICATE = 11
#: Of a handshake message (RFC 6347 section 4.2.2).
MESSAGE_HEADER = 12


def make_record(kind: int, epoch: int, number: int, fragment: bytes) -> bytes:
    """A record as a stranger can make it."""
    return (
        bytes((kind, 0xFE, 0xFD))
        + epoch.to_bytes(2, "big")
        + number.to_bytes(6, "big")
        + len(fragment).to_bytes(2, "big")
        + fragment
    )


def make_part(kind: int, number: int, total: int, offset: int, body: bytes) -> bytes:
    """A part of a handshake message."""
    return (
        bytes((kind,))
        + total.to_bytes(3, "big")
        + number.to_bytes(2, "big")
        + offset.to_bytes(3, "big")
        + len(body).to_bytes(3, "big")
        + body
    )


def pair_before_the_clients_flight(policy: DtlsPolicy | None = None) -> tuple[Pair, list[bytes]]:
    """Two ends of which the server waits for the client's certificate, and what brings it."""
    pair = Pair(make_listener(policy), make_client(policy))
    while not (pair.server and (flight := pair.client.datagrams_to_send())):
        pair.turn()
    return pair, flight


def finish(pair: Pair) -> None:
    """Let both ends end the handshake."""
    pair.shake_hands()


def server_of(pair: Pair) -> DtlsSession:
    """The server's session."""
    assert pair.server is not None
    return pair.server


def test_only_so_many_records_of_a_datagram_are_looked_at() -> None:
    client, server = connect()
    forged = [make_record(APPLICATION_DATA, 1, 1000 + number, b"") for number in range(5000)]
    assert server.receive_datagram(b"".join(forged)) == []
    assert server.forged_records == 32
    client.send_plaintext(b"still here")
    (datagram,) = client.datagrams_to_send()
    assert server.receive_datagram(datagram) == [b"still here"]


def test_records_that_come_in_one_datagram_are_all_taken() -> None:
    client, server = connect()
    for number in range(10):
        client.send_plaintext(bytes((number,)))
    (datagram,) = client.datagrams_to_send()
    assert server.receive_datagram(datagram) == [bytes((number,)) for number in range(10)]


def test_a_request_behind_the_finished_in_its_datagram_is_taken() -> None:
    pair, flight = pair_before_the_clients_flight()
    server = server_of(pair)
    for datagram in flight:
        server.receive_datagram(datagram)
    # The client may speak as soon as it has the server's Finished; that it repeats its own with
    # its first request is as if the first Finished had been lost.
    for datagram in server.datagrams_to_send():
        pair.client.receive_datagram(datagram)
    pair.client.send_plaintext(b"request")
    (request,) = pair.client.datagrams_to_send()
    assert server.receive_datagram(flight[-1] + request) == [b"request"]
    assert server.receive_datagram(flight[-1] + request) == [], "it is the same record"


def test_a_whole_flight_in_one_datagram_and_in_any_order() -> None:
    for seed in range(8):
        pair, flight = pair_before_the_clients_flight()
        pieces = [record.octets for datagram in flight for record in split(datagram)]
        random.Random(seed).shuffle(pieces)
        server_of(pair).receive_datagram(b"".join(pieces))
        # What came before its time may have been dropped, and comes again.
        for datagram in flight:
            for record in split(datagram):
                server_of(pair).receive_datagram(renumbered(record, 30))
        finish(pair)


def renumbered(record: Record, by: int) -> bytes:
    """The record as it would be sent again, if it is not protected."""
    octets = record.octets
    number = record.sequence_number + (0 if record.epoch else by)
    return octets[:5] + number.to_bytes(6, "big") + octets[11:]


def parts_overlapping(record: Record, rng: random.Random) -> Iterator[bytes]:
    """The messages of a plaintext record in parts of up to 40 octets that overlap."""
    octets, at = record.octets, HEADER_SIZE
    while at < len(octets):
        kind, number = octets[at], int.from_bytes(octets[at + 4 : at + 6], "big")
        total = int.from_bytes(octets[at + 1 : at + 4], "big")
        offset = int.from_bytes(octets[at + 6 : at + 9], "big")
        length = int.from_bytes(octets[at + 9 : at + 12], "big")
        body = octets[at + MESSAGE_HEADER : at + MESSAGE_HEADER + length]
        for start in range(0, max(1, length), 20):
            end = start + rng.randrange(20, 41)
            yield make_part(kind, number, total, offset + start, body[start:end])
        at += MESSAGE_HEADER + length


@pytest.mark.parametrize("seed", range(4))
def test_overlapping_parts_in_any_order_make_the_same_messages(seed: int) -> None:
    pair, flight = pair_before_the_clients_flight()
    rng = random.Random(seed)
    whole = [record for datagram in flight for record in split(datagram)]
    plain = [record for record in whole if record.octets[0] == HANDSHAKE and not record.epoch]
    parts = [part for record in plain for part in parts_overlapping(record, rng)]
    parts += rng.sample(parts, len(parts) // 2)
    rng.shuffle(parts)
    for number, part in enumerate(parts, 100):
        server_of(pair).receive_datagram(make_record(HANDSHAKE, 0, number, part))
    for record in whole:
        if record not in plain:
            server_of(pair).receive_datagram(renumbered(record, 100 + len(parts)))
    finish(pair)


def test_handshake_messages_are_kept_up_to_a_limit() -> None:
    pair, _ = pair_before_the_clients_flight()
    server = server_of(pair)
    # Ten messages of 100 KiB each would be 1.1 MB of memory, as measured.
    for number in range(3, 12):
        part = make_part(CERTIFICATE, number, 102_400, 0, b"A" * 1000)
        server.receive_datagram(make_record(HANDSHAKE, 0, 1000 + number, part))
        # One that claims nothing must not hide what was claimed before.
        small = make_part(CERTIFICATE, number, 10_000, 0, b"A" * 1000)
        nothing = make_part(CERTIFICATE, number, 0, 0, b"")
        server.receive_datagram(make_record(HANDSHAKE, 0, 2000 + 2 * number, small))
        server.receive_datagram(make_record(HANDSHAKE, 0, 2001 + 2 * number, nothing))
        server.receive_datagram(make_record(HANDSHAKE, 0, 2100 + number, part + nothing))
    assert sum(server._claimed.values()) == 30_000
    assert not server.over


def test_parts_of_more_messages_than_there_are_are_dropped() -> None:
    pair, _ = pair_before_the_clients_flight()
    server = server_of(pair)
    nothing = [make_part(CERTIFICATE, number, 0, 0, b"") for number in range(3, 1000)]
    server.receive_datagram(make_record(HANDSHAKE, 0, 50, b"".join(nothing)))
    assert len(server._claimed) == 0
    for number, part in enumerate(nothing, 100):
        server.receive_datagram(make_record(HANDSHAKE, 0, number, part))
    assert len(server._claimed) == 16


def test_the_limit_of_handshake_messages_is_the_policys() -> None:
    small = DtlsPolicy(maximum_handshake=4096)
    pair = Pair(make_listener(small), make_client())
    pair.turn()
    pair.turn()
    server = server_of(pair)
    for number in range(40):
        part = make_part(CERTIFICATE, 2, 5000, number * 100, b"A" * 100)
        server.receive_datagram(make_record(HANDSHAKE, 0, 1000 + number, part))
    assert 2 not in server._claimed
    finish(pair)


def test_a_limit_that_no_handshake_fits_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="maximum_handshake"):
        DtlsPolicy(maximum_handshake=4095)


@pytest.fixture
def renegotiating_client(monkeypatch: pytest.MonkeyPatch) -> DtlsSession:
    """A client that would shake hands again."""
    monkeypatch.setattr(SSL, "OP_NO_RENEGOTIATION", 0)
    client = make_client()
    monkeypatch.undo()
    return client


def test_renegotiation_is_answered_by_a_warning_and_no_more(
    renegotiating_client: DtlsSession,
) -> None:
    pair = Pair(make_listener(), renegotiating_client)
    server = pair.shake_hands()
    pair.client._connection.renegotiate()
    with pytest.raises(SSL.WantReadError):
        pair.client._connection.do_handshake()
    (hello,) = pair.client.datagrams_to_send()
    for _ in range(100):
        assert server.receive_datagram(hello) == []
    (warning,) = server.datagrams_to_send()
    assert len(warning) < len(hello)
    assert server.open
    with pytest.raises(ChannelError, match="no renegotiation"):
        pair.client.receive_datagram(warning)


def test_a_hello_request_to_our_client_is_answered_by_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SSL, "OP_NO_RENEGOTIATION", 0)
        # A session takes over its context's options, and the listener has its first one ready.
        listener = make_listener()
    pair = Pair(listener, make_client())
    server = pair.shake_hands()
    server._connection.renegotiate()
    server._connection.do_handshake()
    (request,) = server.datagrams_to_send()
    for _ in range(100):
        assert pair.client.receive_datagram(request) == []
    assert len(pair.client.datagrams_to_send()) == 1
    assert pair.client.open


async def test_a_user_hears_nothing_after_its_session_is_lost() -> None:
    client, server = connect()

    class Leaving:
        busy = False

        def __init__(self, channel: DtlsChannel) -> None:
            self.channel = channel
            self.received: list[bytes] = []

        def datagram_received(self, plaintext: bytes) -> None:
            self.received.append(plaintext)
            self.channel.close()

        def channel_lost(self, reason: ChannelError) -> None:
            pass

    users: list[Leaving] = []

    def open_user(channel: DtlsChannel) -> Leaving:
        users.append(Leaving(channel))
        return users[-1]

    channel = DtlsChannel(
        server,
        lambda datagram: None,
        open_user,
        lambda channel, reason: None,
        handshake_timeout=10,
        idle_timeout=10,
    )
    for text in (b"one", b"two"):
        client.send_plaintext(text)
    (datagram,) = client.datagrams_to_send()
    channel.datagram_received(datagram)
    assert [user.received for user in users] == [[b"one"]]
    await asyncio.sleep(0)


def test_a_forged_flight_ends_at_worst_its_own_handshake() -> None:
    listener = make_listener()
    other = Pair(listener, make_client(), address="127.0.0.1:2")
    rng = random.Random(7)
    for _ in range(30):
        pair = Pair(listener, make_client())
        pair.turn()
        pair.turn()
        for number in range(20):
            kind, size = rng.choice((1, 2, 11, 12, 14, 15, 16, 20)), rng.randrange(0, 200)
            part = make_part(kind, rng.randrange(12), size, 0, rng.randbytes(size))
            try:
                server_of(pair).receive_datagram(make_record(HANDSHAKE, 0, 50 + number, part))
            except HandshakeFailed:
                break
    other.shake_hands()
