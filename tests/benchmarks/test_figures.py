"""What the benchmarks make of what they measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from docs.scaling_page import load_figures
from tests.benchmarks.accounting import cost_of
from tests.benchmarks.catalog import SCENARIOS
from tests.benchmarks.figures import Figure, Plot, Remark, Run, Sizing, cells
from tests.benchmarks.profiles import shares_of

_DOCS = Path(__file__).parents[2] / "docs"


def _a_run() -> Run:
    run = Run.here()
    measurement = run.begin("enrollment")
    measurement.add(Figure("one", 30.0, "us CPU", floor=10.0, target=2.0, note="so"))
    measurement.add(Plot("lines", "x", "y", {"a": [(1.0, 2.0), (10.0, 3.0)]}, log_x=True))
    measurement.add(Plot("bars", "x", "y", {"a": [(0.0, 2.0)], "b": [(0.0, 3.0)]}, bars=("p",)))
    measurement.add(Remark("Not measured: it rained."))
    measurement.add(Sizing({"https_ms": 7.5}))
    return run


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (Figure("", 1.0, ""), None),
        (Figure("", 3.0, "", target=3.0), True),
        (Figure("", 3.1, "", target=3.0), False),
        (Figure("", 30.0, "", floor=10.0, target=3.0), True),
        (Figure("", 30.0, "", floor=9.0, target=3.0), False),
        (Figure("", 17.0, "", floor=10.0, target=1.8, at_least=True), False),
        (Figure("", 18.0, "", floor=10.0, target=1.8, at_least=True), True),
    ],
)
def test_a_target_is_for_the_ratio_where_there_is_one(figure: Figure, reached: bool | None) -> None:
    assert figure.reached is reached


def test_a_figure_shows_all_that_it_is_judged_by() -> None:
    figure = Figure("enrollment", 3608.2, "us", floor=964.0, target=1.9, note="n")
    assert cells(figure) == ("enrollment", "3,608 us", "964 us", "3.74", "≤ 1.9", "no", "n")


def test_a_run_goes_on_where_its_first_part_ended(tmp_path: Path) -> None:
    first = _a_run()
    first.write(tmp_path / "raw.json")
    second = Run.here()
    second.go_on_from(tmp_path / "raw.json")
    second.begin("floors").add(Figure("two", 1.0, "us"))
    second.write(tmp_path / "raw.json")
    both = Run.read(tmp_path / "raw.json")
    assert list(both.measurements) == ["enrollment", "floors"]
    assert cells(both.measurements["enrollment"].figures[0]) == cells(
        first.measurements["enrollment"].figures[0]
    )


def test_parts_of_different_machines_do_not_make_one_run(tmp_path: Path) -> None:
    other = replace(_a_run(), machine={**Run.here().machine, "processor": "abacus"})
    other.write(tmp_path / "raw.json")
    with pytest.raises(ValueError, match="another machine"):
        Run.here().go_on_from(tmp_path / "raw.json")


def test_each_measurement_says_what_it_is() -> None:
    assert [name for name, measure in SCENARIOS.items() if not measure.__doc__] == []


def test_the_page_shows_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="draws the plots; it comes with the extra [bench]")
    from tests.benchmarks.page import render

    docs = tmp_path / "docs"
    for folder in ("reference", "explanation"):
        (docs / folder).mkdir(parents=True)
    shutil.copy(_DOCS / "scaling.json", docs)
    (docs / "reference" / "performance-gone-1.svg").touch()
    written = "<!-- remarks -->\nThe rain was heavy.\n<!-- end -->\n"
    (docs / "reference" / "performance.md").write_text(f"# Old\n\n{written}\nold\n")
    render(_a_run(), docs)
    page = (docs / "reference" / "performance.md").read_text()
    assert written in page
    assert "old" not in page
    assert "| one | 30 us CPU | 10 us CPU | 3.00 | ≤ 2 | no | so |" in page
    assert "it rained" in page
    plots = {path.name for path in (docs / "reference").glob("*.svg")}
    assert plots == {"performance-enrollment-1.svg", "performance-enrollment-2.svg"}
    assert all(f"({plot})" in page for plot in plots)
    # Part of the figures would not go with the rest.
    assert load_figures(docs) == load_figures(_DOCS)
    assert "scaling.json stays as it is" in capsys.readouterr().out


def test_sizing_goes_by_a_full_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the plots; it comes with the extra [bench]")
    from tests.benchmarks.page import render

    docs = tmp_path / "docs"
    (docs / "reference").mkdir(parents=True)
    (docs / "explanation").mkdir()
    shutil.copy(_DOCS / "explanation" / "scaling.md", docs / "explanation")
    # Few devices, since their renewals are simulated.
    few = replace(load_figures(_DOCS), devices=50_000)
    (docs / "scaling.json").write_text(json.dumps(vars(few)))
    run = _a_run()
    run.begin("memory").add(
        Sizing(
            {
                "floor_https_ms": 0.5,
                "coaps_ms": 8.5,
                "octets_per_listed_device": 300,
                "octets_per_certificate": 3000,
                "lone_enrollments_per_second": 2000,
            }
        )
    )
    render(run, docs)
    assert load_figures(docs).https_ms == 7.5
    assert (
        "| one enrollment over CoAPS | 8.50 ms of CPU |"
        in (docs / "explanation" / "scaling.md").read_text()
    )


def test_what_ended_children_cost_counts() -> None:
    before = cost_of(os.getpid()).cpu
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    assert cost_of(os.getpid()).cpu - before >= 0.15


def test_a_sample_is_the_time_of_the_innermost_part() -> None:
    stacks = [
        "main (cli.py:1);respond (est_server/service.py:2);begin (est_server/stores/store.py:3) 30",
        "main (cli.py:1);respond (est_server/service.py:2);sign (rsa.py:3) 50",
        "main (cli.py:1) 20",
        "run (asyncio/base_events.py:1);EpollSelector.select (selectors.py:468) 900",
    ]
    assert shares_of(stacks) == {"stores": 30, "decision": 50, "rest": 20}
