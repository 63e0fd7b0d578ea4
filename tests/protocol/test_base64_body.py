"""Base64 bodies: RFC 8951 section 3, and every way in which they are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_protocol import base64_body
from est_protocol.errors import MessageError
from tests.vectors import rfc_vector_as_sent


@given(st.binary(min_size=1, max_size=500))
def test_what_is_encoded_decodes(octets: bytes) -> None:
    assert base64_body.decode(base64_body.encode(octets)) == octets


@given(st.binary(min_size=1, max_size=500))
def test_lines_have_at_most_64_columns_and_end_in_lf(octets: bytes) -> None:
    lines = base64_body.encode(octets).split(b"\n")
    assert lines[-1] == b""
    assert all(len(line) == 64 for line in lines[:-2])
    assert 0 < len(lines[-2]) <= 64


@pytest.mark.conformance("HTTP-12")
@given(st.binary(min_size=1, max_size=500))
def test_without_wrapping_there_is_one_line(octets: bytes) -> None:
    body = base64_body.encode(octets, wrap=False)
    assert body.index(b"\n") == len(body) - 1
    assert base64_body.decode(body) == octets


@given(st.binary(max_size=300))
def test_octets_from_the_network_raise_message_error_only(body: bytes) -> None:
    try:
        base64_body.decode(body)
    except MessageError:
        return
    assert base64_body.encode(base64_body.decode(body))


@pytest.mark.conformance("HTTP-11", "HTTP-12")
@given(st.binary(min_size=1, max_size=100), st.lists(st.sampled_from(b"\r\n\t ")), st.data())
def test_white_space_means_nothing_wherever_it_is(
    octets: bytes, spaces: list[int], data: st.DataObject
) -> None:
    body = bytearray(base64_body.encode(octets).strip())
    for space in spaces:
        body.insert(data.draw(st.integers(0, len(body))), space)
    assert base64_body.decode(bytes(body)) == octets


@pytest.mark.conformance("HTTP-11")
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
def test_any_line_ending_will_do(ending: bytes) -> None:
    octets = bytes(range(200))
    body = base64_body.encode(octets).replace(b"\n", ending)
    assert base64_body.decode(body) == octets


@pytest.mark.conformance("HTTP-09", "HTTP-14")
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "PEM"),
        (b"\n-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "PEM"),
        (b"\x30\x82\x01\x00", "DER itself"),
        (b"QUJD*", "0x2a at offset 4"),
        (b"QUJD\x00", "0x00 at offset 4"),
        (b"QUJ\xc3\xa4", "0xc3 at offset 3"),
        (b"_-8=", "0x5f at offset 0"),
        (b"QUJDR", "cut short"),
        (b"QQ=", "cut short"),
        (b"Q===", "padded"),
        (b"====", "padded"),
        (b"QQ==QQ==", "padded"),
        (b"QUI=QUJD", "padded"),
        (b"QUJD====", "padded"),
    ],
)
def test_what_is_not_base64_is_refused_with_the_reason(body: bytes, sentence: str) -> None:
    with pytest.raises(MessageError, match=sentence):
        base64_body.decode(body)


@pytest.mark.parametrize("name", ["rfc7030_A1_cacerts_resp.b64", "rfc7030_A3_simpleenroll_req.b64"])
def test_bodies_of_the_rfc_are_made_exactly_like_ours(name: str) -> None:
    body = rfc_vector_as_sent(name)
    assert base64_body.encode(base64_body.decode(body)) == body
