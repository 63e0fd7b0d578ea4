"""RFC 7030 by hand: curl for the requests, openssl for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.client_peer import Credentials
from interop.conftest import NewDevice
from interop.curl.driver import Answer, Curl
from interop.devices import Device
from interop.peers import find_peer
from interop.server import ServerUnderTest
from interop.transcript import Transcript

CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
ENROLL = "/.well-known/est/simpleenroll"
REENROLL = "/.well-known/est/simplereenroll"


@pytest.fixture(params=["1.2", "1.3"])
def curl(
    request: pytest.FixtureRequest,
    server: ServerUnderTest,
    transcript: Transcript,
    tmp_path: Path,
) -> Curl:
    """curl with one version of TLS."""
    return Curl(
        find_peer("curl"),
        transcript,
        url=server.https,
        ca=server.ca,
        directory=tmp_path,
        tls=request.param,
    )


@pytest.fixture
def curl13(server: ServerUnderTest, transcript: Transcript, tmp_path: Path) -> Curl:
    """curl with TLS 1.3, for what does not depend on the version."""
    return Curl(find_peer("curl"), transcript, url=server.https, ca=server.ca, directory=tmp_path)


@pytest.fixture
def born(device: Device) -> Credentials:
    """A birth certificate with its chain."""
    return Credentials(device.birth_certificate, device.key)


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody who enrolls by hand."""

    openssl: OpenSsl
    checks: Checks

    def body(self, key: Path, common_name: str = "any") -> Path:
        """The body of a request for ``key``."""
        return self.openssl.to_base64(self.openssl.make_csr(key, common_name))

    def certificate(self, answer: Answer, *, udid: str, key: Path) -> Path:
        """The certificate in an answer, judged."""
        assert (answer.status, answer.headers["Content-Type"]) == (200, CERTS_ONLY)
        assert int(answer.headers["Content-Length"]) == answer.body.stat().st_size
        certs_only = self.openssl.from_base64(answer.body)
        return self.checks.issued_alone(certs_only, udid=udid, key=key)


@pytest.fixture
def operator(openssl: OpenSsl, checks: Checks) -> Operator:
    """Somebody who enrolls by hand."""
    return Operator(openssl, checks)


# -- CA certificates and enrollment ---------------------------------------------------------------


@pytest.mark.conformance("CA-01", "CA-04")
def test_ca_certificates(curl: Curl, openssl: OpenSsl, checks: Checks) -> None:
    answer = curl.get("/.well-known/est/cacerts")
    assert (answer.status, answer.headers["Content-Type"]) == (200, CERTS_ONLY)
    assert int(answer.headers["Content-Length"]) == answer.body.stat().st_size
    checks.ca_certificates(openssl.unpack(openssl.from_base64(answer.body)))


def test_curl_speaks_the_version_that_it_was_told(
    curl: Curl, request: pytest.FixtureRequest, checks: Checks
) -> None:
    version = request.node.callspec.params["curl"]
    assert curl.get("/.well-known/est/cacerts").protocol == f"TLSv{version}"


@pytest.mark.conformance("SE-02", "SE-03", "SR-05", "SR-08", "AUTH-05")
def test_a_birth_certificate_enrolls_a_fresh_key_and_renews_it(
    curl: Curl, device: Device, born: Credentials, operator: Operator
) -> None:
    first, second = operator.openssl.make_key(), operator.openssl.make_key()
    enrolled = curl.post(ENROLL, born, operator.body(first))
    current = operator.certificate(enrolled, udid=device.udid, key=first)
    renewed = curl.post(REENROLL, Credentials(current, first), operator.body(second, device.udid))
    operator.certificate(renewed, udid=device.udid, key=second)
    assert operator.checks.outcomes() == ["issued", "issued"]


