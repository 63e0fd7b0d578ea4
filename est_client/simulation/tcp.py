"""TCP without its socket, for streams over an emulated link: one end of one connection.

Connection set-up and end (RFC 9293), the retransmission timer (RFC 6298), slow start, congestion
avoidance and fast recovery (RFC 5681, RFC 6582), an initial window of ten segments (RFC 6928).
Every segment that brings something is acknowledged at once, with data where there is any to send.
There are no selective acknowledgements and no time stamps, as in the small stacks of devices.
"""

from __future__ import annotations

from dataclasses import dataclass

_INITIAL_RTO, _SHORTEST_RTO, _LONGEST_RTO = 1.0, 1.0, 60.0
_GRANULARITY = 0.1
_INITIAL_WINDOW = 10
_DUPLICATES = 3
_MOST_REPEATS = 12


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment; SYN and FIN take a sequence number each, as data does.

    :param ack: the next octet that its sender expects; ``None`` in the first SYN and resets.
    :param window: octets that its sender can take.
    :param repeated: whether it was sent before; for counting only.
    """

    seq: int
    ack: int | None = None
    data: bytes = b""
    syn: bool = False
    fin: bool = False
    rst: bool = False
    window: int = 0
    repeated: bool = False

    @property
    def end(self) -> int:
        """The sequence number after it."""
        return self.seq + len(self.data) + self.syn + self.fin


class TcpEnd:
    """One end. After every call, send what :meth:`segments` returns.

    :param mss: octets of data in one segment, at most.
    :param active: whether this end opens the connection.
    :param buffer: octets that it can take before its user does: the window that it offers.
    """

    def __init__(self, mss: int, *, active: bool, buffer: int = 65535) -> None:
        self._mss = mss
        self._buffer = buffer
        self._out: list[Segment] = []
        #: Whether both ends have said SYN.
        self.established = False
        #: Why the connection broke.
        self.broken: str | None = None
        #: Whether the peer has said that it sends no more.
        self.peer_ended = False
        #: Octets that its user has not taken.
        self.held = 0
        # What is not acknowledged, and the number of its first octet; 0 is the SYN.
        self._unsent = bytearray()
        self._start = 1
        self._una = self._next = self._highest = 0
        self._fin_wanted = False
        self._peer_window = 1
        self._cwnd = min(_INITIAL_WINDOW, max(2, 14600 // mss)) * mss
        self._ssthresh = 1 << 30
        self._duplicates = 0
        self._recover: int | None = None
        self._rto = _INITIAL_RTO
        self._srtt: float | None = None
        self._rttvar = 0.0
        self._timed: tuple[int, float] | None = None
        self._timer: float | None = None
        self._repeats = 0
        self._expected: int | None = None
        self._early: dict[int, Segment] = {}
        self._ack_due = False
        self._active = active

    @property
    def unsent(self) -> int:
        """Octets that are not acknowledged yet."""
        return len(self._unsent)

    @property
    def ended(self) -> bool:
        """Whether all that this end had to say is acknowledged, its FIN included."""
        return self._fin_wanted and self.established and self._una == self._end_of_all

    @property
    def deadline(self) -> float | None:
        """When to call :meth:`on_timer`."""
        return None if self.broken else self._timer

    def open(self, now: float) -> None:
        """Send the first SYN."""
        self._pump(now)

    def write(self, data: bytes, now: float) -> None:
        """Send data."""
        self._unsent += data
        self._pump(now)

    def end(self, now: float) -> None:
        """Send no more after what was written."""
        self._fin_wanted = True
        self._pump(now)

    def abort(self) -> None:
        """Break the connection."""
        if not self.broken:
            self._break("aborted")

    def taken(self, octets: int) -> None:
        """The user took some of what was held."""
        was_full = self._window < self._mss
        self.held -= octets
        if was_full and self._window >= self._mss:
            self._acknowledge()

    def segments(self) -> list[Segment]:
        """What is to be sent now."""
        if self._ack_due and not self.broken:
            self._acknowledge()
        out, self._out = self._out, []
        return out

    def receive(self, segment: Segment, now: float) -> bytes:
        """Take a segment and return the data that is now in order."""
        if self.broken:
            return b""
        if segment.rst:
            self.broken = "reset by the peer"
            return b""
        if segment.syn and self._expected is None:
            self._expected = segment.seq + 1
            self._ack_due = True
        if self._expected is None:
            return b""
        if segment.ack is not None:
            self._acknowledged(segment, now)
        data = self._take(segment)
        self._pump(now)
        return data

    def on_timer(self, now: float) -> None:
        """Send again what was not acknowledged in time."""
        if self.broken or self._timer is None or now < self._timer:
            return
        self._repeats += 1
        if self._repeats > _MOST_REPEATS:
            self._break("no acknowledgement")
            return
        flight = self._next - self._una
        self._ssthresh = max(flight // 2, 2 * self._mss)
        self._cwnd = self._mss
        self._recover = None
        self._duplicates = 0
        self._timed = None
        self._rto = min(self._rto * 2, _LONGEST_RTO)
        self._timer = None
        self._next = self._una
        self._pump(now, probe=True)

    # -- receiving ------------------------------------------------------------------------------

    def _take(self, segment: Segment) -> bytes:
        """What of a segment, and of those that came too early, is next."""
        assert self._expected is not None
        if segment.data or segment.fin or (segment.syn and segment.end <= self._expected):
            self._ack_due = True
        if (segment.data or segment.fin) and segment.end > self._expected:
            self._early[segment.seq] = segment
        data = bytearray()
        while ready := [s for s in self._early.values() if s.seq <= self._expected]:
            for one in ready:
                del self._early[one.seq]
                data += one.data[max(0, self._expected - one.seq) :]
                self._expected = max(self._expected, one.end)
                self.peer_ended = self.peer_ended or one.fin
        self.held += len(data)
        return bytes(data)

    def _acknowledged(self, segment: Segment, now: float) -> None:
        ack = segment.ack
        assert ack is not None
        if not self.established and ack >= 1:
            self.established = True
        if ack > self._highest:
            return
        opened = segment.window > self._peer_window
        self._peer_window = segment.window
        if ack > self._una:
            self._new_acknowledgement(ack, now)
        elif (
            ack == self._una
            and self._next > self._una
            and not segment.data
            and not segment.fin
            and not opened
            and not segment.syn
        ):
            self._duplicate_acknowledgement(now)

    def _new_acknowledgement(self, ack: int, now: float) -> None:
        data = min(ack - self._start, len(self._unsent))
        del self._unsent[:data]
        self._start += data
        self._una = ack
        self._next = max(self._next, ack)
        self._repeats = 0
        self._duplicates = 0
        if self._timed is not None and ack >= self._timed[0]:
            self._sample(now - self._timed[1])
            self._timed = None
        if self._recover is not None and ack < self._recover:
            # RFC 6582: a partial acknowledgement shows the next hole.
            self._send_at(self._una, now)
        else:
            self._recover = None
            slow_start = self._cwnd < self._ssthresh
            self._cwnd += (
                min(data, self._mss) if slow_start else self._mss * self._mss // self._cwnd
            )
        self._timer = now + self._rto if self._next > self._una else None

    def _duplicate_acknowledgement(self, now: float) -> None:
        self._duplicates += 1
        if self._duplicates == _DUPLICATES and self._recover is None:
            self._ssthresh = max((self._next - self._una) // 2, 2 * self._mss)
            self._cwnd = self._ssthresh
            self._recover = self._next
            self._send_at(self._una, now)

    def _sample(self, rtt: float) -> None:
        """RFC 6298 section 2."""
        if self._srtt is None:
            self._srtt, self._rttvar = rtt, rtt / 2
        else:
            self._rttvar = 0.75 * self._rttvar + 0.25 * abs(self._srtt - rtt)
            self._srtt = 0.875 * self._srtt + 0.125 * rtt
        rto = self._srtt + max(_GRANULARITY, 4 * self._rttvar)
        self._rto = min(max(rto, _SHORTEST_RTO), _LONGEST_RTO)

    # -- sending --------------------------------------------------------------------------------

    @property
    def _window(self) -> int:
        return max(0, self._buffer - self.held)

    def _pump(self, now: float, *, probe: bool = False) -> None:
        """Send as much as the windows allow; with ``probe`` at least one segment."""
        if self.broken:
            return
        if not self._active and self._expected is None:
            return
        limit = self._una + min(self._cwnd, self._peer_window)
        while self._next < self._end_of_all and (probe or self._next < limit):
            probe = False
            room = max(limit - self._next, 1)
            before = self._next
            self._next = self._send_at(self._next, now, room)
            if self._next == before:
                break
        if self._timer is None and self._una < self._end_of_all:
            # Also while the peer's window is closed: its opening may have been lost.
            self._timer = now + self._rto

    @property
    def _end_of_all(self) -> int:
        """The number after all that is to be sent as far as is known, SYN and FIN included."""
        if not self.established:
            return 1
        return self._start + len(self._unsent) + self._fin_wanted

    def _send_at(self, seq: int, now: float, room: int = 1 << 30) -> int:
        """Send the segment that begins at ``seq`` and return the number after it."""
        repeated = seq < self._highest
        if seq == 0:
            segment = Segment(0, self._expected, syn=True, window=self._window, repeated=repeated)
        else:
            offset = seq - self._start
            data = bytes(self._unsent[offset : offset + min(self._mss, room)])
            fin = self._fin_wanted and offset + len(data) == len(self._unsent)
            segment = Segment(
                seq, self._expected, data, fin=fin, window=self._window, repeated=repeated
            )
        if segment.end == seq:
            return seq
        self._ack_due = False
        self._out.append(segment)
        self._highest = max(self._highest, segment.end)
        if self._timed is None and not repeated:
            self._timed = segment.end, now
        self._timer = self._timer or now + self._rto
        return segment.end

    def _acknowledge(self) -> None:
        self._ack_due = False
        self._out.append(Segment(self._next, self._expected, window=self._window))

    def _break(self, why: str) -> None:
        self.broken = why
        self._out.append(Segment(self._next, rst=True))
