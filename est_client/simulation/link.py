"""One device's link, without a clock or a socket of its own.

A datagram (or TCP segment) is cut into link frames. Each frame takes air time and may be lost;
a link with acknowledgements repeats it a few times. What one lost frame belongs to is lost as a
whole. :meth:`Link.carry` says when a datagram arrives, or why it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from est_client.simulation.draws import Draws
from est_client.simulation.loss import Loss, LossProcess
from est_protocol.errors import ConfigurationError


class Direction(StrEnum):
    """Which way something travels, seen from the device."""

    UP = "up"
    DOWN = "down"


class Fate(StrEnum):
    """Why a datagram did not arrive."""

    LOST = "lost"
    FRAME_LOST = "frame lost"
    QUEUE_FULL = "queue full"
    TOO_LARGE = "too large"
    OUTAGE = "outage"
    NAT = "address forgotten"


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """How a link cuts a packet into frames. Sizes are in octets.

    :param payload: what fits into one frame.
    :param overhead: header and check sum of every frame, and what precedes it on the air.
    :param fragment_header: by how much the payload is shorter in a frame that carries a part.
    :param fragment_unit: of which the size of every part but the last is a multiple.
    """

    payload: int
    overhead: int
    fragment_header: int = 0
    fragment_unit: int = 1

    def __post_init__(self) -> None:
        if (
            min(self.payload, self.fragment_unit) < 1
            or min(self.overhead, self.fragment_header) < 0
        ):
            raise ConfigurationError("sizes of a frame are not negative")
        if self._part < 1:
            raise ConfigurationError("a frame has no room for a part of a packet")

    @property
    def _part(self) -> int:
        room = self.payload - self.fragment_header
        return room // self.fragment_unit * self.fragment_unit

    def cut(self, octets: int) -> list[int]:
        """The sizes on the air of the frames that a packet of ``octets`` becomes."""
        if octets <= self.payload:
            return [octets + self.overhead]
        whole, last = divmod(octets, self._part)
        sizes = [*[self._part] * whole, *([last] if last else [])]
        return [size + self.fragment_header + self.overhead for size in sizes]


@dataclass(frozen=True, slots=True)
class DirectionParameters:
    """One direction of a link. Times are in seconds.

    :param bandwidth: bits per second on the air.
    :param latency: from the end of the sending to the arrival, at least.
    :param jitter: by which the latency is longer, at most; evenly distributed.
    :param frame_gap: between two frames: back-off, turnaround, acknowledgement.
    :param frame_loss: of frames.
    :param frame_repeats: how often an unacknowledged frame is sent again; 0: the link has no
        acknowledgements.
    :param datagram_loss: of whole datagrams, somewhere behind the link.
    :param duty_cycle: the share of time that the sender may send; after a frame it is silent.
    :param queue: how long a datagram may wait for the air before it is dropped.
    """

    bandwidth: float
    latency: float = 0.0
    jitter: float = 0.0
    frame_gap: float = 0.0
    frame_loss: Loss = field(default_factory=Loss)
    frame_repeats: int = 0
    datagram_loss: Loss = field(default_factory=Loss)
    duty_cycle: float = 1.0
    queue: float = 60.0

    def __post_init__(self) -> None:
        if self.bandwidth <= 0:
            raise ConfigurationError("a link has a positive bandwidth")
        if min(self.latency, self.jitter, self.frame_gap, self.queue) < 0:
            raise ConfigurationError("times of a link are not negative")
        if not 0 < self.duty_cycle <= 1:
            raise ConfigurationError(f"a duty cycle of {self.duty_cycle:g} is not in 0..1")
        if not 0 <= self.frame_repeats <= 100:
            raise ConfigurationError("frame_repeats must be in 0..100")


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which nothing passes. Times are in seconds.

    :param begin: since the start of the simulation.
    :param length: how long it lasts.
    :param every: after which it comes again; ``None``: it does not.
    """

    begin: float
    length: float
    every: float | None = None

    def __post_init__(self) -> None:
        if self.begin < 0 or self.length <= 0 or (self.every or math.inf) <= self.length:
            raise ConfigurationError("an outage begins after the start and ends before the next")

    def covers(self, moment: float) -> bool:
        """Whether ``moment`` is in it."""
        since = moment - self.begin
        if self.every is not None:
            since %= self.every
        return moment >= self.begin and since < self.length


@dataclass(frozen=True, slots=True)
class LinkParameters:
    """Both directions of a link, and what they have in common.

    :param up: from the device.
    :param down: to the device.
    :param frames: how packets are cut into frames.
    :param datagram_header: octets of IP and UDP, compressed as the link does it, per datagram.
    :param segment_header: octets of IP and TCP, likewise.
    :param mtu: octets of the largest packet, IP header included; larger ones are dropped.
    :param half_duplex: whether both directions share the air.
    :param outages: when nothing passes.
    :param nat_timeout: seconds of silence after which the device gets another address;
        ``None``: never.
    """

    up: DirectionParameters
    down: DirectionParameters
    frames: FrameFormat
    datagram_header: int = 48
    segment_header: int = 60
    mtu: int = 1500
    half_duplex: bool = False
    outages: Sequence[Outage] = ()
    nat_timeout: float | None = None

    def __post_init__(self) -> None:
        if min(self.datagram_header, self.segment_header) < 0:
            raise ConfigurationError("headers have no negative size")
        if self.mtu <= max(self.datagram_header, self.segment_header):
            raise ConfigurationError(f"an MTU of {self.mtu} octets has no room after the headers")