def test_a_bare_listed_key_enrolls_itself_with_a_self_signed_certificate(
    curl: Curl, device: Device, operator: Operator
) -> None:
    bare = Credentials(operator.openssl.make_self_signed(device.key), device.key)
    answer = curl.post(ENROLL, bare, operator.body(device.key))
    operator.certificate(answer, udid=device.udid, key=device.key)


@pytest.mark.parametrize(
    "kind",
    [
        ("EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
        ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
        ("ED25519",),
    ],
    ids=lambda kind: kind[0],
)
def test_fresh_keys_of_other_kinds(
    curl13: Curl,
    device: Device,
    born: Credentials,
    kind: tuple[str, ...],
    operator: Operator,
) -> None:
    fresh = operator.openssl.make_key(*kind)
    answer = curl13.post(ENROLL, born, operator.body(fresh))
    current = operator.certificate(answer, udid=device.udid, key=fresh)
    # The new certificate is good for TLS.
    renewed = curl13.post(REENROLL, Credentials(current, fresh), operator.body(fresh, device.udid))
    operator.certificate(renewed, udid=device.udid, key=fresh)


@pytest.mark.conformance("STAT-05", "STAT-14")
def test_the_same_request_again_brings_the_same_certificate(
    curl13: Curl, born: Credentials, operator: Operator
) -> None:
    body = operator.body(operator.openssl.make_key())
    first, second = (curl13.post(ENROLL, born, body) for _ in range(2))
    assert first.body.read_bytes() == second.body.read_bytes()
    assert operator.checks.outcomes() == ["issued", "replayed"]


def test_a_body_announced_with_expect_100_continue(
    curl13: Curl, device: Device, born: Credentials, operator: Operator
) -> None:
    fresh = operator.openssl.make_key()
    options = ("--header", "Expect: 100-continue")
    answer = curl13.post(ENROLL, born, operator.body(fresh), options=options)
    operator.certificate(answer, udid=device.udid, key=fresh)


def test_a_chunked_body(
    curl13: Curl, device: Device, born: Credentials, operator: Operator
) -> None:
    fresh = operator.openssl.make_key()
    options = ("--header", "Transfer-Encoding: chunked")
    answer = curl13.post(ENROLL, born, operator.body(fresh), options=options)
    operator.certificate(answer, udid=device.udid, key=fresh)


@pytest.mark.conformance("HTTP-11")
@pytest.mark.parametrize(
    ("line_end", "columns"), [(b"", 10_000), (b"\n", 64), (b"\r\n", 76), (b"\t ", 4)]
)
def test_base64_with_any_white_space(
    curl13: Curl,
    device: Device,
    born: Credentials,
    line_end: bytes,
    columns: int,
    tmp_path: Path,
    operator: Operator,
) -> None:
    fresh = operator.openssl.make_key()
    text = operator.body(fresh).read_bytes().replace(b"\n", b"")
    body = tmp_path / "body"
    body.write_bytes(
        b"".join(text[start : start + columns] + line_end for start in range(0, len(text), columns))
    )
    answer = curl13.post(ENROLL, born, body)
    operator.certificate(answer, udid=device.udid, key=fresh)


@pytest.mark.conformance("HTTP-08")
@pytest.mark.parametrize(
    "content_type",
    ["APPLICATION/PKCS10", "application/pkcs10; charset=us-ascii", "application/pkcs10;a=b"],
)
def test_the_media_type_in_any_spelling(
    curl13: Curl,
    device: Device,
    born: Credentials,
    content_type: str,
    operator: Operator,
) -> None:
    fresh = operator.openssl.make_key()
    answer = curl13.post(ENROLL, born, operator.body(fresh), content_type=content_type)
    operator.certificate(answer, udid=device.udid, key=fresh)


# -- Refusals -------------------------------------------------------------------------------------


def refused(answer: Answer, status: int, words: str) -> None:
    """Check that ``answer`` says no, and why, to a person."""
    assert answer.status == status
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert words in answer.explanation
    assert answer.explanation.endswith("\n")


@pytest.mark.conformance("AUTH-01")
def test_no_client_certificate_is_refused(curl: Curl, device: Device, operator: Operator) -> None:
    # 403, since 401 would have to offer an HTTP authentication that there is not.
    answer = curl.post(ENROLL, None, operator.body(device.key))
    refused(answer, 403, "present a client certificate, or link the certification request")
    operator.checks.refused("authentication-required")


def test_an_unlisted_key_is_refused(curl: Curl, stranger: Device, operator: Operator) -> None:
    bare = Credentials(operator.openssl.make_self_signed(stranger.key), stranger.key)
    answer = curl.post(ENROLL, bare, operator.body(stranger.key))
    refused(answer, 403, "its key is not on the device list")
    operator.checks.refused("certificate-not-trusted")


def test_a_genuine_but_unlisted_device_is_refused(
    curl: Curl, stranger: Device, operator: Operator
) -> None:
    born = Credentials(stranger.birth_certificate, stranger.key)
    answer = curl.post(ENROLL, born, operator.body(operator.openssl.make_key()))
    refused(answer, 403, "the certificate is genuine, but its key is not on the device list")
    operator.checks.refused("unknown-device")


def test_a_second_claim_with_another_key_is_refused(
    curl13: Curl, born: Credentials, operator: Operator
) -> None:
    first = curl13.post(ENROLL, born, operator.body(operator.openssl.make_key()))
    assert first.status == 200
    second = curl13.post(ENROLL, born, operator.body(operator.openssl.make_key()))
    refused(second, 403, "already")
    operator.checks.refused("already-claimed")


def test_a_listed_key_of_another_device_is_refused(
    curl13: Curl, born: Credentials, new_device: NewDevice, operator: Operator
) -> None:
    answer = curl13.post(ENROLL, born, operator.body(new_device().key))
    refused(answer, 403, "belongs to another device")
    operator.checks.refused("identity-mismatch")


@pytest.mark.conformance("SR-03")
def test_a_renewal_under_another_name_is_refused(
    curl13: Curl, device: Device, born: Credentials, operator: Operator
) -> None:
    key = operator.openssl.make_key()
    enrolled = curl13.post(ENROLL, born, operator.body(key))
    current = operator.certificate(enrolled, udid=device.udid, key=key)
    answer = curl13.post(REENROLL, Credentials(current, key), operator.body(key, "sensor-9999"))
    refused(answer, 403, "subject of the certification request differs")
    operator.checks.refused("identity-mismatch")


def test_a_renewal_with_a_birth_certificate_is_refused(
    curl13: Curl, device: Device, born: Credentials, operator: Operator
) -> None:
    answer = curl13.post(REENROLL, born, operator.body(device.key, device.udid))
    refused(answer, 403, "a first enrollment is simpleenroll")
    operator.checks.refused("certificate-unknown")


def test_a_superseded_certificate_renews_no_further(
    curl13: Curl, device: Device, born: Credentials, operator: Operator
) -> None:
    first, second = operator.openssl.make_key(), operator.openssl.make_key()
    enrolled = curl13.post(ENROLL, born, operator.body(first))
    old = Credentials(operator.certificate(enrolled, udid=device.udid, key=first), first)
    assert curl13.post(REENROLL, old, operator.body(second, device.udid)).status == 200
    third = operator.openssl.make_key()
    answer = curl13.post(REENROLL, old, operator.body(third, device.udid))
    refused(answer, 403, "the certificate was renewed already")
    operator.checks.refused("certificate-superseded")


@pytest.mark.conformance("POP-03", "POP-15")
def test_a_challenge_password_of_another_channel_is_refused(
    curl: Curl, device: Device, born: Credentials, openssl: OpenSsl, operator: Operator
) -> None:
    csr = openssl.make_csr(device.key, challenge_password="AAAAAAAAAAAAAAAA")
    answer = curl.post(ENROLL, born, openssl.to_base64(csr))
    refused(answer, 403, "challengePassword is not the base64")
    operator.checks.refused("pop-linking-failed")


@pytest.mark.conformance("POP-21", "SE-11")
def test_a_tampered_request_is_refused(
    curl13: Curl, device: Device, born: Credentials, operator: Operator
) -> None:
    csr = operator.openssl.make_csr(device.key)
    tampered = operator.openssl.to_base64(operator.openssl.tamper(csr))
    refused(curl13.post(ENROLL, born, tampered), 400, "does not verify with its key")
    operator.checks.refused("proof-of-possession-failed")
    # Nothing was claimed by it.
    answer = curl13.post(ENROLL, born, operator.openssl.to_base64(csr))
    operator.certificate(answer, udid=device.udid, key=device.key)


@pytest.mark.conformance("HTTP-09", "HTTP-14", "SE-11")
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMII=\n", "the body is PEM"),
        (b"MIIB", "certification request"),
        (b"MII", "cut short"),
        (b"!!!!", "not base64"),
    ],
    ids=["empty", "pem", "truncated", "cut-short", "no-base64"],
)
def test_a_body_that_is_no_request_is_refused(
    curl13: Curl, born: Credentials, body: bytes, words: str, tmp_path: Path, checks: Checks
) -> None:
    file = tmp_path / "body"
    file.write_bytes(body)
    refused(curl13.post(ENROLL, born, file), 400, words)
    assert checks.outcomes() == ["refused"]


