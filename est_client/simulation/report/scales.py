"""Axes: from values to places on a page, and where their marks go."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from est_client.simulation.outputs import seconds as time_text

_SECOND_STEPS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600,
    1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000, 864000, 1728000, 5184000,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis.

    :param low: the value at its begin.
    :param high: the value at its end.
    :param ticks: values to mark.
    :param text: how to write a value.
    :param logarithmic: whether equal ratios are equally far apart.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    text: Callable[[float], str]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        if self.logarithmic:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def count_scale(values: Iterable[float]) -> Scale:
    """An axis from 0 for counts and sizes."""
    top = max([0.0, *values]) or 1.0
    step = nice_step(top / 5)
    high = math.ceil(top / step - 1e-9) * step
    ticks = tuple(step * i for i in range(round(high / step) + 1))
    return Scale(0.0, high, ticks, number_text)


def share_scale() -> Scale:
    """An axis from 0 to 100 %."""
    return Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), lambda value: f"{value:.0%}")


def value_scale(values: Iterable[float], text: Callable[[float], str] | None = None) -> Scale:
    """An axis around values that need not begin at 0."""
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    if high == low:
        low, high = low - 0.5, high + 0.5
    step = nice_step((high - low) / 5)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    ticks = tuple(low + step * i for i in range(round((high - low) / step) + 1))
    return Scale(low, high, ticks, text or number_text)


def time_scale(values: Iterable[float], *, from_zero: bool) -> Scale:
    """An axis of seconds; logarithmic where they differ by much and 0 is not wanted."""
    found = [value for value in values if value > 0] or [1.0]
    low, high = min(found), max(found)
    if not from_zero and high / low > 20:
        low, high = 10 ** math.floor(math.log10(low)), high * 1.1
        ticks = tuple(t for t in _SECOND_STEPS if low <= t <= high)
        while len(ticks) > 9:
            ticks = ticks[::2]
        return Scale(low, high, ticks, time_text, logarithmic=True)
    step = next((s for s in _SECOND_STEPS if high / s <= 6), nice_step(high / 6))
    count = max(1, math.ceil(high / step - 1e-9))
    return Scale(0.0, step * count, tuple(step * i for i in range(count + 1)), time_text)


def nice_step(rough: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))


def number_text(value: float) -> str:
    """A number for people: ``1.5``, ``20``, ``3.4k``."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}"
