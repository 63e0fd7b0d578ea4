from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_client.simulation.link import (
    Direction,
    DirectionParameters,
    Fate,
    FrameFormat,
    Link,
    LinkParameters,
    Medium,
    Outage,
)
from est_client.simulation.loss import Loss
from est_protocol.errors import ConfigurationError

UP, DOWN = Direction.UP, Direction.DOWN
FRAMES = FrameFormat(payload=100, overhead=20, fragment_header=5, fragment_unit=8)
WAY = DirectionParameters(bandwidth=8000.0)


def link(way: DirectionParameters = WAY, *, seed: int = 1, **common: object) -> Link:
    parameters = LinkParameters(way, way, FRAMES, mtu=2000)
    return Link(replace(parameters, **common), Random(seed))  # type: ignore[arg-type]


def test_a_packet_that_fits_is_one_frame() -> None:
    assert FRAMES.cut(100) == [120]


def test_a_larger_packet_is_cut() -> None:
    # 95 octets of room, of which a part takes a multiple of eight.
    assert FRAMES.cut(101) == [113, 38]
    assert FRAMES.cut(176) == [113, 113]
    assert FRAMES.cut(177) == [113, 113, 26]


@given(st.integers(1, 5000), st.integers(20, 300), st.integers(0, 60), st.integers(0, 10))
def test_nothing_is_lost_or_added_by_cutting(
    octets: int, payload: int, overhead: int, header: int
) -> None:
    frames = FrameFormat(payload, overhead, header, fragment_unit=8).cut(octets)
    headers = 0 if len(frames) == 1 else header
    assert sum(frames) == octets + len(frames) * (overhead + headers)
    assert max(frames) <= payload + overhead


def test_sending_takes_its_time() -> None:
    way = replace(WAY, latency=0.5, frame_gap=0.01)
    passage = link(way).carry(UP, 250, now=10.0)
    # 88, 88 and 74 octets and 25 each at a thousand octets per second, and two gaps between them.
    assert passage.frames == 3
    assert passage.air_octets == 325
    assert passage.airtime == pytest.approx(0.325)
    assert passage.arrives_at == pytest.approx(10 + 0.325 + 0.02 + 0.5)


def test_a_link_carries_no_more_than_its_bandwidth() -> None:
    busy = link()
    arrivals = [busy.carry(UP, 80, now=0.0).arrives_at for _ in range(200)]
    last = arrivals[-1]
    assert last is not None
    assert 200 * 100 * 8 / last == pytest.approx(WAY.bandwidth, rel=0.001)


def test_packets_arrive_in_the_order_of_their_sending() -> None:
    jittery = link(replace(WAY, bandwidth=1e9, jitter=5.0))
    arrivals = [jittery.carry(UP, 10, now=i * 0.001).arrives_at or 0.0 for i in range(100)]
    assert all(earlier < later for earlier, later in pairwise(arrivals))


def test_jitter_is_within_its_bounds() -> None:
    jittery = link(replace(WAY, bandwidth=1e9, latency=1.0, jitter=2.0))
    delays = [(jittery.carry(UP, 10, now=i * 10.0).arrives_at or 0.0) - i * 10 for i in range(500)]
    assert 1.0 <= min(delays) < 1.1
    assert 2.9 < max(delays) <= 3.0 + 0.01


@pytest.mark.parametrize("octets", [80, 250])
def test_one_lost_fragment_loses_the_packet(octets: int) -> None:
    lossy = link(replace(WAY, frame_loss=Loss(0.2)))
    arrived = [lossy.carry(UP, octets, now=i * 10.0).fate is None for i in range(4000)]
    frames = len(FRAMES.cut(octets))
    assert sum(arrived) / 4000 == pytest.approx(0.8**frames, abs=0.02)


def test_frames_are_sent_again_where_the_link_acknowledges_them() -> None:
    lossy = link(replace(WAY, frame_loss=Loss(0.5), frame_repeats=3))
    passages = [lossy.carry(UP, 80, now=i * 10.0) for i in range(4000)]
    arrived = sum(p.fate is None for p in passages) / 4000
    assert arrived == pytest.approx(1 - 0.5**4, abs=0.02)
    # 1 + 1/2 + 1/4 + 1/8 attempts on average.
    assert sum(p.frames for p in passages) / 4000 == pytest.approx(1.875, abs=0.05)
    assert {p.fate for p in passages} == {None, Fate.FRAME_LOST}


