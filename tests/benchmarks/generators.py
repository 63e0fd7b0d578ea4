"""Load generators in processes of their own, so that none of their work is the server's."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol.secure_channel.policy import DtlsPolicy, TlsPolicy, TlsVersion
from tests.benchmarks import load_coaps, load_https
from tests.benchmarks.accounting import cost_of, idle
from tests.benchmarks.deployment import RunningServer
from tests.benchmarks.devices import Device, read_devices, write_devices
from tests.benchmarks.floor import measure_primitives

#: RFC 9148's mandatory suite alone.
CCM_8 = DtlsPolicy(ciphers="ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0")


@dataclass(frozen=True)
class Load:
    """What generators do.

    :param kind: ``https``, ``https-1.2``, ``https-one-connection`` or ``coaps``.
    :param block_exponent: SZX of the blocks, for ``coaps``.
    :param rate: enrollments begun per second and generator; ``None`` for as many as go.
    """

    kind: str
    block_exponent: int = 5
    rate: float | None = None


@dataclass(frozen=True)
class Measured:
    """What a load cost and how long its enrollments took.

    :param server_cpu: CPU seconds of the server.
    :param generator_cpu: CPU seconds of the generators.
    :param wall: seconds from the first to the last.
    :param exchanges: CoAP exchanges, all together.
    :param idle: seconds of the generators' cores, all together, that nobody used meanwhile.
    """

    enrollments: int
    server_cpu: float
    generator_cpu: float
    wall: float
    latencies: Sequence[float] = field(repr=False)
    exchanges: int = 0
    idle: float = 0.0

    @property
    def cpu_each(self) -> float:
        """CPU seconds of the server per enrollment."""
        return self.server_cpu / self.enrollments

    @property
    def rate(self) -> float:
        """Enrollments per second."""
        return self.enrollments / self.wall

    def quantile(self, share: float) -> float:
        """The latency that ``share`` of the enrollments stayed below."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class _Order:
    load: Load
    port: int
    devices: Path
    root: bytes
    cores: Sequence[int]
    begin_at: float


@dataclass(frozen=True)
class _Result:
    latencies: list[float]
    exchanges: int
    cpu: float
    ended_at: float
    idle_before: float
    idle_after: float


class Generators:
    """Processes that wait for work; a context manager.

    :param count: how many.
    :param cores: where they run.
    """

    def __init__(self, count: int, scratch: Path, cores: Sequence[int] = (1,)) -> None:
        self._count = count
        self._scratch = scratch
        self._cores = cores
        self._pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Generators:
        for _ in self._pool.map(_warm_up, range(4 * self._count)):
            pass
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    @contextmanager
    def keeping_busy(self) -> Iterator[None]:
        """Keep their cores as busy as a load does, for what is to be compared with one under it.

        Cores that share a cache, or are two threads of one, are slower together.
        """
        stop = self._scratch / "stop"
        stop.unlink(missing_ok=True)
        busy = [self._pool.submit(_keep_busy, core, stop) for core in self._cores]
        try:
            yield
        finally:
            stop.touch()
            for each in busy:
                each.result()

    def run(
        self, load: Load, server: RunningServer, devices: Sequence[Device], root: x509.Certificate
    ) -> Measured:
        """Let all of them enroll ``devices``, each its share, and read the server's books."""
        port = server.coaps_port if load.kind == "coaps" else server.https_port
        shares = [list(devices[start :: self._count]) for start in range(self._count)]
        orders = []
        began_at = time.time() + 0.2 + len(devices) / 20_000
        for number, share in enumerate(shares):
            path = self._scratch / f"share-{number}.pickle"
            write_devices(share, path)
            der = root.public_bytes(Encoding.DER)
            orders.append(_Order(load, port, path, der, self._cores, began_at))
        before = server.cost()
        results = list(self._pool.map(_generate, orders))
        after = server.cost()
        return Measured(
            enrollments=len(devices),
            server_cpu=after.cpu - before.cpu,
            generator_cpu=sum(result.cpu for result in results),
            wall=max(result.ended_at for result in results) - began_at,
            latencies=[latency for result in results for latency in result.latencies],
            exchanges=sum(result.exchanges for result in results),
            idle=max(r.idle_after for r in results) - min(r.idle_before for r in results),
        )


def _warm_up(_: int) -> None:
    time.sleep(0.05)


def _keep_busy(core: int, stop: Path) -> None:
    os.sched_setaffinity(0, (core,))
    while not stop.exists():
        measure_primitives(20)


def _generate(order: _Order) -> _Result:
    os.sched_setaffinity(0, order.cores)
    devices = read_devices(order.devices)
    time.sleep(max(0.0, order.begin_at - time.time()))
    before, idle_before = cost_of(os.getpid()).cpu, idle(order.cores)
    latencies, exchanges = _enroll(order, devices)
    cpu = cost_of(os.getpid()).cpu - before
    return _Result(latencies, exchanges, cpu, time.time(), idle_before, idle(order.cores))


def _enroll(order: _Order, devices: list[Device]) -> tuple[list[float], int]:
    root = x509.load_der_x509_certificate(order.root)
    load, port = order.load, order.port
    if load.kind == "coaps":
        pairs = list(load_coaps.enroll_each(port, devices, root, CCM_8, load.block_exponent))
        return [seconds for seconds, _ in pairs], sum(count for _, count in pairs)
    newest = TlsVersion.TLS1_2 if load.kind == "https-1.2" else TlsVersion.TLS1_3
    policy = TlsPolicy(maximum_version=newest)
    if load.kind == "https-one-connection":
        return list(load_https.enroll_all_over_one(port, devices, root, policy)), 0
    if load.rate is None:
        return list(load_https.enroll_each(port, devices, root, policy)), 0
    return _enroll_at_a_rate(order, devices, root, policy, load.rate), 0


def _enroll_at_a_rate(
    order: _Order, devices: list[Device], root: x509.Certificate, policy: TlsPolicy, rate: float
) -> list[float]:
    """Begin by the clock and not when the last one is done; lateness counts as latency."""
    latencies = []
    for number, device in enumerate(devices):
        due = order.begin_at + number / rate
        time.sleep(max(0.0, due - time.time()))
        for _ in load_https.enroll_each(order.port, [device], root, policy):
            latencies.append(time.time() - due)
    return latencies