@pytest.mark.conformance("HTTP-09")
def test_the_der_itself_is_refused(curl13: Curl, born: Credentials, operator: Operator) -> None:
    csr = operator.openssl.make_csr(born.key)
    refused(curl13.post(ENROLL, born, csr), 400, "it looks like the DER itself")
    operator.checks.refused("malformed-body")


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded"])
def test_another_media_type_is_refused(
    curl13: Curl,
    device: Device,
    born: Credentials,
    content_type: str | None,
    operator: Operator,
) -> None:
    body = operator.body(device.key)
    answer = curl13.post(ENROLL, born, body, content_type=content_type)
    refused(answer, 415, "application/pkcs10")
    operator.checks.refused("unsupported-media-type")


@pytest.mark.conformance("HTTP-17")
@pytest.mark.parametrize("options", [(), ("--header", "Transfer-Encoding: chunked")])
def test_a_body_beyond_the_bound_is_refused(
    curl13: Curl, born: Credentials, options: tuple[str, ...], tmp_path: Path, checks: Checks
) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"A" * 65537)
    refused(curl13.post(ENROLL, born, body, options=options), 413, "larger than 65536 octets")
    checks.refused("body-too-large")


@pytest.mark.parametrize(
    "path", ["/.well-known/est/nothing", "/.well-known/est/a/b/cacerts", "/.well-known/est/"]
)
def test_an_unknown_operation_is_refused(curl13: Curl, path: str, checks: Checks) -> None:
    refused(curl13.get(path), 404, "no such EST operation")
    checks.refused("unknown-operation")


def test_an_unknown_label_is_refused(curl13: Curl, checks: Checks) -> None:
    refused(curl13.get("/.well-known/est/no-such-label/cacerts"), 404, "no-such-label")
    checks.refused("unknown-label")


@pytest.mark.conformance("HTTP-07")
def test_the_wrong_method_is_refused(curl13: Curl, born: Credentials, checks: Checks) -> None:
    answer = curl13.get(ENROLL, born)
    refused(answer, 405, "asked for with POST")
    assert answer.headers["Allow"] == "POST"
    answer = curl13.request("/.well-known/est/cacerts", born, "--request", "DELETE")
    refused(answer, 405, "asked for with GET")
    assert answer.headers["Allow"] == "GET"
    checks.refused("method-not-allowed")
