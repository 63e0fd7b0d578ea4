"""What the scenarios came to, kept in ``results.json``: ``pytest interop --record``.

A run replaces what it played and keeps the rest, so that a run without libest leaves what was
found with it. ``docs/reference/interop.md`` is written from the file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

RESULTS = Path(__file__).with_name("results.json")

#: The commit of the libest that ``LIBEST_PREFIX`` names.
LIBEST_COMMIT = "LIBEST_COMMIT"

#: Names of user properties of test reports.
PLAYED, CANNOT, FOUND = "played", "cannot", "found"

PASSED, FAILED = "pass", "FAILED"

_SECONDS = 60


class Part(NamedTuple):
    """Who plays what.

    :param role: of the peer: ``client``, ``server`` or ``registrar``.
    """

    peer: str
    role: str
    transport: str
    scenario: str


def plays(
    request: pytest.FixtureRequest, peer: str, transport: str, *, role: str = "client"
) -> None:
    """Note in the report of the running test that ``peer`` plays the scenario of its marker."""
    for marker in request.node.iter_markers("scenario"):
        part = Part(peer, role, transport, marker.args[0])
        request.node.user_properties.append((PLAYED, list(part)))


class Recorder:
    """A pytest plugin that adds the results of a run to :data:`RESULTS`."""

    def __init__(self) -> None:
        self._played: dict[Part, str] = {}
        self._found: list[list[str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a scenario ended; reports of all workers come here."""
        properties = dict(report.user_properties)
        played = properties.get(PLAYED)
        if isinstance(played, list):
            self._note(Part(*played), report, properties.get(CANNOT))
        if report.when == "call" and report.passed:
            found = (value for name, value in report.user_properties if name == FOUND)
            self._found += [value for value in found if isinstance(value, list)]

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        peers: dict[str, Any] = record.setdefault("peers", {})
        for part, result in self._played.items():
            entry = peers.setdefault(part.peer, {"scenarios": {}})
            entry |= {"role": part.role, "transport": part.transport}
            entry["scenarios"][part.scenario] = result
        for peer in {part.peer for part in self._played}:
            peers[peer] |= {"version": version_of(peer), "made": f"{datetime.now(UTC):%Y-%m-%d}"}
        if self._found:
            record["policy"] = sorted(self._found)
        RESULTS.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")

    def _note(self, part: Part, report: pytest.TestReport, cannot: object) -> None:
        if report.failed:
            self._played[part] = FAILED
        elif report.when == "call" and report.passed:
            self._played[part] = PASSED
        elif report.when == "call" and cannot is not None:
            self._played[part] = str(cannot)


def version_of(peer: str) -> str:
    """The version of a peer: of its Debian packages, or of libest with its commit."""
    if peer.startswith("libest"):
        return f"libest 3.2.0p, commit {os.environ.get(LIBEST_COMMIT, 'not told')}"
    if peer.startswith("est-server"):
        return "this one"
    packages = _PACKAGES.get(peer.partition("-")[0], ())
    return ", ".join(filter(None, map(_package_version, packages))) or "not packaged"


_PACKAGES = {
    "curl": ("curl", "openssl"),
    "strongswan": ("strongswan-pki",),
    "bouncycastle": ("libbcpkix-java",),
    "libcoap": ("libcoap3-bin",),
    "openssl": ("openssl",),
    "gnutls": ("gnutls-bin",),
}


def _package_version(package: str) -> str:
    if shutil.which("dpkg-query") is None:
        return ""
    found = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", package],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return f"{package} {found.stdout}" if found.returncode == 0 else ""
