"""The page that shows a run: a table for each measurement, and its plots."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from inspect import getdoc
from pathlib import Path
from typing import Any

import matplotlib

from docs import scaling_page
from tests.benchmarks.catalog import SCENARIOS
from tests.benchmarks.figures import Measurement, Plot, Run, cells

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

_HEAD = """\
# Performance

Measured by `make bench`: the real server on one core, load generators on the other, everything on
loopback. CPU time is the server's, all its processes, from the operating system's books. A floor
is what the figure is compared with, measured in the same run: where nothing else is said, what our
own (D)TLS engine and one certificate cost without a server around them. Machines are noisy:
compare ratios, not microseconds. Raw figures: [performance.json](performance.json).

"""
_WRITTEN = re.compile(r"<!-- remarks -->\n.*?<!-- end -->\n", re.DOTALL)
_COLUMNS = (
    "| what | figure | floor | ratio | target | reached | how |\n|---|---|---|---|---|---|---|\n"
)
_AIMS = "| what | figure | ratio | target | reached |\n|---|---|---|---|---|\n"


def render(run: Run, docs: Path) -> None:
    """Write the page, its raw figures and its plots, and the figures that sizing goes by."""
    directory = docs / "reference"
    for old in directory.glob("performance-*.svg"):
        old.unlink()
    page = directory / "performance.md"
    run.write(directory / "performance.json")
    lines = [_HEAD, *(f"- {name}: {value}\n" for name, value in run.machine.items()), "\n"]
    lines += ["## Targets\n\n", *_targets(run), "\n", _remarks(page)]
    for name in SCENARIOS:
        if name in run.measurements:
            lines += _section(name, run.measurements[name], directory)
    page.write_text("".join(lines))
    _write_sizing(run, docs)


def _targets(run: Run) -> Iterator[str]:
    yield _AIMS
    figures = [figure for each in run.measurements.values() for figure in each.figures]
    for figure in figures:
        if figure.target is not None:
            what, value, _, ratio, target, reached, _ = cells(figure)
            yield f"| {what} | {value} | {ratio} | {target} | {reached} |\n"


def _remarks(page: Path) -> str:
    """What people have written on the page between two marks, which stays there."""
    found = _WRITTEN.search(page.read_text()) if page.exists() else None
    return found[0] if found else "<!-- remarks -->\n<!-- end -->\n"


def _section(name: str, measurement: Measurement, directory: Path) -> Iterator[str]:
    yield f"\n## {name.replace('-', ' ').capitalize()}\n\n{getdoc(SCENARIOS[name])}\n"
    for remark in measurement.remarks:
        yield f"\n{remark}\n"
    if measurement.figures:
        yield f"\n{_COLUMNS}"
    for figure in measurement.figures:
        yield f"| {' | '.join(cells(figure))} |\n"
    for number, plot in enumerate(measurement.plots, start=1):
        file = f"performance-{name}-{number}.svg"
        _draw(plot, directory / file)
        yield f"\n![{plot.title} over {plot.x}]({file})\n"


def _draw(plot: Plot, path: Path) -> None:
    # The same figures make the same file.
    matplotlib.rcParams["svg.hashsalt"] = "performance"
    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    if plot.bars:
        _draw_bars(plot, axes)
    else:
        _draw_lines(plot, axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_ylim(0, 1.08 * max(y for points in plot.lines.values() for _, y in points))
    if len(plot.lines) > 1:
        axes.legend()
    axes.grid(alpha=0.3, axis="y" if plot.bars else "both")
    axes.set_axisbelow(True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw_bars(plot: Plot, axes: Axes) -> None:
    width = 0.8 / len(plot.lines)
    for number, (name, points) in enumerate(plot.lines.items()):
        xs, ys = zip(*points, strict=True)
        axes.bar([x + (number + 0.5) * width - 0.4 for x in xs], ys, width * 0.95, label=name)
    axes.set_xticks(range(len(plot.bars)), plot.bars)


def _draw_lines(plot: Plot, axes: Axes) -> None:
    for name, points in plot.lines.items():
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, marker="o" if len(xs) < 50 else None, markersize=4, label=name)
    if plot.log_x:
        axes.set_xscale("log")
        axes.set_xticks(xs, [f"{x:,.0f}" for x in xs])
        axes.minorticks_off()
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter("{x:,.0f}")


def _write_sizing(run: Run, docs: Path) -> None:
    """Renew ``scaling.json`` and the page that follows from it, once all of it is measured."""
    values: dict[str, Any] = {}
    for measurement in run.measurements.values():
        values |= measurement.sizing
    earlier = scaling_page.load_figures(docs)
    known = {field.name for field in fields(earlier)} - {"measured", "devices"}
    if set(values) != known:
        print(f"scaling.json stays as it is; not measured: {', '.join(known - set(values))}")
        return
    where = f"{run.machine['date']}, on one core of {run.machine['processor']}"
    figures = replace(earlier, measured=where, **values)
    (docs / "scaling.json").write_text(json.dumps(vars(figures), indent=2) + "\n")
    page = docs / "explanation" / "scaling.md"
    page.write_text(scaling_page.with_tables(page.read_text(), figures))
