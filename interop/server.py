"""The server under test: the command line, as an operator uses it; ``serve`` in its own process."""

from __future__ import annotations

import json
import re
import selectors
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Self

from est_server.cli import main

_COMMAND = (sys.executable, "-m", "est_server.cli")
_ROOT = Path(__file__).parents[1]
_LABELS = Path(__file__).with_name("labels.toml")
_READY = re.compile(r"ready https=127\.0\.0\.1:(\d+) coaps=127\.0\.0\.1:(\d+)\n")

#: The key of :meth:`ServerUnderTest.legacy_front` among the fronts; no label is called so.
_LEGACY = "*legacy*"

#: What it does otherwise than the RFCs.
_LEGACY_FORMS = "content_transfer_encoding = true\nempty_bodies = true\nquoted_challenges = true\n"

#: Seconds to start and to stop.
_PATIENCE = 60.0


class Serving:
    """``est-server serve``, as long as the context lasts.

    :param config: its configuration.
    :param errors: where its standard error goes.
    """

    def __init__(self, config: Path, errors: Path) -> None:
        self.https_port = 0
        self.coaps_port = 0
        self._config = config
        self._errors = errors
        self._errors_seen = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def https(self) -> str:
        """The server's URL over HTTPS."""
        return f"https://localhost:{self.https_port}"

    @property
    def coaps(self) -> str:
        """The server's URL over CoAPS."""
        return f"coaps://127.0.0.1:{self.coaps_port}"

    def __enter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*_COMMAND, "serve", "--config", str(self._config)],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        try:
            ready = _READY.fullmatch(self._first_line())
            assert ready, f"not ready: {self._errors.read_text()}"
        except BaseException:
            self._kill()
            raise
        self.https_port, self.coaps_port = int(ready[1]), int(ready[2])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server as an operator does; it has to end well."""
        assert self.stop() == 0, self._errors.read_text()

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        assert self._process is not None
        process, self._process = self._process, None
        process.terminate()
        try:
            return process.wait(_PATIENCE)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def check_unharmed(self) -> None:
        """Fail if the server has ended, or met anything unexpected since it was asked last."""
        errors = self._errors.read_text()
        news, self._errors_seen = errors[self._errors_seen :], len(errors)
        assert self._process is not None
        assert self._process.poll() is None, f"the server ended: {errors}"
        # Alarms are what clones and second keys have to raise.
        unexpected = [line for line in news.splitlines() if " est_server.alarm: " not in line]
        assert unexpected == []

    def _first_line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            assert selector.select(_PATIENCE), "the server does not say that it is ready"
        return self._process.stdout.readline().decode()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class ServerUnderTest(Serving):
    """``est-server init`` in ``directory``, and then ``serve`` as long as the context lasts.

    Its labels are those of ``labels.toml``.

    :param directory: a directory that does not exist yet.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._audit = directory / "audit.jsonl"
        self._toml = directory / "est-server.toml"
        self._fronts: dict[str, Serving] = {}
        super().__init__(self._toml, directory / "stderr.txt")
        self.command("init", directory, "--https-port", 0, "--coaps-port", 0, config=False)
        with self._toml.open("a") as file:
            file.write(f'\n[log]\nformat = "json"\nfile = "{self._audit.name}"\n')
            file.write(_LABELS.read_text())

    @property
    def ca(self) -> Path:
        """PEM file with the root that verifies the server on both transports."""
        return self.directory / "ca.pem"

    def front(self, label: str) -> Serving:
        """The same server where ``label`` needs no path segment, for clients that know none.

        A second process over the same store.
        """
        if label not in self._fronts:
            config = self.front_config(label)
            front = Serving(config, self.directory / f"front-{label}-stderr.txt")
            self._fronts[label] = front.__enter__()
        return self._fronts[label]

    def legacy_front(self) -> Serving:
        """The same server for clients of RFC 7030 before RFC 8951, under all labels."""
        if _LEGACY not in self._fronts:
            text = self._toml.read_text()
            for table in ["default", *re.findall(r"^\[(labels\.[\w-]+)\]", text, re.MULTILINE)]:
                text += f"\n[{table}.legacy]\n{_LEGACY_FORMS}"
            config = self.directory / "front-legacy.toml"
            config.write_text(text)
            front = Serving(config, self.directory / "front-legacy-stderr.txt")
            self._fronts[_LEGACY] = front.__enter__()
        return self._fronts[_LEGACY]

    def front_config(self, label: str, *, https_port: int = 0) -> Path:
        """The configuration of :meth:`front`."""
        text = self._toml.read_text()
        text = text.replace("[default", "[labels.none").replace(f"[labels.{label}", "[default")
        # HTTPS comes first.
        text = text.replace("port = 0\n", f"port = {https_port}\n", 1)
        config = self.directory / f"front-{label}.toml"
        config.write_text(text)
        return config

    def command(self, *words: str | int | Path, config: bool = True) -> str:
        """Run ``est-server`` with ``words`` and return what it printed.

        In this process: beside ``serve`` its commands are short, and starting Python is not.
        """
        arguments = [str(word) for word in words]
        if config:
            arguments += ["--config", str(self._toml)]
        with redirect_stdout(StringIO()) as said, redirect_stderr(StringIO()) as complained:
            status = main(arguments)
        assert status == 0, f"est-server {' '.join(arguments)}: {complained.getvalue()}"
        return said.getvalue()

    def approve(self, udid: str) -> None:
        """Let an operator approve the one request of a device that waits."""
        self._decide("approve", udid)

    def deny(self, udid: str) -> None:
        """Let an operator deny the one request of a device that waits."""
        self._decide("deny", udid)

    def _decide(self, decision: str, udid: str) -> None:
        waiting = self.command("approvals", "list").splitlines()
        [number] = [line.split()[0] for line in waiting if udid in line.split()]
        self.command("approvals", decision, number, "--reason", "order 17")

    def stop(self) -> int:
        """Stop all processes; the exit status is that of the first that did not end well, or 0."""
        statuses = [front.stop() for front in self._fronts.values()]
        self._fronts.clear()
        return next((status for status in [*statuses, super().stop()] if status != 0), 0)

    def take_signed_lists_only(self) -> None:
        """From now on; the server warns at its start as long as it takes others."""
        text = self._toml.read_text()
        assert "allow_unsigned = true" in text
        self._toml.write_text(text.replace("allow_unsigned = true", "allow_unsigned = false"))

    def audit(self, *, since: int = 0) -> list[dict[str, str]]:
        """The lines of the audit log, those after the first ``since``."""
        lines = self._audit.read_text().splitlines() if self._audit.exists() else []
        return [json.loads(line) for line in lines[since:]]

    def check_unharmed(self) -> None:
        """Fail if a process has ended, or met anything unexpected since it was asked last."""
        for front in self._fronts.values():
            front.check_unharmed()
        super().check_unharmed()
