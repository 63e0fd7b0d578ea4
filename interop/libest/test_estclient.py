"""What only libest's ``estclient`` plays: a CSR that is made by the attributes of the label."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.client_peer import Bench, Credentials, Order
from interop.devices import Device
from interop.libest.client import EstClient
from interop.server import ServerUnderTest
from interop.transcript import Transcript


@pytest.mark.conformance("ATT-26")
def test_enroll_by_the_csr_attributes(
    server: ServerUnderTest,
    device: Device,
    transcript: Transcript,
    openssl: OpenSsl,
    checks: Checks,
    tmp_path: Path,
) -> None:
    """It ends, and gets a certificate, although the message holds a template too."""
    bench = Bench(server.https, server.coaps, server.ca, tmp_path, transcript, openssl)
    born = Credentials(device.short_birth_certificate, device.key)
    order = Order(device.key, credentials=born, label="wishes")
    outcome = EstClient(bench).enroll_as_asked(order)
    assert outcome.certificate is not None, outcome.text
    checks.issued(outcome.certificate, udid=device.udid, key=device.key)
    assert "NID=13" in outcome.text  # commonName
