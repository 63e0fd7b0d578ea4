"""Memory and database over many enrollments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import linear_regression

from tests.benchmarks.authorities import make_authorities, spoken_for
from tests.benchmarks.bench import Bench
from tests.benchmarks.deployment import running
from tests.benchmarks.figures import Figure, Found, Plot, Sizing
from tests.benchmarks.generators import Load

_MEBI = 2**20
_LINES = 20


def memory(bench: Bench) -> Iterator[Found]:
    """Resident memory over enrollments with a new connection each, and what each writes."""
    count = bench.size.enrollments * 2
    devices = bench.devices(count)
    deployment = bench.deploy(devices, len(devices))
    empty = deployment.store_octets
    step = count // 8
    points = [(0.0, 0.0)]
    with running(deployment) as server:
        points = [(0.0, server.cost().resident / _MEBI)]
        for start in range(0, count, step):
            share = devices[start : start + step]
            bench.run(Load("https"), server, share, deployment.root)
            points.append((float(start + len(share)), server.cost().resident / _MEBI))
    yield from _growth("new connections", points)
    # Closed, so that nothing is in the write-ahead log.
    each = (deployment.store_octets - empty) / count
    yield Figure("database that an enrollment leaves behind", each, "octets")
    yield Sizing({"octets_per_certificate": round(each)})


def endurance(bench: Bench) -> Iterator[Found]:
    """Resident memory over very many enrollments, through registration authorities that keep their
    connections for a twentieth of them. Not part of a usual run, since it takes an hour for a
    million: `--only endurance --enrollments 1000000`."""
    count = bench.size.endurance
    devices = bench.devices(count)
    deployment = bench.deploy(devices, count)
    authorities = make_authorities(deployment, bench.size.generators)
    step = max(len(authorities), count // _LINES)
    with running(deployment) as server:
        points = [(0.0, server.cost().resident / _MEBI)]
        for start in range(0, count, step):
            share = spoken_for(devices[start : start + step], authorities)
            bench.run(Load("https-one-connection"), server, share, deployment.root)
            points.append((float(start + len(share)), server.cost().resident / _MEBI))
            print(f"  {points[-1][0]:,.0f}: {points[-1][1]:.2f} MiB", flush=True)
    yield from _growth("kept connections", points)


def _growth(what: str, points: Sequence[tuple[float, float]]) -> Iterator[Found]:
    """The slope of the later half: before that caches fill."""
    later = points[len(points) // 2 :]
    slope = linear_regression(*zip(*later, strict=True)).slope
    (early, first), (late, last) = later[0], later[-1]
    yield Figure(
        f"memory that an enrollment leaves behind, {what}",
        slope * _MEBI,
        "octets",
        note=f"{first:.1f} MiB after {early:,.0f}, {last:.1f} MiB after {late:,.0f}; "
        "a line through these and those between",
    )
    yield Plot(f"resident memory of the server, {what}", "enrollments", "MiB", {"server": points})
