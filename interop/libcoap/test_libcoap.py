"""RFC 9148 as libcoap's clients speak it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.client_peer import Credentials
from interop.devices import Device
from interop.libcoap.driver import Answer, CoapClient
from interop.libcoap.peer import unpack_generated
from interop.peers import find_peer
from interop.server import ServerUnderTest
from interop.transcript import Transcript

#: How the client prints the content-formats that it has no name for.
CERTS_ONLY, PKIX_CERT = "281", "287"

BLOCK_SIZES = [16, 32, 64, 128, 256, 512, 1024]


@pytest.fixture
def bare(device: Device, openssl: OpenSsl) -> Credentials:
    """A listed key in a self-signed certificate."""
    return Credentials(openssl.make_self_signed(device.key), device.key)


@pytest.fixture
def born(device: Device) -> Credentials:
    """A birth certificate; the client sends no chain with it."""
    return Credentials(device.short_birth_certificate, device.key)


def issued_to(answer: Answer) -> Path:
    """The payload of an answer that brings a certificate in certs-only CMS."""
    assert (answer.code, answer.content_format) == ("2.04", CERTS_ONLY), answer.text
    return answer.payload


def ccm8_only(directory: Path) -> dict[str, str]:
    """An environment in which GnuTLS offers no cipher but AES-128-CCM-8."""
    ciphers = [f"AES-{bits}-{mode}" for bits in (128, 256) for mode in ("GCM", "CCM", "CBC")]
    ciphers += ["AES-256-CCM-8", "CHACHA20-POLY1305"]
    config = directory / "gnutls.cfg"
    lines = [f"tls-disabled-cipher = {cipher}" for cipher in ciphers]
    config.write_text("\n".join(["[overrides]", *lines]) + "\n")
    return {**os.environ, "GNUTLS_SYSTEM_PRIORITY_FILE": str(config)}


# -- Discovery and CA certificates ----------------------------------------------------------------


@pytest.mark.conformance("CU-03", "CU-04", "CU-06", "CU-13")
def test_discovery_needs_no_client_certificate(coap: CoapClient, checks: Checks) -> None:
    answer = coap.get("/.well-known/core", None)
    assert (answer.code, answer.content_format) == ("2.05", "application/link-format")
    links = answer.payload.read_text()
    for name in ("crts", "sen", "sren"):
        assert f'</est/{name}>;rt="ace.est.{name}";ct="281 287"' in links


@pytest.mark.conformance("CU-07")
def test_discovery_by_resource_type(coap: CoapClient, checks: Checks) -> None:
    answer = coap.get("/.well-known/core?rt=ace.est.sen", None)
    links = answer.payload.read_text().split(",")
    assert '</est/sen>;rt="ace.est.sen";ct="281 287"' in links
    assert '</est/second/sen>;rt="ace.est.sen";ct="281 287"' in links
    assert all('/sen>;rt="ace.est.sen";' in link for link in links)


@pytest.mark.conformance("CU-01", "CU-02", "CR-01", "CF-03")
@pytest.mark.parametrize("root", ["/est", "/.well-known/est"])
def test_ca_certificates(
    coap: CoapClient, bare: Credentials, root: str, openssl: OpenSsl, checks: Checks
) -> None:
    answer = coap.get(f"{root}/crts", bare)
    assert (answer.code, answer.content_format) == ("2.05", CERTS_ONLY)
    checks.ca_certificates(openssl.unpack(answer.payload))


@pytest.mark.conformance("BW-01")
@pytest.mark.parametrize("block", BLOCK_SIZES)
def test_ca_certificates_in_blocks(
    coap: CoapClient, bare: Credentials, block: int, openssl: OpenSsl, checks: Checks
) -> None:
    answer = coap.get("/est/crts", bare, block=block)
    assert answer.code == "2.05"
    checks.ca_certificates(openssl.unpack(answer.payload))
    assert answer.messages >= answer.payload.stat().st_size / block


# -- Enrollment -----------------------------------------------------------------------------------


@pytest.mark.conformance("CU-02", "CR-02", "CF-05")
@pytest.mark.parametrize("root", ["/est", "/.well-known/est"])
def test_a_bare_listed_key_enrolls_itself(
    coap: CoapClient,
    device: Device,
    bare: Credentials,
    root: str,
    openssl: OpenSsl,
    checks: Checks,
) -> None:
    answer = coap.post(f"{root}/sen", bare, openssl.make_csr(device.key))
    checks.issued_alone(issued_to(answer), udid=device.udid, key=device.key)
    assert checks.outcomes() == ["issued"]


def test_a_birth_certificate_enrolls_a_fresh_key(
    coap: CoapClient, device: Device, born: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    fresh = openssl.make_key()
    answer = coap.post("/est/sen", born, openssl.make_csr(fresh))
    checks.issued_alone(issued_to(answer), udid=device.udid, key=fresh)


@pytest.mark.conformance("BW-01", "BW-08")
@pytest.mark.parametrize("block", BLOCK_SIZES)
def test_enrollment_in_blocks_both_ways(
    coap: CoapClient,
    device: Device,
    born: Credentials,
    block: int,
    openssl: OpenSsl,
    checks: Checks,
) -> None:
    fresh = openssl.make_key()
    csr = openssl.make_csr(fresh)
    answer = coap.post("/est/sen", born, csr, block=block)
    checks.issued_alone(issued_to(answer), udid=device.udid, key=fresh)
    assert checks.outcomes() == ["issued"]
    # The last block of the request and the first of the answer travel in one exchange.
    blocks = csr.stat().st_size // block + answer.payload.stat().st_size // block
    assert answer.messages >= blocks


@pytest.mark.conformance("CD-01")
def test_enrollment_under_the_mandatory_suite_alone(
    server: ServerUnderTest,
    transcript: Transcript,
    tmp_path: Path,
    device: Device,
    born: Credentials,
    openssl: OpenSsl,
    checks: Checks,
) -> None:
    """TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8; only the GnuTLS client lets its user choose suites."""
    coap = CoapClient(
        find_peer("coap-client-gnutls"),
        transcript,
        url=server.coaps,
        ca=server.ca,
        directory=tmp_path,
        environment=ccm8_only(tmp_path),
    )
    fresh = openssl.make_key()
    answer = coap.post("/est/sen", born, openssl.make_csr(fresh), block=64)
    offered = set(re.findall(r"Keeping ciphersuite .* \((\w+)\)", answer.text))
    assert {suite for suite in offered if "ECDHE" in suite} == {"GNUTLS_ECDHE_ECDSA_AES_128_CCM_8"}
    checks.issued_alone(issued_to(answer), udid=device.udid, key=fresh)


@pytest.mark.conformance("CF-04")
def test_one_certificate_without_cms_around_it(
    coap: CoapClient, device: Device, born: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    fresh = openssl.make_key()
    answer = coap.post("/est/sen", born, openssl.make_csr(fresh), accept=287)
    assert (answer.code, answer.content_format) == ("2.04", PKIX_CERT)
    checks.issued(openssl.to_pem(answer.payload), udid=device.udid, key=fresh)


def test_certs_only_asked_for_by_name(
    coap: CoapClient, device: Device, born: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    fresh = openssl.make_key()
    answer = coap.post("/est/sen", born, openssl.make_csr(fresh), accept=281)
    checks.issued_alone(issued_to(answer), udid=device.udid, key=fresh)


@pytest.mark.conformance("STAT-05")
def test_the_same_request_again_brings_the_same_certificate(
    coap: CoapClient, device: Device, born: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    fresh = openssl.make_key()
    csr = openssl.make_csr(fresh)
    first = issued_to(coap.post("/est/sen", born, csr))
    second = issued_to(coap.post("/est/sen", born, csr))
    assert first.read_bytes() == second.read_bytes()
    assert checks.outcomes() == ["issued", "replayed"]


@pytest.mark.conformance("SR-05", "CR-02")
@pytest.mark.parametrize("block", [64, 1024])
def test_renewal_with_a_fresh_key(
    coap: CoapClient,
    device: Device,
    born: Credentials,
    block: int,
    openssl: OpenSsl,
    checks: Checks,
) -> None:
    first, second = openssl.make_key(), openssl.make_key()
    enrolled = coap.post("/est/sen", born, openssl.make_csr(first))
    current = checks.issued_alone(issued_to(enrolled), udid=device.udid, key=first)
    renewed = coap.post(
        "/est/sren",
        Credentials(current, first),
        openssl.make_csr(second, device.udid),
        block=block,
    )
    checks.issued_alone(issued_to(renewed), udid=device.udid, key=second)
    assert checks.outcomes() == ["issued", "issued"]


@pytest.mark.parametrize("block", BLOCK_SIZES)
@pytest.mark.parametrize("name", ["skg", "skc"])
def test_a_key_made_by_the_server_in_blocks(
    coap: CoapClient,
    device: Device,
    born: Credentials,
    name: str,
    block: int,
    openssl: OpenSsl,
    checks: Checks,
    tmp_path: Path,
) -> None:
    csr = openssl.make_csr(device.key)
    answer = coap.post(f"/est/keygen/{name}", born, csr, block=block)
    assert answer.code == "2.04", answer.text
    outcome = unpack_generated(openssl, tmp_path, answer)
    assert outcome.certificate is not None
    assert outcome.key is not None
    checks.issued(outcome.certificate, udid=device.udid, key=outcome.key)
    assert answer.messages >= answer.payload.stat().st_size // block


def test_not_yet(
    coap: CoapClient,
    server: ServerUnderTest,
    device: Device,
    born: Credentials,
    openssl: OpenSsl,
    checks: Checks,
) -> None:
    csr = openssl.make_csr(device.key)
    first = coap.post("/est/manual/sen", born, csr, block=64)
    assert first.code == "5.03"
    assert "Max-Age:60" in first.text
    server.approve(device.udid)
    second = coap.post("/est/manual/sen", born, csr, block=64)
    checks.issued_alone(issued_to(second), udid=device.udid, key=device.key)


# -- Refusals -------------------------------------------------------------------------------------


def test_an_unlisted_key_is_refused(
    coap: CoapClient, stranger: Device, openssl: OpenSsl, checks: Checks
) -> None:
    bare = Credentials(openssl.make_self_signed(stranger.key), stranger.key)
    answer = coap.post("/est/sen", bare, openssl.make_csr(stranger.key))
    assert answer.code == "4.03"
    assert "not on the device list" in answer.diagnostic
    checks.refused("certificate-not-trusted")


def test_a_genuine_but_unlisted_device_is_refused(
    coap: CoapClient, stranger: Device, openssl: OpenSsl, checks: Checks
) -> None:
    born = Credentials(stranger.short_birth_certificate, stranger.key)
    answer = coap.post("/est/sen", born, openssl.make_csr(stranger.key))
    assert answer.code == "4.03"
    assert "not on the device list" in answer.diagnostic
    checks.refused("unknown-device")


def test_a_second_claim_with_another_key_is_refused(
    coap: CoapClient, born: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    issued_to(coap.post("/est/sen", born, openssl.make_csr(openssl.make_key())))
    answer = coap.post("/est/sen", born, openssl.make_csr(openssl.make_key()))
    assert answer.code == "4.03"
    checks.refused("already-claimed")


@pytest.mark.conformance("CD-06", "CD-07")
def test_no_client_certificate_is_refused(
    coap: CoapClient, device: Device, openssl: OpenSsl, checks: Checks
) -> None:
    answers = [
        coap.get("/est/crts", None),
        coap.post("/est/sen", None, openssl.make_csr(device.key)),
    ]
    for answer in answers:
        assert answer.code == "4.01"
        assert "client certificate is required" in answer.diagnostic
    checks.refused("authentication-required")


@pytest.mark.conformance("POP-21")
def test_a_tampered_request_is_refused(
    coap: CoapClient, device: Device, bare: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    csr = openssl.make_csr(device.key)
    answer = coap.post("/est/sen", bare, openssl.tamper(csr))
    assert answer.code == "4.00"
    assert "does not verify" in answer.diagnostic
    checks.refused("proof-of-possession-failed")
    # Nothing was claimed by it.
    answer = coap.post("/est/sen", bare, csr)
    checks.issued_alone(issued_to(answer), udid=device.udid, key=device.key)


@pytest.mark.conformance("CF-02")
@pytest.mark.parametrize("content_format", [None, 0, 281])
def test_another_content_format_is_refused(
    coap: CoapClient,
    device: Device,
    bare: Credentials,
    content_format: int | None,
    openssl: OpenSsl,
    checks: Checks,
) -> None:
    csr = openssl.make_csr(device.key)
    answer = coap.post("/est/sen", bare, csr, content_format=content_format)
    assert answer.code == "4.15"
    checks.refused("unsupported-media-type")


@pytest.mark.parametrize("path", ["/", "/est", "/est/none", "/est/a/b/sen", "/.well-known/sen"])
def test_an_unknown_path_is_refused(
    coap: CoapClient, bare: Credentials, path: str, checks: Checks
) -> None:
    assert coap.get(path, bare).code == "4.04"
    checks.refused("unknown-operation")


def test_an_unknown_label_is_refused(coap: CoapClient, bare: Credentials, checks: Checks) -> None:
    assert coap.get("/est/no-such-label/crts", bare).code == "4.04"
    checks.refused("unknown-label")


@pytest.mark.conformance("CR-04", "CF-17")
def test_the_wrong_method_is_refused(
    coap: CoapClient, device: Device, bare: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    assert coap.get("/est/sen", bare).code == "4.05"
    assert coap.post("/est/crts", bare, openssl.make_csr(device.key)).code == "4.05"
    checks.refused("method-not-allowed")


@pytest.mark.conformance("CF-06")
def test_an_answer_that_is_not_to_be_had_is_refused(
    coap: CoapClient, bare: Credentials, checks: Checks
) -> None:
    # Two CA certificates do not fit into one application/pkix-cert.
    assert coap.get("/est/crts", bare, accept=287).code == "4.06"
    assert coap.get("/est/crts", bare, accept=60).code == "4.06"
    checks.refused("not-acceptable")


def test_renewal_with_a_birth_certificate_is_refused(
    coap: CoapClient, born: Credentials, openssl: OpenSsl, checks: Checks
) -> None:
    answer = coap.post("/est/sren", born, openssl.make_csr(openssl.make_key()))
    assert answer.code == "4.03"
    checks.refused("certificate-unknown")
