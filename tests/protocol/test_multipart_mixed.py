"""The multipart/mixed body of /serverkeygen, with the liberties that other servers take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.errors import MessageError
from est_protocol.media_types import CERTS_ONLY, PKCS8, MediaType
from est_protocol.multipart_mixed import MAX_OCTETS, MAX_PARTS, Part, decode, encode

#: As it is printed in RFC 7030 appendix A.4, blanks and all, the bodies cut short.
RFC_7030_TYPE = "multipart/mixed ; boundary=estServerExampleBoundary"
RFC_7030_BODY = b"""\
This is the preamble.  It is to be ignored, though it is a handy place
for estServer to include an explanatory note, including contact or
support information.
--estServerExampleBoundary
Content-Type: application/pkcs8
Content-Transfer-Encoding: base64

MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDPwKYcgcvN2Odw
--estServerExampleBoundary
Content-Type: application/pkcs7-mime; smime-type=certs-only
Content-Transfer-Encoding: base64

MIIDRQYJKoZIhvcNAQcCoIIDNjCCAzICAQExADALBgkqhkiG9w0BBwGgggMYMIID
--estServerExampleBoundary--
This is the epilogue.  It is also to be ignored.
"""

bodies = st.binary(max_size=200)
two_parts = st.tuples(bodies, bodies).map(lambda b: (Part(PKCS8, b[0]), Part(CERTS_ONLY, b[1])))


@given(two_parts)
def test_what_is_encoded_decodes_to_the_same(parts: tuple[Part, Part]) -> None:
    assert decode(*encode(parts)) == parts


@given(st.lists(st.sampled_from([b"--a", b"\r\n", b"--", b"a", b"\r\n--a--\r\n", b"\n--a\n"])))
def test_the_boundary_occurs_in_no_part(pieces: list[bytes]) -> None:
    tokens = iter("abc")
    part = Part(PKCS8, b"".join(pieces))
    media_type, body = encode([part], token=lambda: next(tokens))
    assert media_type.parameters["boundary"].encode() not in part.body
    assert decode(media_type, body) == (part,)


@pytest.mark.conformance("SKG-07", "SKG-10")
def test_the_example_of_rfc_7030() -> None:
    key, certificate = decode(MediaType.parse(RFC_7030_TYPE), RFC_7030_BODY)
    assert key.media_type.name == "application/pkcs8"
    assert key.body == b"MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDPwKYcgcvN2Odw"
    assert certificate.media_type.parameters == {"smime-type": "certs-only"}
    assert certificate.body.startswith(b"MIIDRQ")


@pytest.mark.conformance("SKG-07")
@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/mixed; boundary="a b:c"', "a b:c"),
        ("MULTIPART/Mixed;charset=x;BOUNDARY=x", "x"),
        ("multipart/mixed ;  boundary = x", "x"),
        ("multipart/mixed; boundary=" + "x" * 70, "x" * 70),
    ],
)
def test_boundaries_may_be_quoted_and_spaced(content_type: str, boundary: str) -> None:
    body = (
        f"--{boundary} \t\r\ncontent-TYPE:application/pkcs8\r\n\r\nxyz\r\n--{boundary}--".encode()
    )
    assert decode(MediaType.parse(content_type), body) == (Part(PKCS8, b"xyz"),)


def test_a_folded_header_is_one_header() -> None:
    body = (
        b"--x\r\nContent-Type: application/pkcs7-mime;\r\n smime-type=certs-only\r\n\r\na\r\n--x--"
    )
    assert decode(MediaType.parse("multipart/mixed; boundary=x"), body) == (Part(CERTS_ONLY, b"a"),)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/mixed", b"--x\r\nContent-Type: a/b\r\n\r\na\r\n--x--"),
        ("multipart/related; boundary=x", b"--x\r\nContent-Type: a/b\r\n\r\na\r\n--x--"),
        ("multipart/mixed; boundary=" + "x" * 71, b"--" + b"x" * 71 + b"--"),
        ('multipart/mixed; boundary="x "', b"--x --"),
        ("multipart/mixed; boundary=x", b""),
        ("multipart/mixed; boundary=x", b"--x\r\nContent-Type: a/b\r\n\r\na"),
        ("multipart/mixed; boundary=x", b"--x\r\nContent-Type: a/b\r\n\r\na\r\n--xy--"),
        ("multipart/mixed; boundary=x", b"--x\r\n\r\na\r\n--x--"),
        ("multipart/mixed; boundary=x", b"--x\r\nContent-Type: a/b\r\n--x--"),
        ("multipart/mixed; boundary=x", b"--x\r\nX: " + b"a" * 9000 + b"\r\n\r\na\r\n--x--"),
        ("multipart/mixed; boundary=x", b"--x\r\n" * (MAX_PARTS + 2) + b"--x--"),
        ("multipart/mixed; boundary=x", b"a" * (MAX_OCTETS + 1)),
    ],
)
def test_what_makes_no_sense_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(MessageError):
        decode(MediaType.parse(content_type), body)


_CUTS = [b"--x", b"--x--", b"\r\n", b"\n", b"Content-Type: a/b", b": ", b"\xff", b"\r", b"-"]


@given(st.lists(st.sampled_from(_CUTS), max_size=30).map(b"".join))
def test_nothing_but_message_errors_comes_out(body: bytes) -> None:
    try:
        parts = decode(MediaType.parse("multipart/mixed; boundary=x"), body)
    except MessageError:
        return
    assert len(parts) <= MAX_PARTS


def test_a_private_key_is_not_in_the_repr() -> None:
    assert "secret" not in repr(Part(PKCS8, b"secret"))
