"""``openssl s_client`` and ``gnutls-cli``: handshakes, and octets over an open channel."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from interop.transcript import Transcript

#: Seconds that one handshake may take.
_PATIENCE = 60.0

_ALERT = re.compile(r"SSL alert number (\d+)|Received alert \[(\d+)\]")
_PROTOCOL = re.compile(r"^Protocol version: (\S+)|^- Version: (\S+)", re.MULTILINE)
_CIPHER = re.compile(r"^Ciphersuite: (\S+)|^- Description: (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Handshake:
    """How a handshake ended.

    :param protocol: such as ``TLSv1.3``; empty if it failed.
    :param cipher: the suite in the program's words; empty if it failed.
    :param alert: number of the alert that the server sent, or ``None``.
    :param text: everything that the program said.
    """

    protocol: str
    cipher: str
    alert: int | None
    text: str


class OpenSslClient:
    """``openssl s_client``.

    :param program: ``openssl``.
    :param port: the port on loopback.
    :param ca: PEM file with the root that the server's certificate has to chain to.
    """

    def __init__(self, program: str, transcript: Transcript, *, port: int, ca: Path) -> None:
        self._transcript = transcript
        self._command = [program, "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(ca)]
        self._command += ["-verify_return_error", "-verify_hostname", "localhost"]

    def handshake(self, *options: str | Path, stdin: bytes = b"") -> Handshake:
        """Connect with ``options`` and leave."""
        command = [*self._command, "-brief", *options]
        done = self._transcript.run(command, stdin=stdin, patience=_PATIENCE)
        return _handshake(done.text)

    def open(self, *options: str) -> Conversation:
        """Connect and stay; commands in the input mean nothing."""
        return Conversation([*self._command, "-ign_eof", *options], self._transcript)


class GnuTlsClient:
    """``gnutls-cli``; the parameters are those of :class:`OpenSslClient`."""

    def __init__(self, program: str, transcript: Transcript, *, port: int, ca: Path) -> None:
        self._transcript = transcript
        self._command = [program, "--x509cafile", str(ca), "--port", str(port), "localhost"]

    def handshake(self, priority: str, *options: str) -> Handshake:
        """Connect with a GnuTLS ``priority`` string and leave."""
        command = [*self._command, "--priority", priority, *options]
        return _handshake(self._transcript.run(command, patience=_PATIENCE).text)

    def open(self, priority: str) -> Conversation:
        """Connect and stay; the channel bindings are printed."""
        command = [*self._command, "--priority", priority, "--verbose"]
        return Conversation(command, self._transcript)


class Conversation:
    """A program that holds a channel open and passes octets through it."""

    def __init__(self, command: list[str], transcript: Transcript) -> None:
        self._command = command
        self._transcript = transcript
        self._said = b""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def wait_for(self, pattern: bytes) -> bytes:
        """Read until ``pattern`` was said, and return its first group."""
        assert self._process.stdout is not None
        end = time.monotonic() + _PATIENCE
        while (found := re.search(pattern, self._said, re.DOTALL)) is None:
            assert time.monotonic() < end, f"never said {pattern!r}: {self._said!r}"
            line = self._process.stdout.readline()
            assert line, f"ended without {pattern!r}: {self._said!r}"
            self._said += line
        return found[1]

    def finish(self, octets: bytes) -> bytes:
        """Send ``octets``, and return what is said until the server closes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = Timer(_PATIENCE, self._process.kill)
        watchdog.start()
        try:
            # Its input stays open: at the end of it gnutls-cli may leave before the answer is in.
            self._process.stdin.write(octets)
            self._process.stdin.flush()
            rest = self._process.stdout.read()
        finally:
            watchdog.cancel()
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
        self._said += rest
        sent = b"\n[sent through the channel]\n" + octets
        self._transcript.note(self._command, "ended", self._said + sent)
        return rest


def _handshake(text: str) -> Handshake:
    protocol, cipher, alert = (
        next((group for group in found.groups() if group), "") if found else ""
        for found in (pattern.search(text) for pattern in (_PROTOCOL, _CIPHER, _ALERT))
    )
    return Handshake(protocol, cipher, int(alert) if alert else None, text)
