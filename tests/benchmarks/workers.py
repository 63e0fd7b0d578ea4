"""How much more two workers do on two cores than one on one.

Server and load generators share the cores, so throughput as it is says little. What is compared is
how many enrollments the server does in the time that the generators, and whatever else runs on the
machine, leave to it: what it used, and what nobody used. Idle time counts, since it is there that
workers may wait for each other, and one for the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from tests.benchmarks.bench import MICRO, Bench, Size
from tests.benchmarks.deployment import SERVER_CORES, running
from tests.benchmarks.figures import Figure, Found, Plot
from tests.benchmarks.generators import Generators, Load, Measured
from tests.benchmarks.turns import Served, in_turns

_CORES = (0, 1)

#: How many times as many generators load them as load others: that there is always something to do
#: while a group of writes waits for the disk, or for the other worker's.
_CROWD = 2
_LOADS = (("HTTPS", Load("https")), ("CoAPS", Load("coaps", 5)))


def workers(bench: Bench) -> Iterator[Found]:
    """Two workers on two cores against one worker on one core, with as many load generators for
    each worker. They run on the same cores as the server; what is counted is the time that they
    leave to it."""
    lines = {}
    for name, load in _LOADS:
        alone, both = _measured(bench, load, ((1, SERVER_CORES), (2, _CORES)))
        one, two = _rate(alone, SERVER_CORES), _rate(both, _CORES)
        yield Figure(
            f"{name}, one worker on one core",
            one,
            "enrollments/s",
            note=f"busy for {_busy(alone):.0%} of the time that there was, with "
            f"{alone.cpu_each * MICRO:,.0f} us CPU each",
        )
        yield Figure(
            f"{name}, two workers on two cores against one",
            two,
            "enrollments/s",
            floor=one,
            target=1.8,
            at_least=True,
            note=f"floor: one worker; the two were busy for {_busy(both):.0%} of the time that "
            f"there was, with {both.cpu_each * MICRO:,.0f} us CPU each",
        )
        lines[name] = [(0.0, one), (1.0, two)]
    yield Plot(
        "throughput, without the generators' share of the cores",
        "workers, one core each",
        "enrollments/s",
        lines,
        bars=("1", "2"),
    )


def _rate(measured: Measured, cores: Sequence[int]) -> float:
    """Enrollments per second, if the server had all of these cores."""
    return len(cores) * measured.enrollments / (measured.server_cpu + measured.idle)


def _busy(measured: Measured) -> float:
    """The server's share of the time that it had."""
    return measured.server_cpu / (measured.server_cpu + measured.idle)


def _measured(
    bench: Bench, load: Load, kinds: Sequence[tuple[int, tuple[int, ...]]]
) -> list[Measured]:
    """What as many generators for each worker come to at servers with workers on these cores."""
    size = bench.size
    with ExitStack() as stack:
        served = []
        for workers, cores in kinds:
            generators = Generators(_CROWD * workers * size.generators, bench.scratch, cores)
            devices = bench.devices(_warming(size) + size.enrollments)
            deployment = bench.deploy(devices, len(devices))
            server = running(deployment, "--workers", str(workers), cores=cores)
            served.append(
                Served(
                    stack.enter_context(server),
                    devices,
                    deployment.root,
                    stack.enter_context(generators),
                )
            )
        return in_turns(load, served, warming=_warming(size))


def _warming(size: Size) -> int:
    """Devices that are not counted: each process is to have had some."""
    return 4 * _CROWD * size.generators