def test_whole_datagrams_are_lost_whatever_their_size() -> None:
    for octets in (10, 1500):
        lossy = link(replace(WAY, datagram_loss=Loss(0.3)))
        lost = [lossy.carry(UP, octets, now=i * 100.0).fate for i in range(3000)]
        assert lost.count(Fate.LOST) / 3000 == pytest.approx(0.3, abs=0.03)


def test_a_duty_cycle_bounds_the_share_of_air_time() -> None:
    polite = link(replace(WAY, duty_cycle=0.01, queue=1e9))
    passages = [polite.carry(UP, 250, now=0.0) for _ in range(50)]
    airtime = sum(p.airtime for p in passages)
    assert airtime / passages[-1].sent_at == pytest.approx(0.01, rel=0.01)


def test_what_would_wait_too_long_is_dropped() -> None:
    short = link(replace(WAY, queue=1.0))
    fates = [short.carry(UP, 100, now=0.0).fate for _ in range(20)]
    # 120 octets take 0.12 s each, so the tenth would wait for more than a second.
    assert fates[:9] == [None] * 9
    assert set(fates[9:]) == {Fate.QUEUE_FULL}


def test_what_exceeds_the_mtu_is_dropped() -> None:
    assert link().carry(UP, 2000, now=0.0).fate is None
    assert link().carry(UP, 2001, now=0.0).fate is Fate.TOO_LARGE


def test_nothing_passes_in_an_outage() -> None:
    broken = link(outages=(Outage(begin=10, length=5, every=100),))
    passed = [t for t in range(220) if broken.carry(UP, 1, now=float(t)).fate is None]
    assert [t for t in range(220) if t not in passed] == [
        *range(10, 15),
        *range(110, 115),
        *range(210, 215),
    ]


def test_directions_are_apart_or_share_the_air() -> None:
    assert link().carry(UP, 100, 0.0).sent_at == pytest.approx(0.12)
    apart, shared = link(), link(half_duplex=True)
    for one in (apart, shared):
        one.carry(UP, 100, 0.0)
    assert apart.carry(DOWN, 100, 0.0).sent_at == pytest.approx(0.12)
    assert shared.carry(DOWN, 100, 0.0).sent_at == pytest.approx(0.24)


def test_devices_of_a_cell_share_the_air() -> None:
    air = Medium()
    devices = [Link(link().parameters, Random(i), air) for i in range(5)]
    ends = [device.carry(UP, 100, 0.0).sent_at for device in devices]
    assert ends == pytest.approx([0.12, 0.24, 0.36, 0.48, 0.6])


def test_a_link_may_be_asymmetric() -> None:
    parameters = LinkParameters(WAY, replace(WAY, bandwidth=80_000.0), FRAMES)
    asymmetric = Link(parameters, Random(1))
    assert asymmetric.carry(UP, 100, 0.0).airtime == pytest.approx(0.12)
    assert asymmetric.carry(DOWN, 100, 0.0).airtime == pytest.approx(0.012)


def test_the_same_seed_gives_the_same_link() -> None:
    way = replace(WAY, jitter=1.0, frame_loss=Loss(0.2, 2.0), datagram_loss=Loss(0.1))

    def fates(seed: int) -> list[object]:
        one = link(way, seed=seed)
        return [one.carry(UP, 250, now=i * 1.0) for i in range(100)]

    assert fates(3) == fates(3)
    assert fates(3) != fates(4)


def test_what_happens_in_one_direction_does_not_change_the_other() -> None:
    way = replace(WAY, datagram_loss=Loss(0.5))
    alone, both = link(way), link(way)
    for i in range(50):
        both.carry(DOWN, 100, now=float(i))
    assert [alone.carry(UP, 1, 100.0 + i) for i in range(50)] == [
        both.carry(UP, 1, 100.0 + i) for i in range(50)
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"bandwidth": 0},
        {"latency": -1},
        {"duty_cycle": 0},
        {"duty_cycle": 1.5},
        {"frame_repeats": -1},
        {"queue": -1},
    ],
)
def test_there_is_no_such_direction(values: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        DirectionParameters(**{"bandwidth": 1.0, **values})  # type: ignore[arg-type]
