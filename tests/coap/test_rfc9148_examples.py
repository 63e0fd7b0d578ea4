"""The CoAP messages of RFC 9148 appendix A.1 and B.1, octet for octet."""

from __future__ import annotations

import pytest
from aiocoap.message import Direction
from aiocoap.numbers import Code
from aiocoap.numbers.types import ACK, CON

from est_protocol import certs_only
from est_protocol.coap.codec import ReceivedMessage, decode_message
from tests.vectors import rfc_vector


def encoded(message: ReceivedMessage) -> bytes:
    message.direction = Direction.OUTGOING
    return bytes(message.encode())


@pytest.mark.conformance("CF-18")
def test_request_for_the_ca_certificates() -> None:
    octets = rfc_vector("DERIVED_rfc9148_A1_coap_request.hex")
    message = decode_message(octets)
    assert (message.code, message.mtype, message.token) == (Code.GET, CON, b"\x9a")
    assert (message.opt.uri_host, message.opt.uri_port) == ("example.com", 9085)
    assert message.opt.uri_path == ("est", "crts")
    assert int(message.opt.accept) == 281
    assert message.bad_option is None
    assert encoded(message) == octets


@pytest.mark.conformance("CF-18", "CR-01")
def test_answer_with_the_ca_certificates() -> None:
    octets = rfc_vector("DERIVED_rfc9148_A1_coap_response.hex")
    message = decode_message(octets)
    assert (message.code, message.mtype, message.token) == (Code.CONTENT, ACK, b"\x9a")
    assert int(message.opt.content_format) == 281
    assert message.payload == rfc_vector("rfc9148_A1_resp.hex")
    assert len(certs_only.decode(message.payload)) == 1
    assert encoded(message) == octets


def test_first_block_of_the_ca_certificates() -> None:
    octets = rfc_vector("DERIVED_rfc9148_B1_coap_block0_response.hex")
    message = decode_message(octets)
    assert (message.opt.block2, int(message.opt.content_format)) == ((0, True, 2), 281)
    assert message.payload == rfc_vector("rfc9148_B1_block0.hex")
    assert encoded(message) == octets


def test_the_printed_blocks_are_of_one_body_in_blocks_of_64() -> None:
    """Blocks 2 to 8 are not printed; the first says how long the body is."""
    first, second, last = (rfc_vector(f"rfc9148_B1_block{number}.hex") for number in (0, 1, 9))
    assert (len(first), len(second)) == (64, 64)
    assert first[:2] == b"\x30\x82"
    assert int.from_bytes(first[2:4], "big") + 4 == 9 * 64 + len(last)
