"""The page that shows a run: a table, and a plot for each series."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib

from tests.benchmarks.figures import Run, Series, cells

matplotlib.use("svg")
from matplotlib import pyplot

_HEAD = """\
# Performance

Measured by `make bench`: the real server on one core, load generators on the other, everything on
loopback. CPU time is the server's, all its processes, from the operating system's books; a floor
is what our own (D)TLS engine and one certificate cost without a server around them, measured in
the same run. Machines are noisy: compare ratios, not microseconds. Raw figures:
[performance.json](performance.json).

"""


def render(run: Run, directory: Path) -> None:
    """Write ``performance.md``, its raw figures and its plots into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    run.write(directory / "performance.json")
    lines = [_HEAD]
    lines += [f"- {name}: {value}\n" for name, value in run.machine.items()]
    lines.append("\n| what | figure | floor | ratio | target | reached | how |\n")
    lines.append("|---|---|---|---|---|---|---|\n")
    lines += [f"| {' | '.join(cells(figure))} |\n" for figure in run.figures]
    for series in run.series:
        name = f"performance-{_slug(series)}.svg"
        _plot(series, directory / name)
        lines.append(f"\n![{series.name} over {series.x}]({name})\n")
    (directory / "performance.md").write_text("".join(lines))


def _slug(series: Series) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{series.name} {series.x}".lower()).strip("-")


def _plot(series: Series, path: Path) -> None:
    matplotlib.rcParams["svg.hashsalt"] = "performance"
    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    axes.plot(*zip(*series.points, strict=True), marker="o", markersize=3)
    axes.set(title=series.name, xlabel=series.x, ylabel=series.y, ylim=(0, None))
    if series.log_x:
        axes.set_xscale("log")
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
