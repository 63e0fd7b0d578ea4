"""The real server, started for a measurement in a directory of its own."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.benchmarks.accounting import Cost, cost_of
from tests.benchmarks.devices import Device, Manufacturer, device_list

#: Where the server runs if it has one worker; the load generators have the others.
SERVER_CORES = (0,)

_EST_SERVER = (sys.executable, "-m", "est_server.cli")
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Deployment:
    """A directory that ``est-server init`` made, with devices imported."""

    directory: Path

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.directory / "est-server.toml"

    @property
    def root(self) -> x509.Certificate:
        """What devices trust."""
        return x509.load_pem_x509_certificate((self.directory / "ca.pem").read_bytes())

    def remove(self) -> None:
        """Give its disk space back; a long list is gigabytes."""
        shutil.rmtree(self.directory)

    @property
    def store_octets(self) -> int:
        """The size of its database."""
        return sum(file.stat().st_size for file in self.directory.glob("est.sqlite*"))

    def allow_keys(self, *kinds: str) -> None:
        """Certify keys of these kinds and no others."""
        text = self.config.read_text()
        head, table, rest = text.partition("[default.profile]\n")
        assert table, "est-server init has written no profile"
        self.config.write_text(f"{head}{table}allowed_keys = {list(kinds)}\n{rest}")

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
    config = directory / "est-server.toml"
    _est_server("devices", "import", str(rows), "--allow-unsigned", "--config", str(config))
    rows.unlink()
    return Deployment(directory)


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
    cores: Sequence[int] = SERVER_CORES,
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
