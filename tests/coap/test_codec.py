from __future__ import annotations

import contextlib

import pytest
from aiocoap import Message
from aiocoap.numbers import Code
from aiocoap.numbers.types import CON
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.coap.codec import UNKNOWN_CONTENT_FORMAT, decode_message
from est_protocol.errors import MessageError


def encode(**options: object) -> bytes:
    message = Message(code=Code.POST, payload=b"body", **options)
    message.mtype, message.mid, message.token = CON, 0x1234, b"\x01\x02"
    return bytes(message.encode())


def test_round_trip() -> None:
    octets = encode(
        uri_path=("est", "sen"), content_format=286, accept=281, block1=(3, True, 2), size1=500
    )
    message = decode_message(octets)
    assert (message.code, message.mtype, message.mid) == (Code.POST, CON, 0x1234)
    assert message.token == b"\x01\x02"
    assert message.payload == b"body"
    assert message.opt.uri_path == ("est", "sen")
    assert int(message.opt.content_format) == 286
    assert int(message.opt.accept) == 281
    assert message.opt.block1 == (3, True, 2)
    assert message.opt.size1 == 500
    assert message.bad_option is None


@pytest.mark.conformance("CF-18")
def test_content_formats_are_numbers_without_leading_zeros() -> None:
    assert b"\xc2\x01\x1e\x52\x01\x19" in encode(content_format=286, accept=281)
    assert b"\xc1\x28" in encode(content_format=40)


@pytest.mark.parametrize(
    "octets",
    [
        "",
        "400100",
        "80010001",  # version 2
        "49010001" + "00" * 9,  # a token of 9 octets
        "4201000100",  # token cut off
        "4000000100",  # an empty message that is not empty
        "40010001ff",  # marker without payload
        "40010001f0",  # reserved delta
        "400100010f",  # reserved length
        "40010001d0",  # extended delta cut off
        "40010001b3617a",  # value cut off
        "40010001e0fef2e0ffff",  # number beyond 65535
    ],
)
def test_message_format_errors(octets: str) -> None:
    with pytest.raises(MessageError):
        decode_message(bytes.fromhex(octets))


@pytest.mark.conformance("CR-11")
@pytest.mark.parametrize(
    ("options", "bad"),
    [
        ("10", 1),  # If-Match: critical, of no use here
        ("b1ff", 11),  # Uri-Path that is not UTF-8
        ("d3040a0b0c", 17),  # Accept of three octets
        ("d2040119" + "020119", 17),  # Accept twice
        ("60", None),  # Observe: elective
        ("d1fe00", 267),  # critical, unknown
        ("d1fd00", None),  # elective, unknown
    ],
)
def test_critical_options_that_are_not_understood(options: str, bad: int | None) -> None:
    message = decode_message(bytes.fromhex("40010001" + options))
    assert message.bad_option == bad


def test_content_formats_of_no_use_are_one_number() -> None:
    message = decode_message(encode(content_format=12345))
    assert int(message.opt.content_format) == UNKNOWN_CONTENT_FORMAT


@given(st.binary(max_size=200))
def test_any_octets_decode_or_raise_message_error(octets: bytes) -> None:
    with contextlib.suppress(MessageError):
        decode_message(octets)


@given(st.binary(max_size=60), st.integers(0, 255))
def test_any_options_decode_or_raise_message_error(options: bytes, code: int) -> None:
    with contextlib.suppress(MessageError):
        decode_message(bytes([0x40, code, 0, 1]) + options)


def test_a_message_of_nothing_but_options_is_dropped_early() -> None:
    header, uri_path = b"\x40\x01\x00\x01", b"\xb0"
    assert len(decode_message(header + uri_path + b"\0" * 63).opt.uri_path) == 64
    with pytest.raises(MessageError, match="options"):
        decode_message(header + uri_path + b"\0" * 64)
