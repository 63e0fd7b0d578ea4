"""What was run against the server and what it said, kept for comparison with the field."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interop.sanitizing import LEFT_OUT, holds_private_key, sanitized

#: Seconds that a program of a peer may take, unless told otherwise.
PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has ended.

    :param status: its exit status.
    :param out: its standard output.
    :param err: its standard error.
    """

    status: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Everything that it said, for people and regular expressions."""
        return f"{_readable(self.out)}\n{_readable(self.err)}"


class Transcript:
    """The programs that one test ran, in files that are numbered in their order.

    :param directory: where the files go; it is emptied of earlier ones.
    :param scratch: working directory of the programs.
    """

    def __init__(self, directory: Path, scratch: Path) -> None:
        self._directory = directory
        self._scratch = scratch
        self._number = 0
        self._secrets: set[str] = set()
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("*.txt"):
            old.unlink()

    @property
    def directory(self) -> Path:
        """Where the files go."""
        return self._directory

    def conceal(self, secret: str) -> None:
        """From now on ``secret`` is written nowhere; keys are concealed without being told of."""
        self._secrets.add(secret)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> Finished:
        """Run a program to its end.

        :param stdin: what it reads, and then the end of file.
        :param environment: all of its environment; by default what this process has.
        :param patience: seconds after which it is ended.
        :raises subprocess.TimeoutExpired: it took longer; what it said is noted all the same.
        """
        words = [str(word) for word in command]
        begin = time.monotonic()
        try:
            done = subprocess.run(
                words,
                input=stdin,
                env=environment,
                timeout=patience,
                cwd=self._scratch,
                capture_output=True,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            self.note(words, f"no end after {patience} s", late.stdout or b"", late.stderr or b"")
            raise
        ending = f"exit status {done.returncode} after {time.monotonic() - begin:.2f} s"
        self.note(words, ending, done.stdout, done.stderr)
        return Finished(done.returncode, done.stdout, done.stderr)

    def note(self, command: Sequence[str], ending: str, out: bytes, err: bytes = b"") -> None:
        """Write down one program; :meth:`run` does so by itself."""
        text = f"$ {shlex.join(command)}\n\n[{ending}]\n"
        for name, octets in (("standard output", out), ("standard error", err)):
            if octets:
                said = LEFT_OUT if holds_private_key(octets) else _readable(octets)
                text += f"\n[{name}]\n{said}\n"
        self.write(f"{Path(command[0]).name}-{_topic(command)}".strip("-"), text)

    def write(self, name: str, text: str) -> None:
        """Add a file of ``text``, without the secrets in it."""
        self._number += 1
        path = self._directory / f"{self._number:02}-{name}.txt"
        text = sanitized(text, self._secrets)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _topic(command: Sequence[str]) -> str:
    """A subcommand, such as ``verify`` of openssl, for the name of the file."""
    word = command[1].lstrip("-") if len(command) > 1 else ""
    return word if word.isalnum() else ""


def _readable(octets: bytes) -> str:
    return octets.decode("utf-8", errors="backslashreplace")
