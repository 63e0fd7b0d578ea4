"""A generated key and its certificate on the wire, and the examples of the RFCs."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from est_protocol import multipart_core, multipart_mixed
from est_protocol.errors import MessageError
from est_protocol.key_delivery import (
    from_multipart_core,
    from_multipart_mixed,
    to_multipart_core,
    to_multipart_mixed,
)
from est_protocol.key_package import decode_private_key, encode_private_key
from est_protocol.keys import generate_key, spki_der
from est_protocol.media_types import CERTS_ONLY, MediaType
from est_protocol.messages import GeneratedKeyResponse
from est_protocol.pkcs10 import CertificationRequest
from tests.pki import make_ca, make_leaf
from tests.vectors import rfc_vector, rfc_vector_as_sent

LEAF = make_leaf(make_ca("issuing"), "device")
KEY = encode_private_key(LEAF.key)
ANSWERS = [GeneratedKeyResponse(LEAF.chain[:1], KEY, protected) for protected in (False, True)]


@pytest.mark.conformance("CF-13")
@pytest.mark.parametrize("answer", ANSWERS, ids=["clear", "protected"])
def test_what_is_encoded_decodes_to_the_same(answer: GeneratedKeyResponse) -> None:
    assert from_multipart_mixed(*to_multipart_mixed(answer)) == answer
    assert from_multipart_core(to_multipart_core(answer, bare_certificate=False)) == answer
    assert from_multipart_core(to_multipart_core(answer, bare_certificate=True)) == answer


@pytest.mark.conformance("SKG-08", "SKG-18", "CF-11", "SKG-06", "SKG-09")
@pytest.mark.parametrize("answer", ANSWERS, ids=["clear", "protected"])
def test_the_types_of_the_parts(answer: GeneratedKeyResponse) -> None:
    key, certificate = multipart_mixed.decode(*to_multipart_mixed(answer))
    expected = "application/pkcs7-mime; smime-type=server-generated-key"
    assert str(key.media_type) == (expected if answer.protected else "application/pkcs8")
    assert certificate.media_type == CERTS_ONLY
    skg = to_multipart_core(answer, bare_certificate=False)
    skc = to_multipart_core(answer, bare_certificate=True)
    number = (280 if answer.protected else 284).to_bytes(2, "big")
    assert skg[1:4] == skc[1:4] == b"\x19" + number
    assert b"\x19" + (281).to_bytes(2, "big") in skg
    assert b"\x19" + (287).to_bytes(2, "big") in skc


def test_the_private_key_is_not_in_the_repr() -> None:
    assert KEY.hex() not in repr(ANSWERS[0])
    assert repr(KEY) not in repr(ANSWERS[0])


@pytest.mark.conformance("CF-08", "CF-13")
def test_the_answer_of_rfc_9148_a_3() -> None:
    octets = rfc_vector("rfc9148_A3_resp_multipart_core.hex")
    answer = from_multipart_core(octets)
    assert answer.key == rfc_vector("rfc9148_A3_resp_key.hex")
    assert not answer.protected
    [certificate] = answer.certificates
    key = decode_private_key(answer.key)
    assert spki_der(key.public_key()) == spki_der(certificate.public_key())
    assert encode_private_key(key) == answer.key
    # Its certs-only message has an empty set of CRLs, which need not be there.
    assert multipart_core.encode(multipart_core.decode(octets)) == octets


@pytest.mark.conformance("SKG-07", "SKG-08", "SKG-10")
def test_the_answer_of_rfc_7030_a_4() -> None:
    boundary = b"--estServerExampleBoundary\r\n"
    body = b"preamble\r\n" + boundary
    body += b"Content-Type: application/pkcs8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    body += rfc_vector_as_sent("rfc7030_A4_serverkeygen_resp_pkcs8.b64") + b"\r\n" + boundary
    body += b"Content-Type: application/pkcs7-mime; smime-type=certs-only\r\n"
    body += b"Content-Transfer-Encoding: base64\r\n\r\n"
    body += rfc_vector_as_sent("rfc7030_A4_serverkeygen_resp_cert.b64")
    body += b"\r\n--estServerExampleBoundary--\r\nepilogue"
    media_type = MediaType.parse("multipart/mixed ; boundary=estServerExampleBoundary")
    answer = from_multipart_mixed(media_type, body)
    [certificate] = answer.certificates
    key = decode_private_key(answer.key)
    assert spki_der(key.public_key()) == spki_der(certificate.public_key())
    csr = CertificationRequest.decode(rfc_vector("rfc7030_A4_serverkeygen_req.b64"))
    assert spki_der(csr.public_key) != spki_der(key.public_key())


@pytest.mark.conformance("SKG-07")
def test_parts_come_in_any_order_and_strange_ones_are_left_alone() -> None:
    parts = multipart_mixed.decode(*to_multipart_mixed(ANSWERS[0]))
    note = multipart_mixed.Part(MediaType("text/plain"), b"hello")
    shuffled = multipart_mixed.encode([parts[1], note, parts[0]])
    assert from_multipart_mixed(*shuffled) == ANSWERS[0]


@pytest.mark.parametrize("which", [[], [0], [1], [0, 0], [1, 1], [0, 1, 0], [1, 0, 1]])
def test_one_key_and_one_certificate_or_nothing(which: list[int]) -> None:
    parts = multipart_mixed.decode(*to_multipart_mixed(ANSWERS[0]))
    with pytest.raises(MessageError):
        from_multipart_mixed(*multipart_mixed.encode([parts[i] for i in which]))


@given(st.data())
def test_mutated_answers_raise_message_errors_only(data: st.DataObject) -> None:
    octets = bytearray(to_multipart_core(ANSWERS[0], bare_certificate=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        answer = from_multipart_core(bytes(octets))
        decode_private_key(answer.key)
    except MessageError:
        return


@pytest.mark.conformance("SKG-08")
@pytest.mark.parametrize("kind", ["ec-p256", "ec-p521", "ed25519", "rsa-2048"])
def test_private_keys_come_back(kind: str) -> None:
    key = generate_key(kind)
    decoded = decode_private_key(encode_private_key(key))
    assert spki_der(decoded.public_key()) == spki_der(key.public_key())


@pytest.mark.parametrize("kind", ["ec-p256", "rsa-2048"])
def test_sec1_and_pkcs1_are_tolerated(kind: str) -> None:
    key = generate_key(kind)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    octets = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert spki_der(decode_private_key(octets).public_key()) == spki_der(key.public_key())


def test_an_encrypted_pkcs8_is_refused() -> None:
    octets = LEAF.key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    with pytest.raises(MessageError):
        decode_private_key(octets)


@given(st.binary(max_size=100))
def test_random_octets_are_no_private_key(octets: bytes) -> None:
    with pytest.raises(MessageError):
        decode_private_key(octets)


def test_pkcs8_of_the_wrong_use_is_refused() -> None:
    octets = x25519.X25519PrivateKey.generate().private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    with pytest.raises(MessageError):
        decode_private_key(octets)
