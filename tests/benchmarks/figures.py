"""What a measurement finds, and how a run of them is written down."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from OpenSSL import SSL

_LIBRARIES = ("cryptography", "pyOpenSSL", "aiohttp", "aiocoap")


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    :param what: what was measured.
    :param value: the figure, in ``unit``.
    :param floor: what it is compared with, in the same unit; measured beside it.
    :param target: the ratio or value that is aimed at; ``None`` where there is none.
    :param at_least: whether more is better.
    :param note: how it came about, in a few words.
    """

    what: str
    value: float
    unit: str
    floor: float | None = None
    target: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The value over its floor."""
        return None if self.floor is None else self.value / self.floor

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; ``None`` if there is none."""
        if self.target is None:
            return None
        judged = self.value if self.ratio is None else self.ratio
        return judged >= self.target if self.at_least else judged <= self.target


@dataclass(frozen=True)
class Series:
    """Points of a plot.

    :param points: pairs of x and y.
    :param log_x: whether the x axis is logarithmic.
    """

    name: str
    x: str
    y: str
    points: Sequence[tuple[float, float]]
    log_x: bool = False


@dataclass
class Run:
    """All that one run found, and where."""

    figures: list[Figure] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)

    @classmethod
    def here(cls) -> Run:
        """An empty run on this machine."""
        return cls(
            machine={
                "date": datetime.now(UTC).date().isoformat(),
                "processor": _processor(),
                "python": platform.python_version(),
                "OpenSSL": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode().removeprefix("OpenSSL "),
                **{name: version(name) for name in _LIBRARIES},
            }
        )

    def add(self, *found: Figure | Series) -> None:
        """Take over what a measurement found, and show it."""
        for item in found:
            if isinstance(item, Series):
                self.series.append(item)
            else:
                self.figures.append(item)
                print("  " + " | ".join(cell for cell in cells(item) if cell), flush=True)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Run:
        """A run that :meth:`write` wrote."""
        said = json.loads(path.read_text())
        return cls(
            [Figure(**figure) for figure in said["figures"]],
            [Series(**{**s, "points": [tuple(p) for p in s["points"]]}) for s in said["series"]],
            said["machine"],
        )


def cells(figure: Figure) -> tuple[str, ...]:
    """What, figure, floor, ratio, target, whether it is reached, and the note."""
    sign = "≥" if figure.at_least else "≤"
    target = "" if figure.target is None else f"{sign} {_number(figure.target)}"
    return (
        figure.what,
        f"{_number(figure.value)} {figure.unit}",
        "" if figure.floor is None else f"{_number(figure.floor)} {figure.unit}",
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        target,
        {True: "yes", False: "no", None: ""}[figure.reached],
        figure.note,
    )


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
