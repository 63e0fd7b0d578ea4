"""How a run is going, while it runs."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType
from typing import Any, Self, TextIO

from est_client.simulation.device import Outcome, SimulatedDevice

#: Seconds between two lines where there is no terminal to draw on.
_INTERVAL = 5.0


class Progress:
    """Is told of every device whose outcome changes; a context manager. This one shows nothing."""

    def __enter__(self) -> Self:
        """Begin to show."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Show no more."""

    def __call__(self, device: SimulatedDevice, now: float) -> None:
        """Note that a device's outcome has changed."""


class Counts:
    """How many devices are where."""

    def __init__(self, devices: int) -> None:
        self.devices = devices
        self.began = time.monotonic()
        self.now = 0.0
        self._outcomes: dict[str, Outcome] = {}
        self._counts: Counter[Outcome] = Counter()

    def note(self, device: SimulatedDevice, now: float) -> None:
        """Note that a device's outcome has changed."""
        self.now = now
        before = self._outcomes.get(device.factory.udid)
        if before is not None:
            self._counts[before] -= 1
        outcome = device.life.outcome
        self._outcomes[device.factory.udid] = outcome
        self._counts[outcome] += 1

    def count(self, outcome: Outcome) -> int:
        """How many devices have come to this."""
        return self._counts[outcome]

    @property
    def done(self) -> int:
        """How many devices have a certificate or have given up."""
        return self._counts[Outcome.ENROLLED] + self._counts[Outcome.FAILED]

    @property
    def rate(self) -> float:
        """Devices done per second of real time."""
        return self.done / max(time.monotonic() - self.began, 1e-6)

    @property
    def line(self) -> str:
        """All of it in one line."""
        left = f"{(self.devices - self.done) / self.rate:.0f} s left, " if self.done else ""
        return (
            f"{self.done}/{self.devices} devices: {self.count(Outcome.ENROLLED)} enrolled, "
            f"{self.count(Outcome.ENROLLING)} at it, {self.count(Outcome.FAILED)} failed, "
            f"{self.rate:.0f}/s, {left}simulated {self.now:.0f} s"
        )


class Lines(Progress):
    """A line now and then; for logs."""

    def __init__(self, devices: int, out: TextIO | None = None) -> None:
        self._counts = Counts(devices)
        self._out = out or sys.stderr
        self._shown = self._counts.began

    def __call__(self, device: SimulatedDevice, now: float) -> None:
        """Note that a device's outcome has changed."""
        self._counts.note(device, now)
        if time.monotonic() - self._shown > _INTERVAL:
            self._shown = time.monotonic()
            print(self._counts.line, file=self._out, flush=True)


class Live(Progress):
    """A bar with counts, rate and time left; drawn by rich, four times a second.

    :param rich: the package.
    """

    def __init__(self, devices: int, title: str, rich: Any) -> None:
        self._counts = Counts(devices)
        progress = rich.progress
        self._progress = progress.Progress(
            progress.TextColumn("[bold]{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn(
                "[green]{task.fields[enrolled]} enrolled[/] [yellow]{task.fields[enrolling]} at "
                "it[/] [red]{task.fields[failed]} failed[/] {task.fields[rate]:.0f}/s"
            ),
            progress.TimeRemainingColumn(),
            progress.TextColumn("simulated {task.fields[simulated]:.0f} s"),
            console=rich.console.Console(stderr=True),
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(
            title, total=devices, enrolled=0, enrolling=0, failed=0, rate=0.0, simulated=0.0
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def __call__(self, device: SimulatedDevice, now: float) -> None:
        """Note that a device's outcome has changed."""
        counts = self._counts
        counts.note(device, now)
        self._progress.update(
            self._task,
            completed=counts.done,
            enrolled=counts.count(Outcome.ENROLLED),
            enrolling=counts.count(Outcome.ENROLLING),
            failed=counts.count(Outcome.FAILED),
            rate=counts.rate,
            simulated=now,
        )


def progress_for(devices: int, title: str, *, quiet: bool = False) -> Progress:
    """What suits: a live bar on a terminal where rich is installed, lines elsewhere."""
    if quiet:
        return Progress()
    if sys.stderr.isatty():
        try:
            import rich.console
            import rich.progress
        except ImportError:
            return Lines(devices)
        return Live(devices, title, rich)
    return Lines(devices)
