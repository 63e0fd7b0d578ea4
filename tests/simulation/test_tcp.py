"""The TCP machine, two ends of it over a network that loses, delays and reorders."""

import heapq
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from est_client.simulation.tcp import Segment, TcpEnd

ONE_WAY = 0.05


@dataclass
class Wire:
    """Two ends and what is between them, in time that is counted here."""

    loss: float = 0.0
    seed: int = 1
    mss: int = 500
    jitter: float = 0.0
    now: float = 0.0
    sent: list[Segment] = field(default_factory=list)
    lost: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.ends = [TcpEnd(self.mss, active=True), TcpEnd(self.mss, active=False)]
        self.received = [bytearray(), bytearray()]
        self._queue: list[tuple[float, int, int, Segment]] = []
        self._count = 0

    def flush(self) -> None:
        for sender, end in enumerate(self.ends):
            for segment in end.segments():
                self.sent.append(segment)
                self._count += 1
                if self.random.random() < self.loss:
                    self.lost += 1
                    continue
                at = self.now + ONE_WAY * (1 + self.jitter * self.random.random())
                heapq.heappush(self._queue, (at, self._count, 1 - sender, segment))

    def step(self) -> bool:
        """Go on to the next arrival or timer; whether there was one."""
        self.flush()
        timers = [end.deadline for end in self.ends if end.deadline is not None]
        arrival = self._queue[0][0] if self._queue else None
        moments = timers + ([arrival] if arrival is not None else [])
        if not moments:
            return False
        self.now = max(self.now, min(moments))
        if arrival is not None and arrival <= self.now:
            _, _, to, segment = heapq.heappop(self._queue)
            data = self.ends[to].receive(segment, self.now)
            self.received[to] += data
            self.ends[to].taken(len(data))
        else:
            for end in self.ends:
                end.on_timer(self.now)
        self.flush()
        return True

    def run(self, steps: int = 20_000) -> None:
        for _ in range(steps):
            if not self.step():
                return
        pytest.fail("the connection does not come to rest")


def exchange(wire: Wire, request: bytes, answer: bytes) -> None:
    client, server = wire.ends
    client.open(wire.now)
    client.write(request, wire.now)
    client.end(wire.now)
    server.write(answer, wire.now)
    server.end(wire.now)
    wire.run()


def test_data_crosses_both_ways_and_both_ends_end() -> None:
    wire = Wire()
    exchange(wire, b"a" * 1234, b"b" * 4321)
    assert wire.received == [b"b" * 4321, b"a" * 1234]
    assert all(end.ended and end.peer_ended and not end.broken for end in wire.ends)
    assert not any(segment.repeated for segment in wire.sent)


def test_segments_are_of_the_wanted_size() -> None:
    wire = Wire(mss=100)
    exchange(wire, b"a" * 1000, b"")
    assert max(len(segment.data) for segment in wire.sent) == 100


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.0, 0.4),
    st.integers(0, 10_000),
    st.binary(max_size=5000),
    st.binary(max_size=5000),
    st.integers(1, 1400),
)
def test_loss_costs_time_and_no_octet(
    loss: float, seed: int, request: bytes, answer: bytes, mss: int
) -> None:
    wire = Wire(loss=loss, seed=seed, mss=max(mss, 50), jitter=0.5)
    exchange(wire, request, answer)
    if any(end.broken for end in wire.ends):
        # It gave up, and what had come until then was right.
        assert request.startswith(bytes(wire.received[1]))
        assert answer.startswith(bytes(wire.received[0]))
        return
    assert bytes(wire.received[1]) == request
    assert bytes(wire.received[0]) == answer


def test_slow_start_doubles_what_is_under_way() -> None:
    wire = Wire(mss=1000)
    client, server = wire.ends
    client.open(0.0)
    wire.run()
    client.write(b"x" * 60_000, wire.now)
    wire.flush()
    assert sum(len(s.data) for s in wire.sent if s.data) == 10_000
    assert server.established


def test_the_first_timeout_is_a_second_and_doubles() -> None:
    end = TcpEnd(100, active=True)
    end.open(0.0)
    assert [s.syn for s in end.segments()] == [True]
    moments = []
    while not end.broken:
        deadline = end.deadline
        assert deadline is not None
        moments.append(deadline)
        end.on_timer(deadline)
        end.segments()
    assert moments[:5] == [1.0, 3.0, 7.0, 15.0, 31.0]
    assert end.broken == "no acknowledgement"


def test_a_full_receiver_stops_the_sender_until_it_has_read() -> None:
    client, server = TcpEnd(100, active=True), TcpEnd(100, active=False, buffer=250)
    client.open(0.0)
    for _ in range(3):
        for s in client.segments():
            server.receive(s, 0.0)
        for s in server.segments():
            client.receive(s, 0.0)
    client.write(b"x" * 1000, 0.0)
    for _ in range(10):
        for s in client.segments():
            server.receive(s, 0.0)
        for s in server.segments():
            client.receive(s, 0.0)
    assert server.held == 250
    server.taken(250)
    for s in server.segments():
        client.receive(s, 0.0)
    assert sum(len(s.data) for s in client.segments()) == 250


def test_a_reset_breaks_the_connection() -> None:
    wire = Wire()
    wire.ends[0].open(0.0)
    wire.run()
    wire.ends[0].abort()
    wire.run()
    assert wire.ends[0].broken == "aborted"
    assert wire.ends[1].broken == "reset by the peer"
