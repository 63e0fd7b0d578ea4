"""The tables of ``docs/explanation/scaling.md``: arithmetic and a simulation from measured figures.

The figures are in ``docs/scaling.json``; the page says how they are measured.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from est_server.https.limits import HttpsLimits

_DAY = 86_400.0
#: Renewals of one worker that are played one by one, at most.
_PLAYED = 150_000
#: TLS connections of one worker at a time, as configured by default.
_CONNECTIONS = HttpsLimits().max_connections


@dataclass(frozen=True)
class Figures:
    """What was measured; see ``docs/scaling.json``."""

    measured: str
    floor_https_ms: float
    https_ms: float
    coaps_ms: float
    octets_per_listed_device: int
    octets_per_certificate: int
    lone_enrollments_per_second: int
    devices: int


@dataclass(frozen=True)
class Wave:
    """All devices renew once within ``window`` seconds, evenly, at ``workers`` workers."""

    window: float
    workers: int


_WAVES = (
    Wave(_DAY, 1),
    Wave(_DAY, 2),
    Wave(4 * 3600.0, 4),
    Wave(3600.0, 12),
    Wave(3600.0, 16),
    Wave(600.0, 80),
    Wave(60.0, 80),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a wave, as one worker saw it. Times are in seconds.

    :param use: the share of its time that a worker needs.
    :param waiting: the most clients that a worker had at a time.
    :param cleared: from the wave's end until nobody waits.
    """

    use: float
    median: float
    p99: float
    waiting: int
    cleared: float


def simulate(wave: Wave, devices: int, services: Sequence[float], *, seed: int = 7030) -> Outcome:
    """Play a wave at one of its workers.

    The kernel gives each connection to a worker by a hash, so each has a queue of its own, and one
    is like another. Clients come as they like (a Poisson process); each transport has the same
    share, and a renewal takes its transport's time, exponentially distributed, which is more
    uneven than it is. A wave that a worker keeps up with is played in part.

    :param services: seconds that a renewal takes a worker, by transport.
    """
    random = Random(seed)
    own = devices / wave.workers
    rate = own / wave.window
    use = rate * sum(services) / len(services)
    count = int(own if use >= 1 else min(own, _PLAYED))
    now = free = 0.0
    latencies: list[float] = []
    present: list[float] = []
    oldest = most = 0
    for _ in range(count):
        now += random.expovariate(rate)
        free = max(free, now) + random.expovariate(1 / random.choice(services))
        latencies.append(free - now)
        present.append(free)
        while present[oldest] <= now:
            oldest += 1
        most = max(most, len(present) - oldest)
    latencies.sort()
    return Outcome(
        use, latencies[count // 2], latencies[int(count * 0.99)], most, max(0.0, free - now)
    )


def load_figures(docs: Path) -> Figures:
    """The figures that were measured."""
    return Figures(**json.loads((docs / "scaling.json").read_text()))


def with_tables(text: str, figures: Figures) -> str:
    """``text`` with its tables as they follow from ``figures``."""
    tables = {"sizes": _sizes(figures), "waves": _waves(figures)}

    def current(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{tables[match[1]]}\n<!-- end -->"

    return re.sub(r"<!-- (sizes|waves) -->\n.*?<!-- end -->", current, text, flags=re.DOTALL)


def _sizes(figures: Figures) -> str:
    listed = figures.devices * figures.octets_per_listed_device
    issued = figures.devices * figures.octets_per_certificate
    rate = figures.devices / _DAY
    mean = (figures.https_ms + figures.coaps_ms) / 2000
    rows = [
        ("measured", figures.measured),
        ("floor: handshake and certificate, HTTPS", f"{figures.floor_https_ms:.2f} ms of CPU"),
        ("one enrollment over HTTPS", f"{figures.https_ms:.2f} ms of CPU"),
        ("one enrollment over CoAPS", f"{figures.coaps_ms:.2f} ms of CPU"),
        (f"renewals per second, {figures.devices:,} a day", f"{rate:.0f}"),
        ("cores that are busy with that, half of them CoAPS", f"{rate * mean:.2f}"),
        ("cores, if all of them come within an hour", f"{figures.devices / 3600 * mean:.1f}"),
        ("all of them on the device list", _size(listed)),
        ("one certificate for each of them", _size(issued)),
        ("written each day if each renews daily", _size(issued)),
        ("the same with certificates of 90 days, renewed after 60", _size(issued / 60)),
        (
            "renewals per second that the ledger on SQLite takes one after the other",
            f"{figures.lone_enrollments_per_second:,}",
        ),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {much} |" for what, much in rows)])


def _size(octets: float) -> str:
    return f"{octets / 1e9:.1f} GB"


@cache
def _waves(figures: Figures) -> str:
    services = (figures.https_ms / 1000, figures.coaps_ms / 1000)
    lines = [
        "| all within | workers | busy | median | 99 % below | most at one | cleared after |",
        "|---|---|---|---|---|---|---|",
    ]
    for wave in _WAVES:
        outcome = simulate(wave, figures.devices, services)
        most = f"{outcome.waiting:,}" + (" (!)" if outcome.waiting > _CONNECTIONS else "")
        lines.append(
            f"| {_time(wave.window)} | {wave.workers} | {outcome.use:.0%} | "
            f"{_time(outcome.median)} | {_time(outcome.p99)} | {most} | "
            f"{_time(outcome.cleared)} |"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:g} h" if seconds % 3600 == 0 else f"{seconds / 3600:.1f} h"
    if seconds >= 60:
        return f"{math.ceil(seconds / 60)} min"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.1f} ms"
