"""What a device sent and received, counted where it crosses the link."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from est_client.simulation.link import Direction, Fate, Passage
from est_protocol.secure_channel import records

_CHANGE_CIPHER_SPEC, _HANDSHAKE = 20, 22
_TLS_HEADER, _DTLS_HEADER = 5, records.HEADER_SIZE


class Phase(StrEnum):
    """What the device was doing."""

    HANDSHAKE = "handshake"
    CACERTS = "cacerts"
    CSRATTRS = "csrattrs"
    ENROLL = "enroll"
    RENEW = "renew"
    CLOSE = "close"


@dataclass(slots=True)
class Flow:
    """One direction of one phase.

    :param datagrams: datagrams, or TCP segments, that were sent.
    :param octets: their payload: what DTLS or TLS gave to UDP or TCP.
    :param frames: link frames that were sent for them, repeats of the link included.
    :param air_octets: octets of these frames, headers of every layer included.
    :param airtime: seconds that they took on the air.
    :param not_arrived: datagrams that did not arrive.
    """

    datagrams: int = 0
    octets: int = 0
    frames: int = 0
    air_octets: int = 0
    airtime: float = 0.0
    not_arrived: int = 0

    def count(self, octets: int, passage: Passage) -> None:
        """Count one datagram."""
        self.datagrams += 1
        self.octets += octets
        self.frames += passage.frames
        self.air_octets += passage.air_octets
        self.airtime += passage.airtime
        self.not_arrived += passage.arrives_at is None

    def __add__(self, other: Flow) -> Flow:
        return Flow(*(getattr(self, name) + getattr(other, name) for name in Flow.__slots__))


@dataclass(slots=True)
class PhaseTraffic:
    """One phase of one device, or of many.

    :param up: from the device.
    :param down: to the device.
    :param repeats: datagrams that were sent again because of a time-out: handshake flights in both
        directions, CoAP messages of the device, TCP segments in both directions.
    :param round_trips: how often the device, having sent something, got an answer.
    :param seconds: how long it took.
    """

    up: Flow = field(default_factory=Flow)
    down: Flow = field(default_factory=Flow)
    repeats: int = 0
    round_trips: int = 0
    seconds: float = 0.0

    def flow(self, direction: Direction) -> Flow:
        """One of its two directions."""
        return self.up if direction is Direction.UP else self.down

    def __add__(self, other: PhaseTraffic) -> PhaseTraffic:
        return PhaseTraffic(
            self.up + other.up,
            self.down + other.down,
            self.repeats + other.repeats,
            self.round_trips + other.round_trips,
            self.seconds + other.seconds,
        )


class Meter:
    """Counts the traffic of one device by phase."""

    def __init__(self) -> None:
        #: What was counted so far.
        self.phases: dict[Phase, PhaseTraffic] = {}
        #: Why datagrams did not arrive, and how many.
        self.fates: Counter[Fate] = Counter()
        self._phase = Phase.HANDSHAKE
        self._since: float | None = None
        self._awaits_answer = False
        self._flights: dict[Direction, set[bytes]] = {direction: set() for direction in Direction}

    def enter(self, phase: Phase, now: float) -> None:
        """Count for ``phase`` from now on."""
        self.pause(now)
        self._phase = phase
        self._since = now
        if phase is Phase.HANDSHAKE:
            for seen in self._flights.values():
                seen.clear()

    def pause(self, now: float) -> None:
        """The phase is over, and the next one does not begin at once."""
        if self._since is not None:
            self._current.seconds += now - self._since
        self._since = None

    @property
    def _current(self) -> PhaseTraffic:
        return self.phases.setdefault(self._phase, PhaseTraffic())

    def count(self, direction: Direction, octets: int, passage: Passage) -> None:
        """Count one datagram or segment that was sent."""
        self._current.flow(direction).count(octets, passage)
        if passage.fate is not None:
            self.fates[passage.fate] += 1

    def count_repeats(self, repeats: int = 1) -> None:
        """Count what was sent again because of a time-out."""
        self._current.repeats += repeats

    def count_dropped(self, fate: Fate) -> None:
        """Count a datagram that was dropped where no link is."""
        self.fates[fate] += 1

    def sent_content(self) -> None:
        """The device sent something that wants an answer."""
        self._awaits_answer = True

    def received_content(self) -> None:
        """The device received something."""
        if self._awaits_answer:
            self._current.round_trips += 1
        self._awaits_answer = False

    def look_at_handshake(self, direction: Direction, datagram: bytes) -> None:
        """Count a DTLS datagram as repeated if it carries a handshake message that was there."""
        seen = self._flights[direction]
        marks = [mark for record in records.split(datagram) if (mark := _flight_mark(record))]
        if any(mark in seen for mark in marks):
            self.count_repeats()
        seen.update(marks)


def _flight_mark(record: records.Record) -> bytes | None:
    """What a retransmission has in common with the first transmission, if it is readable."""
    if record.epoch:
        return None
    body = record.octets[_DTLS_HEADER:]
    if record.octets[0] == _CHANGE_CIPHER_SPEC:
        return b"ccs"
    # msg_type, message_seq and fragment_offset (RFC 6347 section 4.2.2).
    return body[:1] + body[4:9] if record.octets[0] == _HANDSHAKE else None


def changes_cipher(octets: bytes, *, datagram: bool) -> bool:
    """Whether a client's flight has a ChangeCipherSpec in it.

    In (D)TLS 1.2 it stands beside ClientKeyExchange and CertificateVerify, in TLS 1.3 (RFC 8446
    appendix D.4) before the encrypted Certificate and CertificateVerify: in either case the
    flight that cost the client its asymmetric cryptography.
    """
    header = _DTLS_HEADER if datagram else _TLS_HEADER
    start = 0
    while start + header <= len(octets):
        if octets[start] == _CHANGE_CIPHER_SPEC:
            return True
        start += header + int.from_bytes(octets[start + header - 2 : start + header], "big")
    return False
