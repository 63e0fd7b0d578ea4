"""The measurements. Each finds figures, beside the floor that was measured at the same moment."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tests.benchmarks import lists
from tests.benchmarks.deployment import Deployment, RunningServer, deploy, running
from tests.benchmarks.devices import Device, Manufacturer
from tests.benchmarks.figures import Figure, Series
from tests.benchmarks.floor import Floors, measure_floors, measure_primitives
from tests.benchmarks.generators import Generators, Load, Measured

#: Microseconds in a second.
MICRO = 1e6

#: What a lookup in a long list is compared with.
_FEW = 10_000


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
    :param imports: lists to import: what is on them, rows, and whether those are whole keys.
    """

    enrollments: int
    listed: int
    list_sizes: tuple[int, ...]
    generators: int
    floor_rounds: int
    idle: int
    imports: tuple[tuple[str, int, bool], ...]


FULL = Size(
    4000,
    1_000_000,
    (10_000, 100_000, 1_000_000, 10_000_000),
    8,
    400,
    9_900,
    (("hashes", 1_000_000, False), ("keys", 1_000_000, True), ("hashes", 10_000_000, False)),
)
QUICK = Size(
    100, 1_000, (100, 1_000), 4, 50, 20, (("hashes", 20_000, False), ("keys", 20_000, True))
)


