"""``python -m tests.benchmarks``: measure, print a table, write JSON, render the page."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.bench import FULL, QUICK, Bench
from tests.benchmarks.catalog import AT_LENGTH, QUICK_ONES, SCENARIOS, USUAL
from tests.benchmarks.figures import Run
from tests.benchmarks.generators import Generators

_RAW = "performance.json"


def main() -> None:
    """Run what the command line asks for."""
    options = _parser().parse_args()
    size = QUICK if options.quick else FULL
    if options.enrollments:
        size = replace(size, endurance=options.enrollments)
    run = Run.here()
    if options.merge and (options.out / _RAW).exists():
        run.go_on_from(options.out / _RAW)
    with tempfile.TemporaryDirectory(prefix="est-bench-") as directory:
        scratch = Path(directory)
        with Generators(size.generators, scratch) as generators:
            bench = Bench(size, scratch, generators)
            for name in options.only or (QUICK_ONES if options.quick else USUAL):
                _measure(name, bench, run)
                # What comes next may take long, or fail.
                run.write(options.out / _RAW)
    if options.page:
        # Plotting takes a library that a quick run on any machine need not have.
        from tests.benchmarks.page import render

        render(run, options.page)


def _measure(name: str, bench: Bench, run: Run) -> None:
    began = time.monotonic()
    print(f"{name}:", flush=True)
    measurement = run.begin(name)
    for found in SCENARIOS[name](bench):
        measurement.add(found)
    print(f"  ({time.monotonic() - began:.0f} s)", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tests.benchmarks",
        description="Measure what enrollment costs. LIBEST_PREFIX names an installation of libest "
        "to compare with.",
    )
    parser.add_argument("--quick", action="store_true", help="a minute's worth, to see it runs")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=sorted(SCENARIOS),
        metavar="NAME",
        help=f"these measurements: {_names(USUAL)}; or one that is else left out: "
        f"{_names(AT_LENGTH)}",
    )
    parser.add_argument("--enrollments", type=int, metavar="N", help="in the endurance run")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="for the raw figures")
    parser.add_argument(
        "--merge", action="store_true", help="keep what --out has of other measurements today"
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="DOCS",
        help="the folder whose reference/performance.md, plots and scaling.json to write",
    )
    return parser


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)


if __name__ == "__main__":
    main()
