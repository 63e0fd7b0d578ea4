"""What the ledger costs: throughput with it and without, and what it can write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from est_server.assembly import open_store
from est_server.config import load_config
from est_server.ledger_records import IssuanceTicket
from est_server.stores.store import Store
from tests.benchmarks.bench import Bench
from tests.benchmarks.deployment import running
from tests.benchmarks.figures import Figure, Found, Sizing
from tests.benchmarks.generators import Generators, Load, Measured
from tests.benchmarks.turns import Served, in_turns
from tests.server.ledger_values import certificate, first_enrollment

_TOGETHER = 64

#: How many times as many generators load them as load others.
_CROWD = 2


def ledger(bench: Bench) -> Iterator[Found]:
    """Throughput with the ledger against that of a server whose ledger writes nothing, on the same
    core, and from more generators than elsewhere, so that there is always something to do while
    others wait for the disk."""
    without, with_ledger = _measured(bench, ("tests.benchmarks.without_ledger", "est_server.cli"))
    yield Figure(
        "HTTPS enrollments with the ledger",
        with_ledger.rate,
        "enrollments/s",
        floor=without.rate,
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


def _measured(bench: Bench, modules: Sequence[str]) -> list[Measured]:
    """What the same load comes to at servers that are run by these."""
    crowd = _CROWD * bench.size.generators
    with ExitStack() as stack:
        generators = stack.enter_context(Generators(crowd, bench.scratch))
        served = []
        for module in modules:
            devices = bench.devices(crowd + bench.size.enrollments)
            deployment = bench.deploy(devices, len(devices))
            server = stack.enter_context(running(deployment, module=module))
            served.append(Served(server, devices, deployment.root, generators))
        return in_turns(Load("https"), served, warming=crowd)


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
