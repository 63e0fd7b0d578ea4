"""Certs-only messages: what is sent, what is accepted, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from est_protocol import certs_only
from est_protocol.errors import MessageError
from tests.vectors import rfc_vector


@cache
def certificate(number: int) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"certificate {number}")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number + 1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


@cache
def message() -> bytes:
    return certs_only.encode([certificate(0), certificate(1)])


@given(st.sets(st.integers(0, 4), min_size=1))
def test_what_is_encoded_decodes_to_the_same_set(numbers: set[int]) -> None:
    certificates = [certificate(number) for number in numbers]
    decoded = certs_only.decode(certs_only.encode(certificates))
    assert sorted(c.serial_number for c in decoded) == [n + 1 for n in sorted(numbers)]
    assert set(decoded) == set(certificates)


@pytest.mark.conformance("CA-03")
def test_the_message_is_a_degenerate_signed_data() -> None:
    info = cms.ContentInfo.load(message(), strict=True)
    assert info["content_type"].native == "signed_data"
    signed_data = info["content"]
    assert signed_data["version"].native == "v1"
    assert len(signed_data["digest_algorithms"]) == 0
    assert signed_data["encap_content_info"]["content_type"].native == "data"
    assert signed_data["encap_content_info"]["content"].native is None
    assert len(signed_data["certificates"]) == 2
    assert len(signed_data["signer_infos"]) == 0


def test_certificates_travel_octet_for_octet() -> None:
    assert certificate(0).public_bytes(Encoding.DER) in message()


@given(st.binary(max_size=200))
def test_random_octets_raise_message_error_only(octets: bytes) -> None:
    with pytest.raises(MessageError):
        certs_only.decode(octets)


@given(st.data())
def test_changed_octets_raise_message_error_only(data: st.DataObject) -> None:
    octets = bytearray(message())
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = certs_only.decode(bytes(octets))
    except MessageError:
        return
    for found in decoded:
        assert found.extensions is not None
        assert found.subject is not None


@given(st.integers(0, 700))
def test_a_message_cut_short_is_refused(length: int) -> None:
    with pytest.raises(MessageError):
        certs_only.decode(message()[: min(length, len(message()) - 1)])


def test_octets_after_the_end_are_refused() -> None:
    with pytest.raises(MessageError, match="after its end"):
        certs_only.decode(message() + b"\x00")


@pytest.mark.conformance("HTTP-15")
def test_an_indefinite_length_is_refused() -> None:
    content = message()[4:]
    with pytest.raises(MessageError, match="indefinite"):
        certs_only.decode(b"\x30\x80" + content + b"\x00\x00")


@pytest.mark.conformance("HTTP-15")
def test_a_length_that_is_not_minimal_is_refused() -> None:
    size = len(message()) - 4
    with pytest.raises(MessageError, match="not minimal"):
        certs_only.decode(b"\x30\x83" + size.to_bytes(3, "big") + message()[4:])


@pytest.mark.conformance("HTTP-17")
def test_deep_nesting_costs_nothing() -> None:
    with pytest.raises(MessageError):
        certs_only.decode(b"\x30\x80" * 100_000)


def test_the_number_of_certificates_is_bounded() -> None:
    assert len(certs_only.decode(message(), max_certificates=2)) == 2
    with pytest.raises(MessageError, match="more than 1"):
        certs_only.decode(message(), max_certificates=1)


def test_the_size_is_bounded() -> None:
    assert certs_only.decode(message(), max_octets=len(message()))
    with pytest.raises(MessageError, match="longer than"):
        certs_only.decode(message(), max_octets=len(message()) - 1)


def test_a_message_without_certificates_is_refused() -> None:
    empty = bytes.fromhex("302306092a864886f70d010702a0163014020101")
    empty += bytes.fromhex("3100300b06092a864886f70d0107013100")
    with pytest.raises(MessageError, match="no certificate"):
        certs_only.decode(empty)


@pytest.mark.conformance("CL-06", "CA-16")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("rfc7030_A1_cacerts_resp.b64", 4),
        ("rfc7030_A3_simpleenroll_resp.b64", 1),
        ("rfc7030_A4_serverkeygen_resp_cert.b64", 1),
        ("rfc9148_A1_resp.hex", 1),
        ("rfc9148_A2_resp.hex", 1),
        ("rfc9148_A3_resp_cert.hex", 1),
    ],
)
def test_the_examples_of_the_rfcs_decode(name: str, count: int) -> None:
    assert len(certs_only.decode(rfc_vector(name))) == count


@pytest.mark.parametrize("name", ["rfc7030_A3_simpleenroll_req.b64", "rfc9148_A4_csrattrs.hex"])
def test_other_messages_of_the_rfcs_are_refused(name: str) -> None:
    with pytest.raises(MessageError):
        certs_only.decode(rfc_vector(name))


@pytest.mark.conformance("CA-16")
def test_an_empty_crls_field_is_accepted_and_ours_differs_in_nothing_else() -> None:
    theirs = rfc_vector("rfc9148_A1_resp.hex")
    assert theirs.endswith(b"\xa1\x00\x31\x00")
    ours = certs_only.encode(certs_only.decode(theirs))
    assert ours[4:].split(b"0\x82")[-1].removesuffix(b"\x31\x00") == theirs[4:].split(b"0\x82")[
        -1
    ].removesuffix(b"\xa1\x00\x31\x00")
