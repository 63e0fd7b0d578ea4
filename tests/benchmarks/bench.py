"""What the measurements share: how much is measured, and the servers and devices for it."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tests.benchmarks.accounting import on_cores
from tests.benchmarks.deployment import SERVER_CORES, Deployment, RunningServer, deploy, running
from tests.benchmarks.devices import Device, Manufacturer
from tests.benchmarks.figures import Figure
from tests.benchmarks.floor import Floors, measure_floors
from tests.benchmarks.generators import Generators, Load, Measured

#: Microseconds in a second.
MICRO = 1e6


@dataclass(frozen=True)
class Size:
    """How much is measured.

    :param enrollments: of each kind of load.
    :param listed: devices on the list.
    :param list_sizes: of the comparison over the size of the list.
    :param generators: processes that make the load.
    :param floor_rounds: how often a floor is measured.
    :param idle: connections, and sessions, that are held; all together fewer than the usual
        20,000 open files of a process.
    :param imports: rows of the lists of hashes, and of whole keys, that are imported.
    :param beside_libest: enrollments at libest's server; the file that it lists them in is read
        and written whole for each, so that many would make it slower.
    :param endurance: enrollments in the long run.
    """

    enrollments: int
    listed: int
    list_sizes: tuple[int, ...]
    generators: int
    floor_rounds: int
    idle: int
    imports: int
    beside_libest: int
    endurance: int


FULL = Size(
    enrollments=4000,
    listed=1_000_000,
    list_sizes=(10_000, 100_000, 1_000_000, 10_000_000),
    generators=8,
    floor_rounds=400,
    idle=9_900,
    imports=1_000_000,
    beside_libest=200,
    endurance=100_000,
)
QUICK = Size(
    enrollments=100,
    listed=1_000,
    list_sizes=(100, 1_000),
    generators=4,
    floor_rounds=50,
    idle=20,
    imports=20_000,
    beside_libest=20,
    endurance=1_000,
)


class Bench:
    """One run's devices, generators and scratch directory."""

    def __init__(self, size: Size, scratch: Path, generators: Generators) -> None:
        self.size = size
        self.scratch = scratch
        self._generators = generators
        self.manufacturer = Manufacturer.new()
        self._numbers = itertools.count()

    def devices(self, count: int, csr_key_kind: str = "ec-p256") -> list[Device]:
        """Fresh devices."""
        make = self.manufacturer.make_device
        return [make(next(self._numbers), csr_key_kind) for _ in range(count)]

    def deploy(self, devices: list[Device], listed: int, *init: str) -> Deployment:
        """A fresh server that lists ``devices`` among ``listed``."""
        directory = self.scratch / f"server-{next(self._numbers)}"
        return deploy(directory, self.manufacturer, devices, listed, *init)

    def run(
        self, load: Load, server: RunningServer, devices: list[Device], root: x509.Certificate
    ) -> Measured:
        """Put ``load`` on a server that is running."""
        return self._generators.run(load, server, devices, root)

    def floors(self, csr: bytes | None = None, *, alone: bool = False) -> Floors:
        """The floors on the server's core, while the generators are as busy as under a load.

        :param csr: see :func:`~tests.benchmarks.floor.measure_floors`.
        :param alone: whether they are to be idle.
        """
        rounds = self.size.floor_rounds // 2
        with nullcontext() if alone else self._generators.keeping_busy(), on_cores(SERVER_CORES):
            return measure_floors(rounds, csr)

    def measure(
        self, load: Load, deployment: Deployment, devices: list[Device], *options: str
    ) -> tuple[Measured, Floors]:
        """Start the server, put ``load`` on it, and measure the floors right before and after."""
        root = deployment.root
        # The first requests of a process pay for imports; they are not counted.
        first, rest = devices[: self.size.generators], devices[self.size.generators :]
        before = self.floors(rest[0].csr)
        with running(deployment, *options) as server:
            self._generators.run(load, server, first, root)
            measured = self._generators.run(load, server, rest, root)
        after = self.floors(rest[0].csr)
        return measured, before.mean_with(after)


def compared(what: str, measured: Measured, floor: float, target: float | None = None) -> Figure:
    """The server's CPU time for an enrollment, beside a floor in seconds."""
    return Figure(
        what,
        measured.cpu_each * MICRO,
        "us CPU",
        floor=floor * MICRO,
        target=target,
        note=f"{measured.rate:,.0f}/s with the generators on the other core",
    )
