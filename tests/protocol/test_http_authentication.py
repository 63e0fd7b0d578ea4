"""The headers of HTTP authentication, against the examples of RFC 7616 and RFC 7617."""

from __future__ import annotations

import base64
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.errors import MessageError
from est_protocol.http_authentication import (
    BasicCredentials,
    Challenge,
    DigestAlgorithm,
    DigestCredentials,
    format_credentials,
    parse_challenges,
    parse_credentials,
)

NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
SHA_256_RESPONSE = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"

#: RFC 7616 section 3.9.1, as it is printed there.
DIGEST = f"""Digest username="Mufasa",
    realm="http-auth@example.org",
    uri="/dir/index.html",
    algorithm=SHA-256,
    nonce="{NONCE}",
    nc=00000001,
    cnonce="{CNONCE}",
    qop=auth,
    response="{SHA_256_RESPONSE}",
    opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"""".replace("\n   ", "")

MUFASA = DigestCredentials(
    user="Mufasa",
    realm="http-auth@example.org",
    nonce=NONCE,
    uri="/dir/index.html",
    cnonce=CNONCE,
    nonce_count=1,
    algorithm=DigestAlgorithm.SHA_256,
    response=SHA_256_RESPONSE,
    opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
)

texts = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co")).filter(
        lambda c: c == unicodedata.normalize("NFC", c)
    ),
    max_size=40,
)


def basic(octets: bytes) -> str:
    return f"Basic {base64.b64encode(octets).decode()}"


# -- Basic ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "credentials"),
    [
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", BasicCredentials("Aladdin", "open sesame")),
        ("Basic dGVzdDoxMjPCow==", BasicCredentials("test", "123\u00a3")),
    ],
)
def test_the_examples_of_rfc_7617(header: str, credentials: BasicCredentials) -> None:
    assert parse_credentials(header) == credentials
    assert format_credentials(credentials) == header


@pytest.mark.conformance("AUTH-10")
def test_the_user_name_may_be_empty_and_the_password_have_colons() -> None:
    assert parse_credentials(basic(b":a:b")) == BasicCredentials("", "a:b")


def test_composed_and_decomposed_letters_are_the_same() -> None:
    decomposed = BasicCredentials("Ame\u0301lie", "caf\u0065\u0301")
    assert parse_credentials(format_credentials(decomposed)) == BasicCredentials(
        "Am\u00e9lie", "caf\u00e9"
    )


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic QQ",
        basic(b"no colon"),
        basic(b"user:\xff"),
        basic(b"user:tab\there"),
        "Basic dGVzdDoxMjPCow==, Basic dGVzdDoxMjPCow==",
        'Basic realm="x"',
        "\udcff",
        "Basic " + "A" * 9000,
    ],
)
def test_malformed_basic_is_a_message_error_that_repeats_nothing(header: str) -> None:
    with pytest.raises(MessageError) as error:
        parse_credentials(header)
    assert "user:" not in str(error.value)
    assert error.value.__cause__ is None


def test_no_password_is_shown() -> None:
    assert "open sesame" not in repr(BasicCredentials("Aladdin", "open sesame"))


def test_a_colon_in_a_user_name_cannot_be_sent() -> None:
    with pytest.raises(MessageError, match="colon"):
        format_credentials(BasicCredentials("a:b", "c"))


@given(user=texts.filter(lambda text: ":" not in text), password=texts)
def test_basic_round_trip(user: str, password: str) -> None:
    header = format_credentials(BasicCredentials(user, password))
    assert parse_credentials(header) == parse_credentials(header.replace("Basic", "bAsIc"))
    again = parse_credentials(header)
    assert again is not None
    assert format_credentials(again) == header


# -- Digest ---------------------------------------------------------------------------------------


def test_the_example_of_rfc_7616() -> None:
    assert parse_credentials(DIGEST) == MUFASA
    assert parse_credentials(format_credentials(MUFASA)) == MUFASA


