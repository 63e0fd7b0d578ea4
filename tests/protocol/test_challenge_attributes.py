"""challengePassword, otpChallenge, revocationChallenge and estIdentityLinking in CSRs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_protocol import pkcs10
from est_protocol.challenge_attributes import ChallengeAttributes, OneTimeSecret
from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import MessageError, RefusalReason, RequestRefused
from est_protocol.oid_names import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    OTP_CHALLENGE,
    REVOCATION_CHALLENGE,
)
from est_server.rules import is_linked
from tests.pki import make_key, make_name

BINDING = ChannelBinding(ChannelBindingType.TLS_EXPORTER, bytes(32))
PEER = PeerCredentials(channel_binding=BINDING)
RIGHT = BINDING.challenge_password()
WRONG = ChannelBinding(ChannelBindingType.TLS_EXPORTER, b"x" * 32).challenge_password()


def csr(**attributes: str) -> pkcs10.CertificationRequest:
    oids = {
        "challenge": CHALLENGE_PASSWORD,
        "otp": OTP_CHALLENGE,
        "revocation": REVOCATION_CHALLENGE,
        "linking": EST_IDENTITY_LINKING,
    }
    texts = {oids[name]: text for name, text in attributes.items()}
    return pkcs10.build(make_key("device"), make_name("a wish"), attributes=texts)


def test_every_attribute_is_read() -> None:
    built = csr(challenge="a", otp="n:\u00fc", revocation="c", linking="d")
    again = pkcs10.CertificationRequest.decode(built.der)
    assert again.challenges == ChallengeAttributes("a", "n:\u00fc", "c", "d")
    assert csr().challenges == ChallengeAttributes()


def test_no_secret_is_shown() -> None:
    assert "hunter2" not in repr(csr(otp="n:hunter2", revocation="hunter2").challenges)
    assert "hunter2" not in repr(OneTimeSecret.parse("n:hunter2"))


@pytest.mark.conformance("POP-06")
@pytest.mark.parametrize("attribute", ["challenge", "otp", "revocation", "linking"])
@pytest.mark.parametrize("text", ["", "x" * 256])
def test_the_bounds_of_rfc_7894(attribute: str, text: str) -> None:
    assert csr(**{attribute: "x" * 255})
    with pytest.raises(MessageError, match="1 to 255"):
        csr(**{attribute: text})


def test_octets_that_are_not_utf_8() -> None:
    damaged = csr(otp="hunter2?").der.replace(b"hunter2?", b"hunter2\xff")
    with pytest.raises(MessageError) as error:
        pkcs10.CertificationRequest.decode(damaged)
    assert "hunter2" not in str(error.value)


def test_a_binding_in_either_attribute_links() -> None:
    assert is_linked(csr(challenge=RIGHT), PEER)
    assert is_linked(csr(linking=RIGHT), PEER)
    assert is_linked(csr(linking=RIGHT, challenge=RIGHT), PEER)
    assert not is_linked(csr(), PEER)
    assert not is_linked(csr(otp=RIGHT), PEER)


@pytest.mark.conformance("POP-03", "POP-17", "POP-19")
@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"challenge": RIGHT, "linking": WRONG}, "estIdentityLinking"),
        ({"challenge": WRONG, "linking": RIGHT}, "challengePassword"),
        ({"linking": "an enrollment secret"}, "estIdentityLinking"),
        ({"challenge": "an enrollment secret"}, "challengePassword"),
    ],
)
def test_one_wrong_binding_is_one_too_many(attributes: dict[str, str], named: str) -> None:
    with pytest.raises(RequestRefused, match=named) as refused:
        is_linked(csr(**attributes), PEER)
    assert refused.value.reason is RefusalReason.POP_LINKING_FAILED


def test_a_binding_to_a_channel_that_ends_elsewhere() -> None:
    with pytest.raises(RequestRefused):
        is_linked(csr(linking=RIGHT), PeerCredentials())


def test_a_one_time_secret_is_a_name_and_the_rest() -> None:
    assert OneTimeSecret.parse("batch-7:a:b") == OneTimeSecret("batch-7", "a:b")
    assert OneTimeSecret.parse(":a") == OneTimeSecret("", "a")


@pytest.mark.parametrize("text", ["", "no colon", "tab:\t"])
def test_what_is_no_one_time_secret(text: str) -> None:
    with pytest.raises(MessageError):
        OneTimeSecret.parse(text)


@given(st.text(max_size=300))
def test_anything_else_is_a_message_error(text: str) -> None:
    try:
        assert OneTimeSecret.parse(str(OneTimeSecret.parse(text))) == OneTimeSecret.parse(text)
    except MessageError:
        return
