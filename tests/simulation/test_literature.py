"""The message sizes that RFC 9148 publishes, and ours."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from est_client.simulation.link import Direction
from est_protocol import certs_only
from tests.vectors import rfc_vector

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "message_sizes.py"


@pytest.fixture(scope="module")
def sizes() -> Any:
    answer = certs_only.decode(rfc_vector("rfc9148_A1_resp.hex"))
    return runpy.run_path(str(PROGRAM))["all_sizes"](answer)


def test_the_crts_answer_of_rfc_9148_takes_ten_blocks(sizes: Any) -> None:
    _, seen = sizes["without the root"]
    # The RFC's has an empty set of CRLs in it, which takes two octets more.
    assert seen.answer == len(rfc_vector("rfc9148_A1_resp.hex")) - 2 == 636
    assert len(seen.blocks) == 10


def test_dtls_takes_29_octets_of_each_datagram_and_coap_21_of_each_answer(sizes: Any) -> None:
    _, seen = sizes["without the root"]
    assert {reply for _, reply in seen.blocks[:-1]} == {29 + 21 + 64}
    assert seen.blocks[-1][1] == 29 + 21 + 60
    # 11 are the RFC's: header 4, token 1, Content-Format 3, Block2 2, marker 1. Ours has an ETag
    # of eight octets (RFC 7959 section 2.4) and a token of two.
    assert 21 == 11 + 9 + 1


def test_smaller_certificates_make_a_smaller_handshake(sizes: Any) -> None:
    totals = {name: sum(seen.handshake.values()) for name, (_, seen) in sizes.items()}
    assert totals["with the root"] - totals["without the root"] == pytest.approx(400, abs=15)
    assert totals["small certificates"] < 0.7 * totals["without the root"]


def test_the_handshake_has_the_messages_of_rfc_6347(sizes: Any) -> None:
    _, seen = sizes["without the root"]
    up = [message for direction, message in seen.messages if direction is Direction.UP]
    assert up == [
        "ClientHello",
        "Certificate",
        "ClientKeyExchange",
        "CertificateVerify",
        "ChangeCipherSpec",
        "Finished",
    ]
    # Explicit nonce, Finished with its header, and tag.
    assert seen.messages[Direction.UP, "Finished"] == 13 + 8 + 12 + 12 + 8
