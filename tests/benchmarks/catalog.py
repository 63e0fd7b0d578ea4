"""Every measurement by its name, in the order in which they run and are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tests.benchmarks import (
    authorities,
    endurance,
    libest,
    list_scenarios,
    memory,
    profiles,
    scenarios,
    workers,
    writes,
)
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Found

#: Their docstrings are shown above their figures.
SCENARIOS: Mapping[str, Callable[[Bench], Iterator[Found]]] = {
    "floors": scenarios.floors,
    "enrollment": scenarios.enrollment,
    "registration-authority": authorities.registration_authority,
    "libest": libest.libest,
    "workers": workers.workers,
    "latency": endurance.latency,
    "list-sizes": list_scenarios.list_sizes,
    "list-import": list_scenarios.list_import,
    "block-sizes": scenarios.block_sizes,
    "key-kinds": scenarios.key_kinds,
    "ledger": writes.ledger,
    "memory": memory.memory,
    "endurance": memory.endurance,
    "idle-clients": endurance.idle_clients,
    "profile": profiles.profile,
}

#: What takes too long to be run each time.
AT_LENGTH = ("endurance",)

USUAL = tuple(name for name in SCENARIOS if name not in AT_LENGTH)

#: What shows within a minute that the benchmarks run.
QUICK_ONES = (
    "floors",
    "enrollment",
    "registration-authority",
    "libest",
    "list-sizes",
    "list-import",
    "ledger",
    "idle-clients",
)
