"""The real server, started for a measurement in a directory of its own."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.benchmarks.accounting import Cost, cost_of
from tests.benchmarks.devices import Device, Manufacturer, device_list

_EST_SERVER = (sys.executable, "-m", "est_server.cli")
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Deployment:
    """A directory that ``est-server init`` made, with devices imported."""

    directory: Path
    import_seconds: float
    import_rows: int

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.directory / "est-server.toml"

    @property
    def root(self) -> x509.Certificate:
        """What devices trust."""
        return x509.load_pem_x509_certificate((self.directory / "ca.pem").read_bytes())

    def copy(self, directory: Path) -> Deployment:
        """The same once more, so that every measurement begins with nobody enrolled."""
        shutil.copytree(self.directory, directory)
        return Deployment(directory, self.import_seconds, self.import_rows)

    def append_config(self, text: str) -> None:
        """Add tables to the configuration."""
        with self.config.open("a") as file:
            file.write(text)


def deploy(
    directory: Path,
    manufacturer: Manufacturer,
    devices: list[Device],
    listed: int,
    *init: str,
) -> Deployment:
    """A new server that lists ``listed`` devices, ``devices`` among them."""
    _est_server("init", str(directory), "--https-port", "0", "--coaps-port", "0", *init)
    anchor = directory / "manufacturers" / "bench.pem"
    anchor.write_bytes(manufacturer.root.public_bytes(Encoding.PEM))
    anchor.chmod(0o600)
    rows = directory.with_suffix(".csv")
    with rows.open("w") as file:
        file.writelines(f"{line}\n" for line in device_list(devices, listed))
    began = time.perf_counter()
    config = directory / "est-server.toml"
    _est_server("devices", "import", str(rows), "--allow-unsigned", "--config", str(config))
    elapsed = time.perf_counter() - began
    rows.unlink()
    return Deployment(directory, elapsed, max(listed, len(devices)))


def _est_server(*arguments: str) -> str:
    return subprocess.run(
        [*_EST_SERVER, *arguments], check=True, capture_output=True, text=True
    ).stdout


@dataclass(frozen=True)
class RunningServer:
    """A server process."""

    pid: int
    https_port: int
    coaps_port: int

    def cost(self) -> Cost:
        """What its process tree has cost so far."""
        return cost_of(self.pid)


@contextmanager
def running(
    deployment: Deployment,
    *options: str,
    cores: Sequence[int] = (0,),
    module: str = "est_server.cli",
) -> Iterator[RunningServer]:
    """Serve ``deployment`` on ``cores`` as long as the context lasts.

    :param module: what is run.
    :raises TimeoutError: it does not say that it is ready.
    """
    audit = (deployment.directory / "serve.err").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", module, "serve", "--config", str(deployment.config), *options],
        stdout=subprocess.PIPE,
        stderr=audit,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        yield _await_ready(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        audit.close()


def _await_ready(process: subprocess.Popen[str]) -> RunningServer:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], _START_SECONDS)[0]:
        raise TimeoutError("the server did not say that it is ready")
    said = process.stdout.readline()
    ports = {
        name: int(address.rpartition(":")[2])
        for name, _, address in (word.partition("=") for word in said.split()[1:])
    }
    return RunningServer(process.pid, ports["https"], ports["coaps"])
