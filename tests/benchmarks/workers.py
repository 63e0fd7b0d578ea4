"""How much more two workers do than one.

Server and load generators share the cores, so throughput as it is says little. What is compared is
how many enrollments the server does in the time that the generators, and whatever else runs on the
machine, leave to it: what it used, and what nobody used. With two workers idle time counts against
the server, since it is there that they may wait for each other; with one it does not. So the ratio
is rather too small than too large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from tests.benchmarks.bench import MICRO, Bench
from tests.benchmarks.deployment import SERVER_CORES, running
from tests.benchmarks.figures import Figure, Found, Plot
from tests.benchmarks.generators import Generators, Load, Measured
from tests.benchmarks.turns import Served, in_turns

_CORES = (0, 1)
_LOADS = (("HTTPS", Load("https")), ("CoAPS", Load("coaps", 5)))


def workers(bench: Bench) -> Iterator[Found]:
    """Two workers on two cores against one worker on one core. The load generators run on the same
    cores; what is counted is the time that they leave to the server."""
    lines = {}
    for name, load in _LOADS:
        alone, both = _measured(bench, load, ((1, SERVER_CORES), (2, _CORES)))
        left = both.server_cpu + both.idle
        one = alone.enrollments / alone.server_cpu
        two = len(_CORES) * both.enrollments / left
        yield Figure(f"{name}, one worker on a core of its own", one, "enrollments/s")
        yield Figure(
            f"{name}, two workers on two cores against one",
            two,
            "enrollments/s",
            floor=one,
            target=1.8,
            at_least=True,
            note=f"floor: one worker; the two were busy for {both.server_cpu / left:.0%} of the "
            f"time that there was, with {both.cpu_each * MICRO:,.0f} us CPU each, the one with "
            f"{alone.cpu_each * MICRO:,.0f}",
        )
        lines[name] = [(0.0, one), (1.0, two)]
    yield Plot(
        "throughput, without the generators' share of the cores",
        "workers, one core each",
        "enrollments/s",
        lines,
        bars=("1", "2"),
    )


def _measured(
    bench: Bench, load: Load, kinds: Sequence[tuple[int, tuple[int, ...]]]
) -> list[Measured]:
    """What ``load`` comes to at servers with as many workers on these cores."""
    size = bench.size
    # Each process is to have had some.
    warming = 4 * size.generators
    with ExitStack() as stack:
        generators = stack.enter_context(Generators(size.generators, bench.scratch, _CORES))
        served = []
        for count, cores in kinds:
            devices = bench.devices(warming + size.enrollments)
            deployment = bench.deploy(devices, len(devices))
            server = running(deployment, "--workers", str(count), cores=cores)
            served.append(Served(stack.enter_context(server), devices, deployment.root))
        return in_turns(generators, load, served, warming=warming)
