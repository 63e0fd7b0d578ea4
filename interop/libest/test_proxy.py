"""libest's ``estproxy`` between ``est-client`` and ``est-server``."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.client_peer import CannotPlay, Credentials
from interop.devices import Device
from interop.libest.proxy import EstProxy
from interop.matrix import plays
from interop.our_client import DONE, REFUSED, OurClient
from interop.server import ServerUnderTest
from interop.transcript import Transcript

scenario = pytest.mark.scenario


@pytest.fixture(params=[False, True], ids=["libest-estproxy", "libest-estproxy-coap"])
def proxy(
    request: pytest.FixtureRequest,
    server: ServerUnderTest,
    device: Device,
    transcript: Transcript,
    openssl: OpenSsl,
    checks: Checks,
    tmp_path: Path,
) -> EstProxy:
    """``estproxy`` with a certificate that makes it a registration authority."""
    coap: bool = request.param
    if coap:
        plays(request, "libest-estproxy-coap", "CoAPS", role="registrar")
    else:
        plays(request, "libest-estproxy", "HTTPS", role="registrar")
    return EstProxy(server, device, transcript, openssl, tmp_path, coap=coap)


@scenario("CA certificates")
def test_ca_certificates(proxy: EstProxy, transcript: Transcript, tmp_path: Path) -> None:
    with proxy.serve("ra", "-n") as served:
        # On CoAPS every request is authenticated.
        credentials = served.credentials if proxy.coap else None
        done = OurClient(served, transcript, tmp_path).run("cacerts", credentials=credentials)
    assert done.status == DONE, done.text
    assert done.out.count(b"BEGIN CERTIFICATE") == 2


@scenario("enroll: HTTP Basic towards the RA")
def test_enroll_by_basic(
    proxy: EstProxy, device: Device, checks: Checks, transcript: Transcript, tmp_path: Path
) -> None:
    out = tmp_path / "certificate.pem"
    if proxy.coap:
        raise CannotPlay("there is no HTTP authentication on CoAP")
    with proxy.serve("ra") as served:
        client = OurClient(served, transcript, tmp_path)
        words = ("--key", device.key, "--no-pop-linking", "--out", out)
        done = client.run("enroll", *words, user=served.user)
    assert done.status == DONE, done.text
    checks.issued(out, udid=device.udid, key=device.key)
    assert "estproxy" in str(checks.audit()[-1])


@scenario("enroll: a birth certificate towards the RA, the request linked to that channel")
@pytest.mark.conformance("POP-13")
def test_enroll_linked(
    proxy: EstProxy, device: Device, checks: Checks, transcript: Transcript, tmp_path: Path
) -> None:
    out = tmp_path / "certificate.pem"
    with proxy.serve("ra", "-n", "-t") as served:
        client = OurClient(served, transcript, tmp_path)
        done = client.run("enroll", "--out", out, credentials=served.credentials)
    assert done.status == DONE, done.text
    checks.issued(out, udid=device.udid, key=device.key)


@scenario("renew: the same key")
def test_renew(
    proxy: EstProxy, device: Device, checks: Checks, transcript: Transcript, tmp_path: Path
) -> None:
    out, renewed = tmp_path / "certificate.pem", tmp_path / "renewed.pem"
    with proxy.serve("ra", "-n") as served:
        client = OurClient(served, transcript, tmp_path)
        done = client.run("enroll", "--out", out, credentials=served.credentials)
        assert done.status == DONE, done.text
        current = Credentials(out, device.key)
        done = client.run("reenroll", "--out", renewed, credentials=current)
    assert done.status == DONE, done.text
    checks.issued(renewed, udid=device.udid, key=device.key)


@scenario("refused: a device that is not on the list")
def test_an_unlisted_device(
    proxy: EstProxy, stranger: Device, checks: Checks, transcript: Transcript, tmp_path: Path
) -> None:
    credentials = Credentials(stranger.short_birth_certificate, stranger.key)
    with proxy.serve("ra", "-n") as served:
        client = OurClient(served, transcript, tmp_path)
        done = client.run("enroll", credentials=credentials)
    assert done.status == REFUSED, done.text
    checks.refused("unknown-device")


@scenario("refused: an RA that the label does not believe")
def test_no_registration_authority(
    proxy: EstProxy, checks: Checks, transcript: Transcript, tmp_path: Path
) -> None:
    with proxy.serve("second", "-n") as served:
        client = OurClient(served, transcript, tmp_path)
        done = client.run("enroll", credentials=served.credentials)
    assert done.status == REFUSED, done.text
    assert checks.outcomes()[-1] == "refused"
