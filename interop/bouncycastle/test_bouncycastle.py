"""What only Bouncy Castle's client plays: the first look at a server that nothing verifies."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.bouncycastle.peer import BouncyCastle
from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.client_peer import Bench
from interop.server import ServerUnderTest
from interop.transcript import Transcript


@pytest.mark.conformance("CA-01")
def test_ca_certificates_before_anything_is_trusted(
    server: ServerUnderTest,
    transcript: Transcript,
    openssl: OpenSsl,
    checks: Checks,
    tmp_path: Path,
) -> None:
    url = server.legacy_front().https
    bench = Bench(url, server.coaps, server.ca, tmp_path, transcript, openssl)
    checks.ca_certificates(BouncyCastle(bench).unverified_ca_certificates())
