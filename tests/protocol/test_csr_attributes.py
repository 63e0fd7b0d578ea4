"""CSR attributes: the examples of RFC 7030, 8951 and 9908, and what may not be in a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.csr_attributes import (
    EXTENSION_REQUEST,
    EXTENSION_TEMPLATE,
    MAX_ELEMENTS,
    REQUEST_INFO_TEMPLATE,
    CsrAttribute,
    CsrAttributes,
    ExtensionTemplate,
    KeyTemplate,
    NameAttributeTemplate,
    RequestTemplate,
    asking_for,
    decode_template,
    encode_template,
    extensions_of,
)
from est_protocol.errors import MessageError
from est_protocol.oid_names import CHALLENGE_PASSWORD
from tests.vectors import rfc_vector

EC_KEY = "1.2.840.10045.2.1"
RSA_KEY = "1.2.840.113549.1.1.1"
SUBJECT_ALT_NAME = "2.5.29.17"
KEY_USAGE = "2.5.29.15"
EXTENDED_KEY_USAGE = "2.5.29.37"

EXAMPLES = [
    "DERIVED_csrattrs_empty.b64",
    "DERIVED_rfc9908_3.2_ec_any_curve_empty_set.b64",
    "DERIVED_rfc9908_3.4_csrattrs_with_template.b64",
    "DERIVED_rfc9908_3.4_csrattrs_with_template_PRINTED_OID_1.9.62.b64",
    "DERIVED_rfc9908_4_legacy_plus_template.b64",
    "DERIVED_rfc9908_5.3_corrected_san_rfc822.b64",
    "DERIVED_rfc9908_template_rsa3072_no_subject.b64",
    "HISTORIC_csrattrs_draft_potato_8d088eb_malformed_san.b64",
    "rfc7030_4.5.2_csrattrs_example_ORIGINAL.b64",
    "rfc7030_A2_csrattrs_resp.b64",
    "rfc9148_A4_csrattrs.hex",
    "rfc9908_5.1_acp_san.b64",
    "rfc9908_5.2_rfc7030_original_fixed.b64",
    "rfc9908_5.3_specific_san_AS_PRINTED.b64",
    "rfc9908_5.4_rsa4096.b64",
    "rfc9908_5.5_p384.b64",
    "rfc9908_5.6_p521_attrs.b64",
]


@pytest.mark.conformance("ATT-03", "ATT-04")
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_rfcs_decode_and_encode_to_the_same_octets(name: str) -> None:
    der = rfc_vector(name)
    assert CsrAttributes.decode(der).encode() == der


@pytest.mark.conformance("ATT-04")
def test_no_wishes_are_an_empty_sequence() -> None:
    assert CsrAttributes().encode() == b"\x30\x00"
    assert CsrAttributes.decode(b"\x30\x00") == CsrAttributes()


@pytest.mark.conformance("ATT-12")
def test_an_attribute_may_have_no_values() -> None:
    """RFC 9908 section 3.2: any EC key will do."""
    message = CsrAttributes((CsrAttribute(EC_KEY, ()),))
    assert message.encode() == rfc_vector("DERIVED_rfc9908_3.2_ec_any_curve_empty_set.b64")


@pytest.mark.conformance("ATT-15", "ATT-17", "ATT-25")
def test_the_template_of_rfc_9908_section_3_4() -> None:
    der = rfc_vector("DERIVED_rfc9908_3.4_csrattrs_with_template.b64")
    template = CsrAttributes.decode(der).template
    assert template is not None
    assert template.subject == (
        (NameAttributeTemplate("2.5.4.3", None),),
        (NameAttributeTemplate("2.5.4.11", b"\x0c\x06myDept"),),
        (NameAttributeTemplate("2.5.4.11", b"\x0c\x07myGroup"),),
    )
    assert template.key is not None
    assert template.key.placeholder is None
    assert extensions_of(template.attributes) == (
        ExtensionTemplate(
            SUBJECT_ALT_NAME, False, bytes.fromhex("301482107777772e6d795365727665722e636f6d8700")
        ),
        ExtensionTemplate(KEY_USAGE, True, bytes.fromhex("03020388")),
        ExtensionTemplate(EXTENDED_KEY_USAGE, False, None),
    )
    assert CsrAttributes((encode_template(template),)).encode() == der
    alone = rfc_vector("DERIVED_rfc9908_3.4_criTemplate.b64")
    assert decode_template(alone) == template
    assert encode_template(template).values == (alone,)


@pytest.mark.conformance("ATT-16")
def test_the_misprinted_oid_of_rfc_9908_is_understood() -> None:
    right = CsrAttributes.decode(rfc_vector("DERIVED_rfc9908_3.4_csrattrs_with_template.b64"))
    misprinted = CsrAttributes.decode(
        rfc_vector("DERIVED_rfc9908_3.4_csrattrs_with_template_PRINTED_OID_1.9.62.b64")
    )
    assert right.template is not None
    assert misprinted.template is not None
    assert extensions_of(misprinted.template.attributes) == extensions_of(right.template.attributes)


@pytest.mark.conformance("ATT-20")
def test_the_wanted_size_of_an_rsa_key_is_a_placeholder() -> None:
    message = CsrAttributes.decode(rfc_vector("DERIVED_rfc9908_template_rsa3072_no_subject.b64"))
    assert message.template is not None
    assert message.template.subject is None
    assert message.template.key is not None
    assert message.template.key.placeholder is not None


def test_an_extension_request_is_found_in_the_legacy_list() -> None:
    message = CsrAttributes.decode(rfc_vector("rfc9908_5.1_acp_san.b64"))
    (extension,) = extensions_of(message.elements)
    assert (extension.oid, extension.critical) == (SUBJECT_ALT_NAME, True)


@pytest.mark.conformance("ATT-09")
@pytest.mark.parametrize(
    "name",
    [
        "rfc7030_4.5.2_csrattrs_example_ORIGINAL.b64",
        "HISTORIC_csrattrs_draft_potato_8d088eb_malformed_san.b64",
    ],
)
def test_malformed_extension_requests_of_the_rfcs_are_told_from_good_ones(name: str) -> None:
    message = CsrAttributes.decode(rfc_vector(name))
    assert CsrAttribute(CHALLENGE_PASSWORD) in message.elements
    with pytest.raises(MessageError):
        extensions_of(message.elements)


@pytest.mark.conformance("ATT-24")
def test_open_extensions_are_asked_for_by_a_template_and_complete_ones_are_not() -> None:
    complete = ExtensionTemplate(KEY_USAGE, True, bytes.fromhex("03020780"))
    left_open = ExtensionTemplate(SUBJECT_ALT_NAME, False, None)
    assert asking_for([complete]).oid == EXTENSION_REQUEST
    assert asking_for([complete, left_open]).oid == EXTENSION_TEMPLATE


@pytest.mark.conformance("ATT-08", "ATT-10", "ATT-23")
def test_extensions_are_asked_for_once() -> None:
    wish = ExtensionTemplate(KEY_USAGE, True, bytes.fromhex("03020780"))
    with pytest.raises(MessageError, match="more than one attribute"):
        extensions_of([asking_for([wish]), asking_for([wish])])
    left_open = ExtensionTemplate(SUBJECT_ALT_NAME, False, None)
    with pytest.raises(MessageError, match="more than one attribute"):
        extensions_of([asking_for([wish]), asking_for([left_open])])
    with pytest.raises(MessageError, match="twice"):
        extensions_of([asking_for([wish, wish])])


def test_two_templates_are_too_many() -> None:
    template = encode_template(RequestTemplate())
    with pytest.raises(MessageError, match="at most one"):
        _ = CsrAttributes((template, template)).template


def test_the_number_of_elements_is_bounded() -> None:
    der = CsrAttributes((CsrAttribute(CHALLENGE_PASSWORD),) * (MAX_ELEMENTS + 1)).encode()
    with pytest.raises(MessageError, match="more than"):
        CsrAttributes.decode(der)


def test_indefinite_lengths_are_not_der() -> None:
    with pytest.raises(MessageError):
        CsrAttributes.decode(bytes.fromhex("3080060a2b0601040182370d02030000"))


# -- Properties --------------------------------------------------------------------------------

oids = st.tuples(
    st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 2**40), max_size=6)
).map(lambda parts: ".".join(map(str, (parts[0], parts[1], *parts[2]))))
ders = st.binary(max_size=40).map(lambda octets: b"\x04" + bytes([len(octets)]) + octets)
attributes = st.builds(
    CsrAttribute,
    oids,
    st.none() | st.lists(ders, max_size=3, unique=True).map(lambda values: tuple(sorted(values))),
)
with_values = st.builds(
    CsrAttribute,
    oids.filter(lambda oid: oid != REQUEST_INFO_TEMPLATE),
    st.lists(ders, min_size=1, max_size=1).map(tuple),
)
names = st.lists(
    st.builds(NameAttributeTemplate, oids, st.none() | ders).map(lambda rdn: (rdn,)), max_size=4
).map(tuple)
keys = st.builds(
    KeyTemplate, oids.map(lambda oid: _algorithm(oid)), st.none() | st.binary(max_size=64)
)
templates = st.builds(
    RequestTemplate,
    st.none() | names,
    st.none() | keys,
    st.lists(with_values, max_size=1).map(tuple),
)
extension_lists = st.lists(
    st.builds(ExtensionTemplate, oids, st.booleans(), st.none() | st.binary(max_size=20)),
    min_size=1,
    max_size=5,
    unique_by=lambda extension: extension.oid,
).map(tuple)


def _algorithm(oid: str) -> bytes:
    return CsrAttributes((CsrAttribute(oid),)).encode()


@given(st.lists(attributes, max_size=8).map(tuple))
def test_what_is_encoded_decodes_to_the_same(elements: tuple[CsrAttribute, ...]) -> None:
    message = CsrAttributes(elements)
    assert CsrAttributes.decode(message.encode()) == message


@given(templates)
def test_a_template_decodes_to_the_same(template: RequestTemplate) -> None:
    message = CsrAttributes.decode(CsrAttributes((encode_template(template),)).encode())
    assert message.template == template


@given(extension_lists)
def test_wanted_extensions_decode_to_the_same(extensions: tuple[ExtensionTemplate, ...]) -> None:
    assert extensions_of([asking_for(extensions)]) == extensions


@given(st.binary(max_size=200))
def test_random_octets_decode_or_raise_a_message_error(octets: bytes) -> None:
    _exercise(octets)


@given(templates, st.data())
def test_mutated_octets_decode_or_raise_a_message_error(
    template: RequestTemplate, data: st.DataObject
) -> None:
    der = bytearray(CsrAttributes((encode_template(template),)).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    _exercise(bytes(der))


def _exercise(octets: bytes) -> None:
    try:
        message = CsrAttributes.decode(octets)
        template = message.template
        extensions_of(template.attributes if template else message.elements)
    except MessageError:
        return
    assert message.encode() == octets
