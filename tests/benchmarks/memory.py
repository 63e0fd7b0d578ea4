"""Memory and database over many enrollments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import linear_regression

from tests.benchmarks.authorities import make_authorities, spoken_for
from tests.benchmarks.bench import Bench
from tests.benchmarks.deployment import Deployment, running
from tests.benchmarks.devices import Device
from tests.benchmarks.figures import Figure, Found, Plot, Sizing
from tests.benchmarks.generators import Load

_MEBI = 2**20
_ROUNDS = 20

#: Octets for an enrollment that count as none: a million of them are 16 MB.
_FLAT = 16

_Points = Sequence[tuple[float, float]]


def memory(bench: Bench) -> Iterator[Found]:
    """Resident memory over enrollments with a new connection or session each, and what each leaves
    behind in the database."""
    count = bench.size.enrollments * 3
    lines = {}
    for name, load in (("HTTPS", Load("https")), ("CoAPS", Load("coaps", 5))):
        devices = bench.devices(count)
        deployment = bench.deploy(devices, count)
        empty = deployment.store_octets
        lines[name] = _resident(bench, load, deployment, devices, list)
        # Half a MiB more or less, as a page or an arena comes or goes, is much for each of so few.
        yield _slope(f"{name}, a new channel each", lines[name], target=None)
    # The server has ended, so that nothing is in the write-ahead log.
    each = (deployment.store_octets - empty) / count
    yield Figure("database that an enrollment leaves behind", each, "octets")
    yield Sizing({"octets_per_certificate": round(each)})
    yield Plot("resident memory of the server", "enrollments", "MiB", lines)


def endurance(bench: Bench) -> Iterator[Found]:
    """Resident memory over very many enrollments, through registration authorities that keep their
    connections for a twentieth of them. Not part of a usual run, since a million of them take most
    of an hour: `--only endurance --enrollments 1000000`."""
    count = bench.size.endurance
    devices = bench.devices(count)
    deployment = bench.deploy(devices, count)
    authorities = make_authorities(deployment, bench.size.generators)

    def speak(some: list[Device]) -> list[Device]:
        return spoken_for(some, authorities)

    points = _resident(bench, Load("https-one-connection"), deployment, devices, speak)
    yield _slope("HTTPS, kept connections", points, target=_FLAT)
    lines = {"registration authorities": points}
    yield Plot("resident memory of the server", "enrollments", "MiB", lines)


def _resident(
    bench: Bench,
    load: Load,
    deployment: Deployment,
    devices: list[Device],
    prepare: Callable[[list[Device]], list[Device]],
) -> _Points:
    """Enrollments so far, and MiB of memory."""
    step = -(-len(devices) // _ROUNDS)
    with running(deployment) as server:
        points = [(0.0, server.cost().resident / _MEBI)]
        for start in range(0, len(devices), step):
            share = prepare(devices[start : start + step])
            bench.run(load, server, share, deployment.root)
            points.append((float(start + len(share)), server.cost().resident / _MEBI))
    return points


def _slope(what: str, points: _Points, *, target: float | None) -> Figure:
    """What an enrollment adds in the later half: before that, caches fill."""
    later = points[len(points) // 2 :]
    (early, first), (late, last) = later[0], later[-1]
    return Figure(
        f"memory that an enrollment leaves behind: {what}",
        linear_regression(*zip(*later, strict=True)).slope * _MEBI,
        "octets",
        target=target,
        note=f"{first:.1f} MiB after {early:,.0f}, {last:.1f} MiB after {late:,.0f}; the slope of "
        "a line through the points between",
    )