@dataclass(slots=True)
class Medium:
    """What can carry one frame at a time: the air, or a wire."""

    free_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Passage:
    """What became of one packet.

    :param frames: how many frames were sent for it, repeats included.
    :param air_octets: their octets.
    :param airtime: seconds that they took on the air.
    :param sent_at: when the last of them had been sent.
    :param arrives_at: when the packet arrives; ``None`` if it does not.
    :param fate: why it does not arrive.
    """

    frames: int
    air_octets: int
    airtime: float
    sent_at: float
    arrives_at: float | None
    fate: Fate | None = None


#: Seconds by which two packets arrive apart at least.
_APART = 1e-6


class _Way:
    """One direction at work."""

    def __init__(self, parameters: DirectionParameters, medium: Medium, draws: Draws) -> None:
        self.parameters = parameters
        self.medium = medium
        self.draws = draws
        self.frame_loss = LossProcess(parameters.frame_loss, draws)
        self.datagram_loss = LossProcess(parameters.datagram_loss, draws)
        self.silent_until = 0.0
        self.latest_arrival = 0.0

    def send(self, sizes: list[int], now: float) -> tuple[int, int, float, float, bool]:
        """Send frames one after the other: their number, octets, air time, end, and success."""
        frames, octets, airtime, arrived = 0, 0, 0.0, True
        end = now
        for size in sizes:
            for _attempt in range(self.parameters.frame_repeats + 1):
                end, taken = self._send_frame(size, end)
                frames, octets, airtime = frames + 1, octets + size, airtime + taken
                if lost := self.frame_loss.loses():
                    continue
                break
            arrived = arrived and not lost
            if lost and self.parameters.frame_repeats:
                # Who got no acknowledgement does not send the rest of the packet.
                break
        return frames, octets, airtime, end, arrived

    def _send_frame(self, size: int, now: float) -> tuple[float, float]:
        parameters = self.parameters
        airtime = size * 8 / parameters.bandwidth
        begin = max(now, self.medium.free_at, self.silent_until)
        end = begin + airtime
        self.medium.free_at = end + parameters.frame_gap
        self.silent_until = begin + airtime / parameters.duty_cycle
        return end, airtime

    def arrival(self, sent_at: float) -> float:
        """When a packet arrives; a link does not reorder."""
        parameters = self.parameters
        delay = parameters.latency + parameters.jitter * self.draws()
        # Never the same moment twice: an event loop does not keep the order of equal times.
        self.latest_arrival = max(sent_at + delay, self.latest_arrival + _APART)
        return self.latest_arrival


class Link:
    """One device's link; the same one for the same seed and the same packets.

    :param parameters: both directions.
    :param random: draws the seeds of the two directions, which draw losses and jitter.
    :param medium: what the device shares with others; one of its own by default.
    """

    def __init__(
        self, parameters: LinkParameters, random: Random, medium: Medium | None = None
    ) -> None:
        self.parameters = parameters
        up = medium or Medium()
        down = up if parameters.half_duplex or medium is not None else Medium()
        seeds = [random.getrandbits(64) for _ in Direction]
        self._ways = {
            Direction.UP: _Way(parameters.up, up, Draws(seeds[0])),
            Direction.DOWN: _Way(parameters.down, down, Draws(seeds[1])),
        }

    def carry(self, direction: Direction, octets: int, now: float) -> Passage:
        """Send one packet.

        :param octets: its size, IP header included, as the link compresses it.
        :param now: seconds since the start of the simulation.
        """
        if octets > self.parameters.mtu:
            return _not_sent(now, Fate.TOO_LARGE)
        way = self._ways[direction]
        way.draws.next_packet()
        if max(way.medium.free_at, way.silent_until) - now > way.parameters.queue:
            return _not_sent(now, Fate.QUEUE_FULL)
        frames, air_octets, airtime, sent_at, arrived = way.send(
            self.parameters.frames.cut(octets), now
        )
        fate: Fate | None = None if arrived else Fate.FRAME_LOST
        if way.datagram_loss.loses():
            fate = fate or Fate.LOST
        arrives_at = way.arrival(sent_at)
        if any(outage.covers(sent_at) for outage in self.parameters.outages):
            fate = Fate.OUTAGE
        return Passage(frames, air_octets, airtime, sent_at, None if fate else arrives_at, fate)


def _not_sent(now: float, fate: Fate) -> Passage:
    return Passage(0, 0, 0.0, now, None, fate)
