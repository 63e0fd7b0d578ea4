"""A network of its own: libest's servers listen on every interface of theirs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

#: Seconds for a program to listen, and to end.
_PATIENCE = 60.0

_LISTEN, _UDP_OPEN = "0A", "07"


class LoopbackOnly:
    """A program in a new network namespace that has nothing but the loopback interface.

    :param command: the program.
    :param port: the port that it will listen on.
    :param udp: whether by UDP.
    :param output: file for what it says.
    :param beside: a program whose network to share, in place of a new one.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        port: int,
        udp: bool = False,
        directory: Path,
        environment: Mapping[str, str],
        output: Path,
        beside: LoopbackOnly | None = None,
    ) -> None:
        self._command = [str(word) for word in command]
        self._port = port
        self._udp = udp
        self._directory = directory
        self._environment = environment
        self._output = output
        self._beside = beside
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def inside(self) -> tuple[str, ...]:
        """Words in front of a command, to run it in the same network."""
        assert self._process is not None
        pid = str(self._process.pid)
        return ("nsenter", "--preserve-credentials", "--user", "--net", "--target", pid)

    def __enter__(self) -> Self:
        _require_namespaces()
        script = 'ip link set lo up && exec "$0" "$@"'
        enter = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script]
        if self._beside is not None:
            enter = list(self._beside.inside)
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*enter, *self._command],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _wait_until_it_listens(self) -> None:
        assert self._process is not None
        table = Path(f"/proc/{self._process.pid}/net/{'udp' if self._udp else 'tcp'}")
        line = f":{self._port:04X} ", _UDP_OPEN if self._udp else _LISTEN
        end = time.monotonic() + _PATIENCE
        while not any(line[0] in row and f" {line[1]} " in row for row in _rows(table)):
            assert self._process.poll() is None, f"ended: {self._output.read_text()}"
            assert time.monotonic() < end, f"does not listen: {self._output.read_text()}"
            time.sleep(0.01)

    def _end(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(_PATIENCE)


def _rows(table: Path) -> list[str]:
    return table.read_text().splitlines()


def _require_namespaces() -> None:
    tried = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "true"],
        capture_output=True,
        timeout=_PATIENCE,
        check=False,
    )
    if tried.returncode != 0:
        pytest.skip("libest listens on all interfaces, and no network namespace is to be had")
