"""Media types, key names and channel bindings: small values that come from the network too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.errors import STATUS, ConfigurationError, RefusalReason
from est_protocol.keys import KEY_KINDS, generate_key, key_kind
from est_protocol.media_types import CERTS_ONLY, PKCS10, MediaType


@pytest.mark.parametrize("kind", [kind for kind in KEY_KINDS if not kind.startswith("rsa")])
def test_a_key_is_of_the_kind_it_was_made_of(kind: str) -> None:
    assert key_kind(generate_key(kind).public_key()) == kind


def test_a_kind_of_key_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rsa-1024"):
        generate_key("rsa-1024")


@given(st.text())
def test_no_text_keeps_a_media_type_from_being_parsed(text: str) -> None:
    assert MediaType.parse(text).name == MediaType.parse(text).name.lower()


@pytest.mark.parametrize(
    "text",
    [
        "application/pkcs7-mime; smime-type=certs-only",
        "application/pkcs7-mime;smime-type=certs-only",
        'APPLICATION/PKCS7-MIME ; Smime-Type="certs-only"',
    ],
)
def test_a_media_type_is_read_however_it_is_written(text: str) -> None:
    assert MediaType.parse(text) == CERTS_ONLY


def test_media_types_survive_being_written() -> None:
    assert MediaType.parse(str(CERTS_ONLY)) == CERTS_ONLY
    assert str(PKCS10) == "application/pkcs10"


@pytest.mark.conformance("CR-04", "STAT-12")
@pytest.mark.parametrize("reason", RefusalReason)
def test_a_refusal_has_the_same_status_on_both_transports(reason: RefusalReason) -> None:
    """RFC 9148 section 4.5, and RFC 8075 section 7 for what it leaves out."""
    http, (kind, detail) = STATUS[reason].http, STATUS[reason].coap
    more_precise = {
        RefusalReason.BAD_OPTION: (4, 2),
        RefusalReason.BLOCKS_INCOMPLETE: (4, 8),
        RefusalReason.AUTHENTICATION_REQUIRED: (4, 1),
    }
    assert (kind, detail) == more_precise.get(reason, divmod(http, 100))


@pytest.mark.conformance("POP-07")
@given(st.binary(min_size=1, max_size=48), st.binary(min_size=1, max_size=48))
def test_a_binding_matches_its_own_text_only(value: bytes, other: bytes) -> None:
    binding = ChannelBinding(ChannelBindingType.TLS_EXPORTER, value)
    assert binding.matches(binding.challenge_password())
    foreign = ChannelBinding(ChannelBindingType.TLS_EXPORTER, other).challenge_password()
    assert binding.matches(foreign) == (value == other)


@given(st.text())
def test_no_other_text_matches(text: str) -> None:
    binding = ChannelBinding(ChannelBindingType.TLS_UNIQUE, bytes(12))
    assert not binding.matches(text) or text == "A" * 16


@pytest.mark.conformance("POP-07")
@pytest.mark.parametrize(
    "text",
    [
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        " AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ],
    ids=["no padding", "other spare bits", "line end", "blank"],
)
def test_base64_in_another_form_does_not_match(text: str) -> None:
    binding = ChannelBinding(ChannelBindingType.TLS_EXPORTER, bytes(32))
    assert binding.matches("A" * 43 + "=")
    assert not binding.matches(text)
