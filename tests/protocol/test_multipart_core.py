"""application/multipart-core, strictly."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.errors import MessageError
from est_protocol.multipart_core import MAX_OCTETS, Part, decode, encode
from tests.vectors import rfc_vector

parts = st.builds(Part, st.integers(0, 0xFFFF), st.binary(max_size=300))


@given(parts, parts)
def test_what_is_encoded_decodes_to_the_same(one: Part, other: Part) -> None:
    assert decode(encode([one, other])) == (one, other)


@pytest.mark.conformance("CF-08")
def test_the_sample_of_rfc_9148_section_4_3() -> None:
    sample = rfc_vector("rfc9148_sec4.3_multipart_core_sample.hex")
    expected = (
        Part(284, bytes.fromhex("0123456789abcdef")),
        Part(281, bytes.fromhex("fedcba9876543210")),
    )
    assert decode(sample) == expected
    assert encode(expected) == sample


@pytest.mark.conformance("CF-09")
def test_the_order_is_free() -> None:
    octets = encode([Part(281, b"c"), Part(284, b"k")])
    assert decode(octets) == (Part(281, b"c"), Part(284, b"k"))


def test_lengths_need_not_be_the_shortest() -> None:
    octets = bytes.fromhex("84 1a0000011c 5801 aa 190119 5a00000001 bb")
    assert decode(octets) == (Part(284, b"\xaa"), Part(281, b"\xbb"))


@pytest.mark.conformance("CF-08", "CF-10")
@pytest.mark.parametrize(
    "value",
    [
        [],
        [284, b"k"],
        [284, b"k", 281],
        [284, b"k", 281, b"c", 281],
        [284, b"k", 281, b"c", 281, b"c"],
        [-1, b"k", 281, b"c"],
        [65536, b"k", 281, b"c"],
        [True, b"k", 281, b"c"],
        ["284", b"k", 281, b"c"],
        [284, None, 281, b"c"],
        [284, "k", 281, b"c"],
        [284, [b"k"], 281, b"c"],
        [b"k", 284, b"c", 281],
        {284: b"k"},
        cbor2.CBORTag(24, b"x"),
    ],
    ids=repr,
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(MessageError):
        decode(cbor2.dumps(value))


@pytest.mark.conformance("CF-10")
@pytest.mark.parametrize(
    "octets",
    [
        "",
        "84",
        "8419011c41aa19011941",
        "8419011c41aa19011941bb00",
        "9f19011c41aa19011941bbff",
        "8419011c5f41aaff19011941bb",
        "84c242011c41aa19011941bb",
        "c48419011c41aa19011941bb",
        "841f41aa19011941bb",
        "8419011c5bffffffffffffffff19011941bb",
        "98 04 19011c41aa19011941bb",
    ],
)
def test_octets_that_are_no_such_array_are_refused(octets: str) -> None:
    with pytest.raises(MessageError):
        decode(bytes.fromhex(octets))


def test_a_huge_body_is_refused() -> None:
    with pytest.raises(MessageError):
        decode(encode([Part(1, bytes(MAX_OCTETS)), Part(2, b"")]))


@given(st.binary(max_size=60).map(lambda tail: b"\x84" + tail))
def test_nothing_but_message_errors_comes_out(octets: bytes) -> None:
    try:
        found = decode(octets)
    except MessageError:
        return
    assert decode(encode(found)) == found
