"""The header fields of RFC 9440, read strictly."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.client_certificate_fields import (
    CLIENT_CERT,
    CLIENT_CERT_CHAIN,
    decode_chain,
    decode_octets,
    encode_chain,
    encode_octets,
)
from est_protocol.errors import MessageError
from tests.pki import make_ca, make_leaf

CHAIN = make_leaf(make_ca("below", make_ca("between", make_ca("top"))), "device").chain
FIELDS = encode_chain(CHAIN)


@given(st.binary(max_size=200))
def test_octets_come_back(octets: bytes) -> None:
    assert decode_octets(encode_octets(octets), largest=200) == octets


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "YWJj",
        ":YWJj",
        "YWJj:",
        ":YWJj:;a=1",
        ":YWJ j:",
        ":YWJj\n:",
        ":YWJ:",
        ":YW==:YW==:",
        ":YX==:",
        ":YWJj====:",
        ":-_-_:",
        ":\u00e9\u00e9\u00e9\u00e9:",
        "::::",
        ' ":YWJj:"',
    ],
)
def test_what_is_no_byte_sequence(text: str) -> None:
    with pytest.raises(MessageError):
        decode_octets(text, largest=100)


def test_octets_are_bounded() -> None:
    assert decode_octets(encode_octets(b"x" * 10), largest=10) == b"x" * 10
    for length in (11, 12, 1_000_000):
        with pytest.raises(MessageError, match="longer than 10"):
            decode_octets(encode_octets(b"x" * length), largest=10)


@pytest.mark.conformance("HTTP-21")
def test_a_chain_comes_back_in_its_order() -> None:
    assert len(CHAIN) == 3
    assert decode_chain(FIELDS[CLIENT_CERT], FIELDS[CLIENT_CERT_CHAIN]) == CHAIN
    assert decode_chain(FIELDS[CLIENT_CERT], None) == CHAIN[:1]
    assert encode_chain(()) == {}
    assert encode_chain(CHAIN[:1]).keys() == {CLIENT_CERT}


def test_a_chain_is_bounded() -> None:
    assert len(decode_chain(FIELDS[CLIENT_CERT], FIELDS[CLIENT_CERT_CHAIN], longest=3)) == 3
    with pytest.raises(MessageError, match="more than 2"):
        decode_chain(FIELDS[CLIENT_CERT], FIELDS[CLIENT_CERT_CHAIN], longest=2)
    der = CHAIN[0].public_bytes(Encoding.DER)
    with pytest.raises(MessageError, match="longer than"):
        decode_chain(FIELDS[CLIENT_CERT], None, largest=len(der) - 1)


@pytest.mark.parametrize("issuers", ["", ",", "::", f"{FIELDS[CLIENT_CERT]},"])
def test_members_that_are_missing(issuers: str) -> None:
    with pytest.raises(MessageError):
        decode_chain(FIELDS[CLIENT_CERT], issuers)


def test_octets_after_the_certificate_are_refused() -> None:
    der = CHAIN[0].public_bytes(Encoding.DER) + b"\0"
    with pytest.raises(MessageError):
        decode_chain(encode_octets(der), None)


@given(st.text(max_size=60), st.none() | st.text(max_size=60))
def test_any_text_decodes_or_is_a_message_error(certificate: str, issuers: str | None) -> None:
    with pytest.raises(MessageError):
        decode_chain(certificate, issuers)


@given(st.data())
def test_damaged_certificates_decode_or_are_message_errors(data: st.DataObject) -> None:
    der = bytearray(CHAIN[0].public_bytes(Encoding.DER))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        [certificate] = decode_chain(encode_octets(bytes(der)), None)
    except MessageError:
        return
    assert certificate.public_bytes(Encoding.DER) == bytes(der)
