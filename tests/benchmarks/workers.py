"""How much more two workers do than one.

Server and load generators share the cores, so throughput as it is says little. What is compared is
how many enrollments the server does in the time that the generators leave to it. With two workers
time that nobody uses, or another program does, counts against the server; with one it does not. So
the ratio is rather too small than too large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.benchmarks.deployment import running
from tests.benchmarks.figures import Figure, Series
from tests.benchmarks.generators import Generators, Load, Measured
from tests.benchmarks.scenarios import Bench

_CORES = (0, 1)
_LOADS = (("HTTPS", Load("https")), ("CoAPS", Load("coaps", 5)))


@dataclass(frozen=True)
class Throughput:
    """Enrollments, and the seconds of CPU that there were for them, all cores together."""

    enrollments: int
    seconds: float

    @property
    def rate(self) -> float:
        """Enrollments per second and core."""
        return self.enrollments / self.seconds


def workers(bench: Bench) -> Iterator[Figure | Series]:
    """Two workers on two cores against one worker on one core."""
    for name, load in _LOADS:
        one = _of_one(bench, load)
        two = _of_two(bench, load)
        yield Figure(
            f"{name}, one worker on a core of its own", one.rate, "enrollments/s of one core"
        )
        yield Figure(
            f"{name}, two workers on two cores against one",
            2 * two.rate / one.rate,
            "x",
            target=1.8,
            at_least=True,
            note=f"{2 * two.rate:,.0f}/s without the generators' share of the cores",
        )
        yield Series(
            f"throughput over {name}",
            "workers, one core each",
            "enrollments/s",
            [(1.0, one.rate), (2.0, 2 * two.rate)],
        )


def _of_one(bench: Bench, load: Load) -> Throughput:
    measured = _measure(bench, load, 1, (0,))
    return Throughput(measured.enrollments, measured.server_cpu)


def _of_two(bench: Bench, load: Load) -> Throughput:
    measured = _measure(bench, load, 2, _CORES)
    seconds = len(_CORES) * measured.wall - measured.generator_cpu
    return Throughput(measured.enrollments, seconds)


def _measure(bench: Bench, load: Load, count: int, cores: tuple[int, ...]) -> Measured:
    size = bench.size
    # The first requests of each process pay for imports.
    warming = 4 * size.generators
    devices = bench.devices(size.enrollments + warming)
    deployment = bench.deploy(devices, len(devices))
    with (
        Generators(size.generators, bench.scratch, _CORES) as generators,
        running(deployment, "--workers", str(count), cores=cores) as server,
    ):
        generators.run(load, server, devices[:warming], deployment.root)
        return generators.run(load, server, devices[warming:], deployment.root)
