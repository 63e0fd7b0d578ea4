"""Plots as SVG, drawn by hand: no library, and nothing to load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from est_client.simulation.report.scales import Scale

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 28, 12, 46
#: Colours that people with colour blindness tell apart (Okabe and Ito).
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f",
)  # fmt: skip
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_MOST_POINTS = 400
_MOST_DOTS = 2500


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind.

    :param name: for the legend; empty for none.
    :param points: horizontal and vertical values.
    """

    name: str
    points: Sequence[tuple[float, float]]


def colour(number: int) -> str:
    """The colour of a series."""
    return COLOURS[number % len(COLOURS)]


class Chart:
    """A plot in the making.

    :param across: the horizontal axis.
    :param upwards: the vertical axis.
    :param across_title: what the horizontal axis shows.
    :param upwards_title: what the vertical axis shows.
    :param description: what the plot shows, for those who do not see it.
    """

    def __init__(
        self,
        across: Scale,
        upwards: Scale,
        across_title: str,
        upwards_title: str,
        description: str,
    ) -> None:
        self._across = across
        self._upwards = upwards
        self._titles = (across_title, upwards_title)
        self._description = description
        self._marks: list[str] = []
        self._legend: list[tuple[str, str, str]] = []

    def _x(self, value: float) -> float:
        return _LEFT + self._across.place(value) * (_WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - self._upwards.place(value) * (_HEIGHT - _TOP - _BOTTOM)

    def line(self, series: Series, number: int, *, steps: bool = False) -> None:
        """Draw a line; with ``steps`` it keeps its height until the next point."""
        points = thinned(series.points)
        if not points:
            return
        path = [f"M{self._x(points[0][0]):.1f},{self._y(points[0][1]):.1f}"]
        for x, y in points[1:]:
            path.append(f"H{self._x(x):.1f}V{self._y(y):.1f}") if steps else path.append(
                f"L{self._x(x):.1f},{self._y(y):.1f}"
            )
        dash = _DASHES[number // len(COLOURS) % len(_DASHES)]
        self._marks.append(
            f'<path d="{"".join(path)}" fill="none" stroke="{colour(number)}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
        )
        if series.name:
            self._legend.append((series.name, colour(number), dash))

    def dots(self, series: Series, number: int, *, radius: float = 2.5) -> None:
        """Draw points."""
        every = max(1, len(series.points) // _MOST_DOTS)
        self._marks += [
            f'<circle cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="{radius}" '
            f'fill="{colour(number)}" fill-opacity="0.5"/>'
            for x, y in series.points[::every]
        ]
        if series.name:
            self._legend.append((series.name, colour(number), ""))

    def render(self) -> str:
        """The plot, with its legend below."""
        parts = [
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{escape(self._description)}">',
            *self._grid(),
            *self._marks,
            "</svg>",
        ]
        return f'<div class="plot">{"".join(parts)}{self._legend_html()}</div>'

    def _grid(self) -> list[str]:
        floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = []
        for value in self._upwards.ticks:
            y = self._y(value)
            parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(
                f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                f"{escape(self._upwards.text(value))}</text>"
            )
        for value in self._across.ticks:
            x = self._x(value)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor}"/>')
            parts.append(
                f'<text x="{x:.1f}" y="{floor + 16}" text-anchor="middle">'
                f"{escape(self._across.text(value))}</text>"
            )
        middle = (_TOP + floor) / 2
        parts.append(
            f'<text class="title" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" '
            f'text-anchor="middle">{escape(self._titles[0])}</text>'
        )
        parts.append(
            f'<text class="title" transform="translate(14,{middle}) rotate(-90)" '
            f'text-anchor="middle">{escape(self._titles[1])}</text>'
        )
        return parts

    def _legend_html(self) -> str:
        if len(self._legend) < 2:
            return ""
        return legend([(name, tint) for name, tint, _dash in self._legend])


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names with their colours."""
    items = "".join(
        f'<span><i style="background:{tint}"></i>{escape(name)}</span>' for name, tint in entries
    )
    return f'<div class="legend">{items}</div>'


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of several parts.

    :param name: what it stands for.
    :param parts: colour and size of each part.
    """

    name: str
    parts: Sequence[tuple[str, float]]

    @property
    def total(self) -> float:
        """Its length."""
        return sum(size for _, size in self.parts)


def bars(rows: Sequence[Bar], scale: Scale, title: str, description: str) -> str:
    """Horizontal bars below one another."""
    left = min(260, 20 + 7 * max(len(bar.name) for bar in rows))
    thickness, gap = 18, 8
    height = _TOP + len(rows) * (thickness + gap) + _BOTTOM
    width = _WIDTH - left - 70
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(description)}">']
    floor = height - _BOTTOM
    for value in scale.ticks:
        x = left + scale.place(value) * width
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{floor + 16}" text-anchor="middle">'
            f"{escape(scale.text(value))}</text>"
        )
    for row, bar in enumerate(rows):
        y = _TOP + row * (thickness + gap) + gap / 2
        parts.append(
            f'<text x="{left - 8}" y="{y + thickness / 2 + 4:.1f}" text-anchor="end">'
            f"{escape(bar.name)}</text>"
        )
        x = float(left)
        for tint, size in bar.parts:
            length = scale.place(size) * width
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(length, 0):.1f}" '
                f'height="{thickness}" fill="{tint}"/>'
            )
            x += length
        parts.append(
            f'<text x="{x + 6:.1f}" y="{y + thickness / 2 + 4:.1f}">'
            f"{escape(scale.text(float(f'{bar.total:.4g}')))}</text>"
        )
    parts.append(
        f'<text class="title" x="{left + width / 2:.0f}" y="{height - 8}" text-anchor="middle">'
        f"{escape(title)}</text></svg>"
    )
    return f'<div class="plot">{"".join(parts)}</div>'


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most a few hundred points, the first and the last among them."""
    if len(points) <= _MOST_POINTS:
        return points
    step = (len(points) - 1) / (_MOST_POINTS - 1)
    return [points[round(i * step)] for i in range(_MOST_POINTS)]