class Bench:
    """One run's devices, generators and scratch directory."""

    def __init__(self, size: Size, scratch: Path, generators: Generators) -> None:
        self.size = size
        self.scratch = scratch
        self._generators = generators
        self._manufacturer = Manufacturer.new()
        self._numbers = itertools.count()

    def devices(self, count: int, csr_key_kind: str = "ec-p256") -> list[Device]:
        """Fresh devices."""
        make = self._manufacturer.make_device
        return [make(next(self._numbers), csr_key_kind) for _ in range(count)]

    def deploy(self, devices: list[Device], listed: int, *init: str) -> Deployment:
        """A fresh server that lists ``devices`` among ``listed``."""
        directory = self.scratch / f"server-{next(self._numbers)}"
        return deploy(directory, self._manufacturer, devices, listed, *init)

    def run(
        self, load: Load, server: RunningServer, devices: list[Device], root: x509.Certificate
    ) -> Measured:
        """Put ``load`` on a server that is running."""
        return self._generators.run(load, server, devices, root)

    def measure(
        self, load: Load, deployment: Deployment, devices: list[Device], *options: str
    ) -> tuple[Measured, Floors]:
        """Start the server, put ``load`` on it, and measure the floors right before and after."""
        root = deployment.root
        # The first requests of a process pay for imports; they are not counted.
        first, rest = devices[: self.size.generators], devices[self.size.generators :]
        before = measure_floors(self.size.floor_rounds // 2)
        with running(deployment, *options) as server:
            self._generators.run(load, server, first, root)
            measured = self._generators.run(load, server, rest, root)
        after = measure_floors(self.size.floor_rounds // 2)
        return measured, Floors(
            *((a + b) / 2 for a, b in zip(_values(before), _values(after), strict=True))
        )


def floors(bench: Bench) -> Iterator[Figure]:
    """The floors themselves."""
    measured = measure_floors(bench.size.floor_rounds)
    primitives = measure_primitives(bench.size.floor_rounds)
    yield Figure("bare primitives, for information", primitives * MICRO, "us CPU")
    yield Figure("floor: TLS 1.3 handshake", measured.tls * MICRO, "us CPU")
    yield Figure("floor: DTLS 1.2 handshake, CCM_8", measured.dtls * MICRO, "us CPU")
    yield Figure("floor: request and certificate", measured.certificate * MICRO, "us CPU")


def enrollment(bench: Bench) -> Iterator[Figure | Series]:
    """A new channel per enrollment, on both transports."""
    count = bench.size.enrollments + bench.size.generators
    loads = [Load("https"), Load("coaps", 5), Load("coaps", 2)]
    devices = [bench.devices(count) for _ in loads]
    deployment = bench.deploy([d for some in devices for d in some], bench.size.listed)
    yield Figure(
        "import of the device list",
        deployment.import_rows / deployment.import_seconds,
        "rows/s",
        note=f"{deployment.import_rows:,} rows, the command from start to end",
    )
    https, floor = bench.measure(loads[0], deployment, devices[0])
    yield _against("HTTPS, new connection, TLS 1.3", https, floor.https, 1.9)
    yield Series(
        "latency of enrollments over HTTPS",
        "share of enrollments",
        "ms",
        [(share / 100, https.quantile(share / 100) * 1e3) for share in range(1, 100)],
    )
    wide, floor = bench.measure(loads[1], deployment, devices[1])
    yield _against("CoAPS, new session, crts + sen, blocks of 512", wide, floor.coaps, 2.5)
    narrow, _ = bench.measure(loads[2], deployment, devices[2])
    more = (narrow.exchanges - wide.exchanges) / wide.enrollments
    yield Figure(
        "CoAPS, each further block of 64",
        (narrow.cpu_each - wide.cpu_each) / more * MICRO,
        "us CPU",
        target=60,
        note=f"{more:.0f} blocks more per enrollment",
    )


def block_sizes(bench: Bench) -> Iterator[Series]:
    """The cost of an enrollment over the block size."""
    count = bench.size.enrollments // 4 + bench.size.generators
    points = []
    for exponent in (1, 2, 3, 4, 5, 6):
        devices = bench.devices(count)
        deployment = bench.deploy(devices, len(devices))
        measured, _ = bench.measure(Load("coaps", exponent), deployment, devices)
        points.append((float(16 << exponent), measured.cpu_each * MICRO))
    yield Series(
        "server CPU of an enrollment over CoAPS", "octets in a block", "us", points, log_x=True
    )


def list_sizes(bench: Bench) -> Iterator[Figure | Series]:
    """The cost of an enrollment over the size of the device list."""
    count = bench.size.enrollments // 4 + bench.size.generators
    points = []
    for listed in bench.size.list_sizes:
        devices = bench.devices(count)
        deployment = bench.deploy(devices, listed)
        measured, _ = bench.measure(Load("https"), deployment, devices)
        points.append((float(listed), measured.cpu_each * MICRO))
    (fewest, low), (most, high) = points[0], points[-1]
    yield Figure(
        f"HTTPS enrollment with {most:,.0f} devices listed",
        high,
        "us CPU",
        floor=low,
        note=f"floor: with {fewest:,.0f}",
    )
    yield Series(
        "server CPU of an enrollment over HTTPS", "devices listed", "us", points, log_x=True
    )


def list_import(bench: Bench) -> Iterator[Figure]:
    """The import of signed lists of hashes and of whole keys."""
    for what, rows, whole_keys in bench.size.imports:
        path = bench.scratch / "list.csv"
        lists.write_list(path, rows, whole_keys=whole_keys)
        deployment = bench.deploy([], 0)
        imported = lists.import_signed(deployment.config, path)
        plain = lists.plain_seconds(path, bench.scratch / "plain.sqlite")
        yield Figure(
            f"signed import of {rows:,} {what}",
            rows / imported.seconds,
            "rows/s",
            # A short list says more of how long the command takes to start.
            target=100_000 if rows >= 1_000_000 else None,
            at_least=True,
            note=f"{imported.cpu_seconds:.1f} s CPU; the csv module and sqlite3 with nothing "
            f"checked or signed: {rows / plain:,.0f} rows/s",
        )
        yield Figure(f"memory to import {rows:,} {what}", imported.peak_megabytes, "MB", target=200)
        for file in bench.scratch.glob("plain.sqlite*"):
            file.unlink()
        if not whole_keys:
            yield _lookup(bench, deployment.config, rows)


def _lookup(bench: Bench, config: Path, rows: int) -> Figure:
    """What it takes to find one of many devices, beside one of few at the same moment."""
    path = bench.scratch / "few.csv"
    lists.write_list(path, _FEW, whole_keys=False)
    few = bench.deploy([], 0)
    lists.import_signed(few.config, path)
    return Figure(
        f"lookup of one of {rows:,} devices",
        lists.lookup_seconds(config, rows) * MICRO,
        "us",
        floor=lists.lookup_seconds(few.config, _FEW) * MICRO,
        target=1.5,
        note=f"floor: one of {_FEW:,}; with an integrity key, keys in no order",
    )


def key_kinds(bench: Bench) -> Iterator[Figure]:
    """The cost of an enrollment by the kind of the key that is certified."""
    count = bench.size.enrollments // 8 + bench.size.generators
    for kind in ("ec-p256", "ec-p384", "ed25519", "rsa-2048"):
        devices = bench.devices(count, kind)
        deployment = bench.deploy(devices, len(devices))
        measured, floor = bench.measure(Load("https"), deployment, devices)
        yield Figure(
            f"HTTPS, certificate for a key {kind}",
            measured.cpu_each * MICRO,
            "us CPU",
            note=f"beside a floor of {floor.https * MICRO:,.0f} us for ec-p256",
        )


def _against(what: str, measured: Measured, floor: float, target: float) -> Figure:
    return Figure(
        what,
        measured.cpu_each * MICRO,
        "us CPU",
        floor=floor * MICRO,
        target=target,
        note=f"{measured.rate:,.0f}/s with the generators on the other core",
    )


def _values(floors: Floors) -> tuple[float, float, float]:
    return floors.tls, floors.dtls, floors.certificate
