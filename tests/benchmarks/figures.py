"""What measurements find, and how a run of them is written down."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
class Plot:
    """Points to be drawn.

    :param lines: pairs of x and y, by what they are of.
    :param log_x: whether the x axis is logarithmic.
    :param bars: names of the places 0, 1, ... on the x axis, for bars in place of lines.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False
    bars: Sequence[str] = ()


@dataclass(frozen=True)
class Remark:
    """A sentence that readers need beside the figures, such as why there are none."""

    text: str


@dataclass(frozen=True)
class Sizing:
    """Values for the arithmetic in ``docs/scaling.json``, by the names there."""

    values: Mapping[str, float]


Found = Figure | Plot | Remark | Sizing


@dataclass
class Measurement:
    """All that one measurement found."""

    figures: list[Figure] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    sizing: dict[str, float] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        """Take over what was found, and show it."""
        match found:
            case Figure():
                self.figures.append(found)
                print("  " + " | ".join(cell for cell in cells(found) if cell), flush=True)
            case Plot():
                self.plots.append(found)
            case Remark():
                self.remarks.append(found.text)
                print(f"  {found.text}", flush=True)
            case Sizing():
                self.sizing.update(found.values)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Measurement:
        """What :meth:`Run.write` wrote of one."""
        return cls(
            [Figure(**figure) for figure in said["figures"]],
            [Plot(**plot) for plot in said["plots"]],
            said["remarks"],
            said["sizing"],
        )


@dataclass
class Run:
    """All that was measured on one machine, by the names of the measurements."""

    machine: dict[str, str]
    measurements: dict[str, Measurement] = field(default_factory=dict)

    @classmethod
    def here(cls) -> Run:
        """An empty run on this machine."""
        return cls(
            {
                "date": datetime.now(UTC).date().isoformat(),
                "processor": _processor(),
                "python": platform.python_version(),
                "OpenSSL": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode().removeprefix("OpenSSL "),
                **{name: version(name) for name in _LIBRARIES},
            }
        )

    def begin(self, name: str) -> Measurement:
        """Start a measurement anew."""
        self.measurements[name] = Measurement()
        return self.measurements[name]

    def go_on_from(self, path: Path) -> None:
        """Take over what an earlier part of the run wrote.

        :raises ValueError: that was another day, or another machine.
        """
        earlier = Run.read(path)
        if earlier.machine != self.machine:
            raise ValueError(f"{path} is of another machine or day: {earlier.machine}")
        self.measurements = earlier.measurements

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Run:
        """A run that :meth:`write` wrote."""
        said = json.loads(path.read_text())
        measurements = said["measurements"].items()
        return cls(said["machine"], {name: Measurement.of(each) for name, each in measurements})


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
