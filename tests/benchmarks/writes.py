"""What the ledger costs: throughput with it and without, and what it can write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from cryptography import x509

from est_server.assembly import open_store
from est_server.config import load_config
from est_server.ledger_records import IssuanceTicket
from est_server.stores.store import Store
from tests.benchmarks.bench import Bench
from tests.benchmarks.deployment import RunningServer, running
from tests.benchmarks.devices import Device
from tests.benchmarks.figures import Figure, Found, Sizing
from tests.benchmarks.generators import Generators, Load
from tests.server.ledger_values import certificate, first_enrollment

_TOGETHER = 64

#: Loads for each of two servers that are compared.
_TURNS = 8

#: How many times as many generators load them as load others.
_CROWD = 2


def ledger(bench: Bench) -> Iterator[Found]:
    """Throughput with the ledger against that of a server whose ledger writes nothing. Both run on
    the same core, and get the load in turns, since the speed of a machine changes with what runs
    beside it; and from more generators than elsewhere, so that there is always something to do
    while others wait for the disk."""
    without, with_ledger = _in_turns(bench, ("tests.benchmarks.without_ledger", "est_server.cli"))
    yield Figure(
        "HTTPS enrollments with the ledger",
        with_ledger,
        "enrollments/s",
        floor=without,
        target=0.8,
        at_least=True,
        note="floor: with a ledger that writes nothing",
    )
    alone, together = _recorded(bench)
    yield Figure("ledger alone, one enrollment after the other", alone, "enrollments/s")
    yield Figure(
        f"ledger alone, {_TOGETHER} enrollments at a time",
        together,
        "enrollments/s",
        note="what the store's writer and the disk can take, with no cryptography around them",
    )
    yield Sizing({"lone_enrollments_per_second": round(alone)})


def _in_turns(bench: Bench, modules: tuple[str, ...]) -> list[float]:
    """Enrollments per second of servers that one load after the other is put on."""
    turn = max(bench.size.enrollments // _TURNS, _CROWD * bench.size.generators)
    walls = [0.0] * len(modules)
    with ExitStack() as stack:
        generators = stack.enter_context(Generators(_CROWD * bench.size.generators, bench.scratch))
        served: list[tuple[RunningServer, x509.Certificate, Iterator[list[Device]]]] = []
        for module in modules:
            devices = bench.devices((1 + _TURNS) * turn)
            deployment = bench.deploy(devices, len(devices))
            server = stack.enter_context(running(deployment, module=module))
            served.append((server, deployment.root, _in_parts(devices, turn)))
        # The first requests of a process pay for imports.
        for server, root, parts in served:
            generators.run(Load("https"), server, next(parts), root)
        for _ in range(_TURNS):
            for number, (server, root, parts) in enumerate(served):
                walls[number] += generators.run(Load("https"), server, next(parts), root).wall
    return [_TURNS * turn / wall for wall in walls]


def _in_parts(devices: list[Device], size: int) -> Iterator[list[Device]]:
    return (devices[start : start + size] for start in range(0, len(devices), size))


def _recorded(bench: Bench) -> tuple[float, float]:
    """Enrollments per second that the ledger records, singly and many at a time."""
    config = bench.deploy([], 0).config
    return asyncio.run(_record(config, bench.size.enrollments // 4))


async def _record(config: Path, count: int) -> tuple[float, float]:
    async with open_store(load_config(config)) as store:
        began = time.perf_counter()
        for number in range(count):
            await _issue(store, f"alone-{number}")
        between = time.perf_counter()

        async def some(start: int) -> None:
            for number in range(start, count, _TOGETHER):
                await _issue(store, f"together-{number}")

        await asyncio.gather(*map(some, range(_TOGETHER)))
        ended = time.perf_counter()
    return count / (between - began), count / (ended - between)


async def _issue(store: Store, device: str) -> None:
    intent = first_enrollment(device)
    ticket = await store.begin(intent)
    assert isinstance(ticket, IssuanceTicket)
    await store.complete(ticket, certificate(), now=intent.requested_at)
