"""What a label does otherwise than the RFCs: on the wire, only where it is switched on."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import pytest

from est_protocol import key_delivery, pem_request
from est_protocol.errors import MessageError, RefusalReason, RequestRefused
from est_protocol.media_types import MediaType
from est_protocol.messages import (
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    GeneratedKeyResponse,
    Pending,
)
from est_protocol.operations import WELL_KNOWN_PATH
from est_server.config import load_config
from est_server.legacy_forms import NO_LEGACY_FORMS, LegacyForms, issuers_of
from tests.pki import make_ca, make_leaf
from tests.server.test_config import SMALLEST
from tests.server.test_https import CA, Clerk, get, issue, post, serving

DER = b"a certification request, as far as the transport knows"
LINES = base64.encodebytes(DER)


def pem(kind: str = "CERTIFICATE REQUEST") -> bytes:
    return f"-----BEGIN {kind}-----\n".encode() + LINES + f"-----END {kind}-----\n".encode()


PEMS = [pem(), pem("NEW CERTIFICATE REQUEST"), b"\r\n" + pem().replace(b"\n", b"\r\n"), pem()[:-1]]
NO_PEMS = [
    pem("CERTIFICATE"),
    pem() + pem(),
    b"text in front\n" + pem(),
    pem().replace(b"END C", b"END NEW C"),
    b"-----BEGIN CERTIFICATE REQUEST-----",
    b"-----BEGIN CERTIFICATE REQUEST----------END CERTIFICATE REQUEST-----",
    pem().replace(b"\n", b"\nProc-Type: 4\n", 1),
]


@pytest.mark.parametrize("body", PEMS)
def test_one_request_in_pem(body: bytes) -> None:
    assert pem_request.is_pem(body)
    assert pem_request.remove_armour(body) == DER


@pytest.mark.parametrize("body", NO_PEMS)
def test_what_is_not_one_request_in_pem(body: bytes) -> None:
    with pytest.raises(MessageError):
        pem_request.remove_armour(body)


@pytest.mark.parametrize("body", PEMS)
async def test_pem_is_taken_under_its_label_only(body: bytes) -> None:
    clerk = Clerk(issue, forms=LegacyForms(pem_requests=True))
    async with serving(clerk) as server:
        old = await post(server, f"{WELL_KNOWN_PATH}/old/simpleenroll", body=body)
        new = await post(server, f"{WELL_KNOWN_PATH}/simpleenroll", body=body)
        plain = await post(server, f"{WELL_KNOWN_PATH}/old/simpleenroll", body=LINES)
    assert (old.status, plain.status, new.status) == (200, 200, 400)
    assert b"PEM" in new.body
    assert [request.body for request, _ in clerk.requests] == [DER, DER]
    assert [refusal[0] for refusal in clerk.refusals] == [RefusalReason.MALFORMED_BODY]


@pytest.mark.parametrize("body", NO_PEMS)
async def test_what_is_no_pem_is_refused_under_any_label(body: bytes) -> None:
    clerk = Clerk(issue, forms=LegacyForms(pem_requests=True))
    async with serving(clerk) as server:
        answer = await post(server, f"{WELL_KNOWN_PATH}/old/simpleenroll", body=body)
    assert answer.status == 400
    assert not clerk.requests


@pytest.mark.conformance("HTTP-13")
async def test_content_transfer_encoding_is_said_under_its_label_only() -> None:
    async def answer(request: EstRequest) -> EstResponse:
        if request.body or request.operation.value == "cacerts":
            return await issue(request)
        return CsrAttributesResponse(b"\x30\x00")

    clerk = Clerk(answer, forms=LegacyForms(content_transfer_encoding=True))
    name = "Content-Transfer-Encoding"
    async with serving(clerk) as server:
        for operation in ("cacerts", "csrattrs"):
            old = await get(server, f"{WELL_KNOWN_PATH}/old/{operation}")
            assert (old.status, old.headers[name]) == (200, "base64")
            assert name not in (await get(server, f"{WELL_KNOWN_PATH}/{operation}")).headers
        old = await post(server, f"{WELL_KNOWN_PATH}/old/simpleenroll")
        assert (old.status, old.headers[name]) == (200, "base64")
        refused = await post(server, f"{WELL_KNOWN_PATH}/old/simpleenroll", body=b"!")
        assert name not in refused.headers


async def test_the_parts_of_a_generated_key_say_that_they_are_base64_under_their_label_only() -> (
    None
):
    async def generate(request: EstRequest) -> EstResponse:
        return GeneratedKeyResponse((CA.certificate,), b"a key", protected=False)

    clerk = Clerk(generate, forms=LegacyForms(content_transfer_encoding=True))
    async with serving(clerk) as server:
        old = await post(server, f"{WELL_KNOWN_PATH}/old/serverkeygen")
        new = await post(server, f"{WELL_KNOWN_PATH}/serverkeygen")
    # The message itself is not base64.
    assert "Content-Transfer-Encoding" not in old.headers
    assert old.body.count(b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") == 2
    assert b"Transfer" not in new.body
    media_type = MediaType.parse(old.headers["Content-Type"])
    assert key_delivery.from_multipart_mixed(media_type, old.body).key == b"a key"


async def test_401_and_202_have_no_body_under_their_label_only() -> None:
    async def put_off(request: EstRequest) -> EstResponse:
        if request.body == DER:
            return Pending(60)
        challenges = ('Basic realm="EST"',)
        raise RequestRefused(RefusalReason.AUTHENTICATION_REQUIRED, "who?", challenges=challenges)

    clerk = Clerk(put_off, forms=LegacyForms(empty_bodies=True))
    async with serving(clerk) as server:
        for body, status, header in (
            (LINES, 202, "Retry-After"),
            (b"AAAA", 401, "WWW-Authenticate"),
        ):
            old = await post(server, f"{WELL_KNOWN_PATH}/old/simpleenroll", body=body)
            new = await post(server, f"{WELL_KNOWN_PATH}/simpleenroll", body=body)
            assert (old.status, new.status) == (status, status)
            assert old.headers[header] == new.headers[header]
            assert (old.headers["Content-Length"], old.body) == ("0", b"")
            assert new.body
        refused = await post(server, f"{WELL_KNOWN_PATH}/old/simpleenroll", body=b"!")
        assert (refused.status, bool(refused.body)) == (400, True)


def test_everything_is_off_by_default(tmp_path: Path) -> None:
    for name in ("ca.pem", "ca.key", "https.pem", "https.key"):
        (tmp_path / name).touch()
    file = tmp_path / "est-server.toml"
    file.write_text(SMALLEST + "[labels.old.legacy]\npem_requests = true\nissuer_chain = true\n")
    config = load_config(file)
    assert config.default.legacy == NO_LEGACY_FORMS
    assert not any(dataclasses.astuple(NO_LEGACY_FORMS))
    assert config.labels["old"].legacy == LegacyForms(pem_requests=True, issuer_chain=True)


def test_the_chain_is_found_by_signatures_and_ends_below_the_root() -> None:
    root = make_ca("chain root")
    middle = make_ca("chain middle", root)
    issuing = make_ca("chain issuing", middle)
    namesake = make_ca("chain issuing", make_ca("another root"))
    leaf = make_leaf(issuing, "leaf").chain[0]
    rest = [root.certificate, middle.certificate, issuing.certificate]
    assert issuers_of(leaf, rest) == (issuing.certificate, middle.certificate)
    assert issuers_of(leaf, [root.certificate]) == ()
    assert issuers_of(make_leaf(root, "other").chain[0], rest) == ()
    assert namesake.certificate not in issuers_of(leaf, [*rest, namesake.certificate])[1:]