def test_a_user_name_beyond_ascii_is_sent_encoded() -> None:
    """RFC 7616 section 3.9.2's name, J\u00e4s\u00f8n Doe."""
    jason = DigestCredentials(
        "J\u00e4s\u00f8n Doe", "api@example.org", "n", "/u", "c", 1, DigestAlgorithm.MD5, "0" * 32
    )
    header = format_credentials(jason)
    assert "username*=UTF-8''J%C3%A4s%C3%B8n%20Doe" in header
    assert parse_credentials(header) == jason


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("qop=auth,", ""),
        ("qop=auth", "qop=auth-int"),
        ("nc=00000001", "nc=00000000"),
        ("nc=00000001", "nc=1"),
        ("nc=00000001", "nc=0000000g"),
        ("SHA-256", "SHA-512-256"),
        ("algorithm=SHA-256", "algorithm=MD5"),
        ("algorithm=SHA-256,", ""),
        ("753927fa", "z53927fa"),
        ('username="Mufasa",', ""),
        ('username="Mufasa"', "username=\"Mufasa\", username*=UTF-8''M"),
        ('username="Mufasa"', "username*=latin-1''M"),
        ('username="Mufasa"', "username*=UTF-8''%ff"),
        ('username="Mufasa"', "username*=UTF-8"),
        ('username="Mufasa"', 'username="Mufasa", userhash=true'),
        ('realm="http-auth@example.org",', ""),
        ("nc=00000001", "nc=00000001, nc=00000001"),
        ('cnonce="', 'cnonce="\x01'),
        ("Digest ", "Digest x"),
    ],
)
def test_malformed_digest_is_a_message_error(old: str, new: str) -> None:
    assert old in DIGEST
    with pytest.raises(MessageError):
        parse_credentials(DIGEST.replace(old, new, 1))


@given(user=texts, realm=texts, uri=texts, cnonce=texts, count=st.integers(1, 2**32 - 1))
def test_digest_round_trip(user: str, realm: str, uri: str, cnonce: str, count: int) -> None:
    credentials = DigestCredentials(
        user, realm, "nonce", uri, cnonce, count, DigestAlgorithm.MD5, "0" * 32
    )
    header = format_credentials(credentials)
    again = parse_credentials(header)
    assert isinstance(again, DigestCredentials)
    assert (again.realm, again.uri, again.cnonce, again.nonce_count) == (realm, uri, cnonce, count)
    assert format_credentials(again) == header


# -- Challenges -----------------------------------------------------------------------------------


def test_the_example_of_rfc_9110() -> None:
    """Section 11.6.1: two challenges in one value, with a comma in a quoted string."""
    header = 'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""'
    assert parse_challenges(header) == (
        Challenge("Basic", {"realm": "simple"}),
        Challenge("Newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
    )


@pytest.mark.parametrize(
    "header", ["Negotiate", "Negotiate, ", ", ,Negotiate", "Negotiate ,Basic realm=x"]
)
def test_a_scheme_may_stand_alone(header: str) -> None:
    assert parse_challenges(header)[0] == Challenge("Negotiate")


def test_a_challenge_may_be_a_token() -> None:
    assert parse_challenges("Negotiate abc==, Basic realm=x") == (
        Challenge("Negotiate", {"": "abc=="}),
        Challenge("Basic", {"realm": "x"}),
    )


@pytest.mark.parametrize(
    "header",
    [
        '"quoted"',
        'Basic realm="open',
        "Basic realm=a realm=b",
        "Basic realm=a, realm=b",
        "Basic =x",
        "Digest " + ", ".join(f"p{n}=v" for n in range(33)),
    ],
)
def test_malformed_challenges_are_a_message_error(header: str) -> None:
    with pytest.raises(MessageError):
        parse_challenges(header)


@given(
    st.lists(
        st.builds(
            Challenge,
            st.sampled_from(["Basic", "Digest", "Other"]),
            st.dictionaries(st.sampled_from(["realm", "nonce", "qop"]), texts, min_size=1),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_challenges_round_trip(challenges: list[Challenge]) -> None:
    assert parse_challenges(", ".join(map(str, challenges))) == tuple(challenges)


@given(st.text(max_size=200) | st.text('Digest Basic="\\, abc', max_size=200))
def test_anything_else_is_a_message_error(header: str) -> None:
    for parse in (parse_challenges, parse_credentials):
        try:
            parse(header)
        except MessageError:
            continue


@given(st.integers(0, len(DIGEST) - 1), st.characters())
def test_mutated_credentials_are_a_message_error(position: int, character: str) -> None:
    try:
        parse_credentials(DIGEST[:position] + character + DIGEST[position + 1 :])
    except MessageError:
        return
