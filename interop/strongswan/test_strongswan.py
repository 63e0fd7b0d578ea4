"""RFC 7030 as strongSwan's ``pki`` speaks it.

Its ``--est`` renews where it is given a certificate, and enrolls where it is not; a first
enrollment with a birth certificate is therefore not to be had from it. It knows TLS 1.2 only
and links nothing to its channel.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.client_peer import Credentials
from interop.curl.driver import Curl
from interop.devices import Device
from interop.peers import find_peer
from interop.server import ServerUnderTest
from interop.strongswan.driver import Pki
from interop.transcript import Transcript


@pytest.fixture
def pki(server: ServerUnderTest, transcript: Transcript, tmp_path: Path) -> Pki:
    """A client that trusts the server."""
    return Pki(find_peer("pki"), transcript, url=server.https, ca=server.ca, directory=tmp_path)


@pytest.fixture
def current(
    server: ServerUnderTest,
    transcript: Transcript,
    tmp_path: Path,
    device: Device,
    openssl: OpenSsl,
    checks: Checks,
) -> Credentials:
    """The device's first operational certificate, which it has got by other means."""
    curl = Curl(find_peer("curl"), transcript, url=server.https, ca=server.ca, directory=tmp_path)
    key = openssl.make_key()
    answer = curl.post(
        "/.well-known/est/simpleenroll",
        Credentials(device.birth_certificate, device.key),
        openssl.to_base64(openssl.make_csr(key)),
    )
    certs_only = openssl.from_base64(answer.body)
    return Credentials(checks.issued_alone(certs_only, udid=device.udid, key=key), key)


@pytest.mark.conformance("CA-01")
def test_ca_certificates(pki: Pki, checks: Checks) -> None:
    checks.ca_certificates(pki.estca())


@pytest.mark.conformance("SR-05")
def test_renewal_with_a_fresh_key(
    pki: Pki, device: Device, current: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    fresh = openssl.make_key()
    renewed = pki.est(openssl.make_csr(fresh, device.udid), current)
    assert renewed.certificate is not None, renewed.text
    checks.issued(renewed.certificate, udid=device.udid, key=fresh)
    assert checks.audit()[-1]["operation"] == "simplereenroll"


def test_renewal_after_renewal(
    pki: Pki, device: Device, current: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    for _ in range(2):
        fresh = openssl.make_key()
        renewed = pki.est(openssl.make_csr(fresh, device.udid), current)
        assert renewed.certificate is not None, renewed.text
        current = Credentials(
            checks.issued(renewed.certificate, udid=device.udid, key=fresh), fresh
        )
    assert checks.outcomes() == ["issued"] * 3


@pytest.mark.conformance("SR-03")
def test_renewal_under_another_name_is_refused(
    pki: Pki, current: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    refused = pki.est(openssl.make_csr(openssl.make_key(), "sensor-9999"), current)
    assert (refused.certificate, refused.status) == (None, 403)
    checks.refused("identity-mismatch")


def test_renewal_with_a_birth_certificate_is_refused(
    pki: Pki, device: Device, openssl: OpenSsl, checks: Checks
) -> None:
    born = Credentials(device.short_birth_certificate, device.key)
    refused = pki.est(openssl.make_csr(device.key, device.udid), born)
    assert (refused.certificate, refused.status) == (None, 403)
    checks.refused("certificate-unknown")


def test_enrollment_without_a_client_certificate_is_refused(
    pki: Pki, device: Device, openssl: OpenSsl, checks: Checks
) -> None:
    # The key is listed, but nothing links the request for it to this channel.
    refused = pki.est(openssl.make_csr(device.key), None)
    assert (refused.certificate, refused.status) == (None, 403)
    checks.refused("authentication-required")


def test_a_tampered_request_is_refused(
    pki: Pki, device: Device, current: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    csr = openssl.make_csr(openssl.make_key(), device.udid)
    refused = pki.est(openssl.tamper(csr), current)
    # The program itself checks the request that it is given.
    assert refused.certificate is None
    assert checks.outcomes() == ["issued"]
