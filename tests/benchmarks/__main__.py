"""``python -m tests.benchmarks``: measure, print a table, write JSON, render the page."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.benchmarks import endurance, scenarios, workers
from tests.benchmarks.figures import Run
from tests.benchmarks.generators import Generators
from tests.benchmarks.scenarios import FULL, QUICK, Bench

ALL = {
    "floors": scenarios.floors,
    "enrollment": scenarios.enrollment,
    "registration-authority": endurance.registration_authority,
    "idle-clients": endurance.idle_clients,
    "latency": endurance.latency,
    "ledger": endurance.ledger,
    "memory": endurance.memory,
    "workers": workers.workers,
    "block-sizes": scenarios.block_sizes,
    "list-sizes": scenarios.list_sizes,
    "key-kinds": scenarios.key_kinds,
    "list-import": scenarios.list_import,
}
QUICK_ONES = ("floors", "enrollment", "registration-authority", "idle-clients", "list-import")


def main() -> None:
    """Run what the command line asks for."""
    options = _parser().parse_args()
    size = QUICK if options.quick else FULL
    names = options.only or (QUICK_ONES if options.quick else tuple(ALL))
    run = Run.here()
    with tempfile.TemporaryDirectory(prefix="est-bench-") as directory:
        scratch = Path(directory)
        with Generators(size.generators, scratch) as generators:
            bench = Bench(size, scratch, generators)
            for name in names:
                began = time.monotonic()
                print(f"{name}:", flush=True)
                for found in ALL[name](bench):
                    run.add(found)
                print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
    run.write(options.out / "performance.json")
    if options.page:
        # Plotting takes a library that a quick run on any machine need not have.
        from tests.benchmarks.page import render

        render(run, options.page)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.benchmarks", description=scenarios.__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute's worth, to see it runs")
    parser.add_argument("--only", nargs="+", choices=sorted(ALL), help="these measurements")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="for the raw figures")
    parser.add_argument("--page", type=Path, help="folder for performance.md and its plots")
    return parser


if __name__ == "__main__":
    main()
