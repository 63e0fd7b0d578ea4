"""``est-server serve`` as processes of their own, on a new server with devices on its list."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from est_client.trust import TrustDatabase
from est_protocol.keys import spki_sha256
from est_server.cli import main
from est_server.config import load_config
from est_server.server_certificates import load_server_certificates
from tests import pki

ROOT = Path(__file__).parent.parent.parent
#: Seconds that anything here may take.
PATIENCE = 120.0


@dataclass(frozen=True)
class Deployment:
    """A folder that ``est-server init`` made."""

    folder: Path

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / "est-server.toml"

    @property
    def trust(self) -> TrustDatabase:
        """What devices are told to trust."""
        return TrustDatabase.load(self.folder / "ca.pem")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the store."""
        with closing(sqlite3.connect(self.folder / "est.sqlite")) as db:
            return db.execute(sql).fetchall()

    def change(self, old: str, new: str) -> None:
        """Change the configuration."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new, 1))

    def renew_server_certificates(self) -> set[x509.Certificate]:
        """Give HTTPS and CoAPS new certificates over new keys."""
        command = ["ca", "server-certificate", "--new-key", "--config", str(self.config)]
        assert main(command) == 0
        return {made.chain[0] for made in load_server_certificates(load_config(self.config))}


def deploy(folder: Path, devices: int = 1) -> Deployment:
    """A new server; its devices are ``device-0`` and so on, with the keys of that name."""
    ports = ["--https-port", "0", "--coaps-port", "0"]
    assert main(["init", str(folder / "est"), *ports]) == 0
    deployment = Deployment(folder / "est")
    names = [f"device-{number}" for number in range(devices)]
    rows = [f"{name},{spki_sha256(pki.make_key(name).public_key()).hex()}" for name in names]
    listed = folder / "list.csv"
    listed.write_text("\n".join(["udid,spki_sha256", *rows, ""]))
    imports = ["devices", "import", str(listed), "--allow-unsigned"]
    assert main([*imports, "--config", str(deployment.config)]) == 0
    deployment.change("allow_unsigned = true", "allow_unsigned = false")
    deployment.change("[store]", '[log]\nfile = "audit.log"\n\n[store]')
    return deployment


class ServedProcess:
    """A running server.

    :param https: ``https://HOST:PORT``; the same for ``coaps``.
    """

    def __init__(
        self, process: subprocess.Popen[str], errors: Path, notified: socket.socket
    ) -> None:
        self.process = process
        self._errors = errors
        self._notified = notified
        assert process.stdout is not None
        self.ready = process.stdout.readline()
        where = dict(word.split("=") for word in self.ready.split()[1:])
        self.https, self.coaps = (f"{name}://{where.get(name)}" for name in ("https", "coaps"))

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return self._errors.read_text()

    @property
    def workers(self) -> list[int]:
        """The ids of its worker processes."""
        pid = self.process.pid
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def notified(self) -> str:
        """The first line of the next message to the service manager."""
        return self._notified.recv(4096).decode().partition("\n")[0]

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def reload(self) -> None:
        """Have it read its configuration, and wait until it has."""
        self.process.send_signal(signal.SIGHUP)
        assert [self.notified(), self.notified()] == ["RELOADING=1", "READY=1"]

    def await_error(self, text: str) -> None:
        """Wait until ``text`` is on standard error."""
        end = time.monotonic() + PATIENCE
        while text not in self.errors:
            assert time.monotonic() < end, self.errors
            time.sleep(0.01)

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(deployment: Deployment, *options: str) -> Iterator[ServedProcess]:
    """Serve as long as the context lasts."""
    folder = deployment.folder.parent
    command = [sys.executable, "-m", "est_server.cli", "serve", "--config", str(deployment.config)]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
        (folder / "errors").open("w") as errors,
    ):
        notified.settimeout(PATIENCE)
        notified.bind(str(folder / "notify"))
        process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
        )
        with process:
            try:
                server = ServedProcess(process, folder / "errors", notified)
                assert server.ready, server.errors
                assert server.notified() == "READY=1"
                yield server
            finally:
                # The workers see that nobody looks after them any more, and end.
                process.kill()
    (folder / "notify").unlink()
