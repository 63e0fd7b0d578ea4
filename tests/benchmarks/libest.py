"""Beside libest's ``estserver``: the same core, the same client, TLS 1.2.

It listens on every interface, so all of this runs in a network of its own that has the loopback
interface alone: ``python -m tests.benchmarks.libest`` is that part.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from interop.libest.server import environment, make_home
from interop.peers import find_libest
from tests.benchmarks.bench import MICRO, Bench, Size
from tests.benchmarks.deployment import SERVER_CORES, RunningServer
from tests.benchmarks.devices import Device
from tests.benchmarks.figures import Figure, Found, Remark, Run
from tests.benchmarks.generators import Generators, Load, Measured

_PORT = 8085
_LOAD = Load("https-1.2")
_START_SECONDS = 10.0
_OWN_NETWORK = ("unshare", "--user", "--map-root-user", "--net")


def libest(bench: Bench) -> Iterator[Found]:
    """Enrollments for a CPU second of the server beside libest's `estserver`, which has no device
    list and no ledger: on the same core, under the same load, with a new TLS 1.2 connection each.
    """
    reason = _reason_to_skip()
    if reason:
        yield Remark(f"Not measured: {reason}.")
        return
    found = bench.scratch / "libest.json"
    inside = 'ip link set lo up && exec "$0" "$@"'
    size = json.dumps(asdict(bench.size))
    words = [sys.executable, "-m", "tests.benchmarks.libest", size, str(found)]
    subprocess.run([*_OWN_NETWORK, "sh", "-c", inside, *words], check=True)
    yield from Run.read(found).measurements["libest"].figures


def _reason_to_skip() -> str:
    try:
        find_libest("estserver")
    except pytest.skip.Exception as missing:
        return str(missing)
    tried = subprocess.run([*_OWN_NETWORK, "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "there are no network namespaces here"


def _compare(bench: Bench) -> Iterator[Figure]:
    devices = bench.devices(bench.size.beside_libest + bench.size.generators)
    theirs = _measure_theirs(bench, devices)
    yield Figure("estserver, new connection, TLS 1.2", theirs.cpu_each * MICRO, "us CPU")
    ours, _ = bench.measure(_LOAD, bench.deploy(devices, bench.size.listed), devices)
    yield Figure("est-server, new connection, TLS 1.2", ours.cpu_each * MICRO, "us CPU")
    yield Figure(
        "enrollments for a CPU second, est-server against estserver",
        1 / ours.cpu_each,
        "enrollments",
        floor=1 / theirs.cpu_each,
        target=8,
        at_least=True,
        note="floor: estserver",
    )


def _measure_theirs(bench: Bench, devices: list[Device]) -> Measured:
    home = bench.scratch / "estserver"
    root = make_home(home, bench.manufacturer.root)
    first, rest = devices[: bench.size.generators], devices[bench.size.generators :]
    with _estserver(home) as server:
        bench.run(_LOAD, server, first, root)
        return bench.run(_LOAD, server, rest, root)


@contextmanager
def _estserver(home: Path) -> Iterator[RunningServer]:
    command = [find_libest("estserver"), "-c", "server.pem", "-k", "server.pem", "-r", "estrealm"]
    with (home / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [*command, "-p", str(_PORT), "-n"],
            cwd=home,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORES),
        )
    try:
        _await_listening(process)
        yield RunningServer(process.pid, _PORT, 0)
    finally:
        process.kill()
        process.wait()


def _await_listening(process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", _PORT), timeout=1).close()
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def main() -> None:
    """``python -m tests.benchmarks.libest SIZE OUT`` in a network of its own."""
    said, out = sys.argv[1:]
    values = json.loads(said)
    size = Size(**{**values, "list_sizes": tuple(values["list_sizes"])})
    run = Run.here()
    measurement = run.begin("libest")
    with tempfile.TemporaryDirectory(prefix="est-bench-") as directory:
        scratch = Path(directory)
        with Generators(size.generators, scratch) as generators:
            for figure in _compare(Bench(size, scratch, generators)):
                measurement.figures.append(figure)
    run.write(Path(out))


if __name__ == "__main__":
    main()
