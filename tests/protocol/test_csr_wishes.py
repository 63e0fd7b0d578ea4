"""What a message of CSR attributes asks for: the RFCs' examples read, and wishes written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_protocol import name_values
from est_protocol.csr_attributes import (
    EXTENSION_REQUEST,
    EXTENSION_TEMPLATE,
    REQUEST_INFO_TEMPLATE,
    CsrAttribute,
    CsrAttributes,
    ExtensionTemplate,
    KeyTemplate,
    NameAttributeTemplate,
    RequestTemplate,
    encode_template,
)
from est_protocol.csr_wishes import CsrWishes, read, write
from est_protocol.errors import MessageError
from est_protocol.oid_names import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    EXTENDED_KEY_USAGE,
    KEY_USAGE,
    OTP_CHALLENGE,
    SUBJECT_ALT_NAME,
)
from tests.vectors import rfc_vector

ECDSA_SHA384 = "1.2.840.10045.4.3.3"
ECDSA_SHA512 = "1.2.840.10045.4.3.4"
RSA_SHA256 = "1.2.840.113549.1.1.11"
EC_KEY = "1.2.840.10045.2.1"
MAC_ADDRESS = "1.3.6.1.1.1.1.22"
FRIENDLY_NAME = "1.2.840.113549.1.9.20"
FAVOURITE_DRINK = "0.9.2342.19200300.100.1.5"

CN = (NameAttributeTemplate("2.5.4.3", None),)
SERIAL_NUMBER = (NameAttributeTemplate("2.5.4.5", None),)
SECTION_3_4 = CsrWishes(
    key="ec-p256",
    subject=(
        CN,
        (NameAttributeTemplate("2.5.4.11", b"\x0c\x06myDept"),),
        (NameAttributeTemplate("2.5.4.11", b"\x0c\x07myGroup"),),
    ),
    extensions=(
        ExtensionTemplate(
            SUBJECT_ALT_NAME, False, bytes.fromhex("301482107777772e6d795365727665722e636f6d8700")
        ),
        ExtensionTemplate(KEY_USAGE, True, bytes.fromhex("03020388")),
        ExtensionTemplate(EXTENDED_KEY_USAGE, False, None),
    ),
)
ACP_NAME = bytes.fromhex(
    "3049a04706082b0601050507080aa03b1639726663383939342b666437333966633233633334343031313232"
    "33333434353530303030303030302b406163702e6578616d706c652e636f6d"
)
ORIGINAL = CsrWishes(link=True, key="ec-p384", signature_algorithms=(ECDSA_SHA384,))
P521 = CsrWishes(
    link=True,
    key="ec-p521",
    signature_algorithms=(ECDSA_SHA512,),
    subject=(SERIAL_NUMBER,),
    attributes=(FRIENDLY_NAME, FAVOURITE_DRINK),
)
UNKNOWN = CsrWishes(
    link=True,
    attributes=(
        MAC_ADDRESS,
        "2.999.1",
        "2.999.2",
        "1.3.36.3.3.2.8.1.1.11",
        "2.16.840.1.101.3.4.2.2",
    ),
)

EXAMPLES = {
    "DERIVED_csrattrs_empty.b64": CsrWishes(),
    "DERIVED_rfc9908_3.2_ec_any_curve_empty_set.b64": CsrWishes(key="ec"),
    "DERIVED_rfc9908_3.4_csrattrs_with_template.b64": SECTION_3_4,
    "DERIVED_rfc9908_3.4_csrattrs_with_template_PRINTED_OID_1.9.62.b64": SECTION_3_4,
    # The list asks for P-384, the template for P-256, and the template alone counts.
    "DERIVED_rfc9908_4_legacy_plus_template.b64": SECTION_3_4,
    "DERIVED_rfc9908_5.3_corrected_san_rfc822.b64": CsrWishes(
        link=True,
        key="ec-p521",
        signature_algorithms=(ECDSA_SHA512,),
        extensions=(
            ExtensionTemplate(SUBJECT_ALT_NAME, False, b"\x30\x14\x81\x12potato@example.com"),
        ),
    ),
    "DERIVED_rfc9908_template_rsa3072_no_subject.b64": CsrWishes(key="rsa-3072"),
    "rfc7030_A2_csrattrs_resp.b64": UNKNOWN,
    "rfc9148_A4_csrattrs.hex": UNKNOWN,
    "rfc9908_5.1_acp_san.b64": CsrWishes(
        extensions=(ExtensionTemplate(SUBJECT_ALT_NAME, True, ACP_NAME),)
    ),
    "rfc9908_5.2_rfc7030_original_fixed.b64": replace(ORIGINAL, attributes=(MAC_ADDRESS,)),
    "rfc9908_5.3_specific_san_AS_PRINTED.b64": P521,
    "rfc9908_5.4_rsa4096.b64": CsrWishes(
        link=True, key="rsa-4096", signature_algorithms=(RSA_SHA256,)
    ),
    "rfc9908_5.5_p384.b64": replace(ORIGINAL, subject=(SERIAL_NUMBER,)),
    "rfc9908_5.6_p521_attrs.b64": P521,
}


@pytest.mark.conformance(
    "ATT-04",
    "ATT-05",
    "ATT-12",
    "ATT-13",
    "ATT-14",
    "ATT-16",
    "ATT-25",
    "ATT-27",
    "ATT-30",
    "ATT-07",
)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_rfcs_ask_for(name: str) -> None:
    assert read(CsrAttributes.decode(rfc_vector(name))) == EXAMPLES[name]


@pytest.mark.conformance("ATT-05", "ATT-09")
@pytest.mark.parametrize(
    "name",
    [
        "rfc7030_4.5.2_csrattrs_example_ORIGINAL.b64",
        "HISTORIC_csrattrs_draft_potato_8d088eb_malformed_san.b64",
    ],
)
def test_a_malformed_part_is_noted_and_the_rest_holds(name: str) -> None:
    wishes = read(CsrAttributes.decode(rfc_vector(name)))
    assert replace(wishes, problems=()) == ORIGINAL
    assert len(wishes.problems) == 1
    assert wishes.problems[0].startswith("extensions: ")


@pytest.mark.conformance("ATT-15", "ATT-16", "ATT-17", "ATT-25")
def test_the_template_of_rfc_9908_section_3_4_is_written_octet_for_octet() -> None:
    template = CsrAttributes.decode(rfc_vector("DERIVED_rfc9908_3.4_csrattrs_with_template.b64"))
    assert write(SECTION_3_4).elements[:1] == template.elements


@pytest.mark.conformance("ATT-07", "ATT-08", "ATT-26")
def test_the_list_beside_a_template_says_what_it_can() -> None:
    """RFC 9908 section 4: for clients that know no templates."""
    assert write(SECTION_3_4).elements[1:] == (
        CsrAttribute("2.5.4.11", (b"\x0c\x06myDept",)),
        CsrAttribute("2.5.4.11", (b"\x0c\x07myGroup",)),
        CsrAttribute(
            EXTENSION_REQUEST,
            (bytes.fromhex("3010300e0603551d0f0101ff040403020388"),),
        ),
        CsrAttribute(EC_KEY, (bytes.fromhex("06082a8648ce3d030107"),)),
        # Bare OIDs come last, for libest.
        CsrAttribute("2.5.4.3"),
        CsrAttribute(SUBJECT_ALT_NAME),
        CsrAttribute(EXTENDED_KEY_USAGE),
    )


@pytest.mark.conformance("ATT-04")
def test_nothing_to_wish_for_is_an_empty_message() -> None:
    assert write(CsrWishes()).encode() == b"\x30\x00"
    assert not CsrWishes(problems=("something",))
    assert CsrWishes(link=True)


def test_linking_alone_needs_no_template() -> None:
    assert write(CsrWishes(link=True)).elements == (CsrAttribute(CHALLENGE_PASSWORD),)


@pytest.mark.conformance("POP-05")
def test_linking_stands_in_the_template_too_where_there_is_one() -> None:
    """A client that knows templates ignores the list, and must not miss this."""
    wishes = CsrWishes(link=True, identity_linking=True, otp_challenge=True, key="ec")
    template = write(wishes).template
    assert template is not None
    assert set(template.attributes) == {
        CsrAttribute(CHALLENGE_PASSWORD, ()),
        CsrAttribute(EST_IDENTITY_LINKING, ()),
        CsrAttribute(OTP_CHALLENGE, ()),
    }
    assert read(write(wishes)) == wishes


@pytest.mark.conformance("ATT-18", "ATT-20")
def test_the_size_of_an_rsa_key_is_a_placeholder_and_a_curve_needs_none() -> None:
    """RFC 9908 section 3.4."""
    rsa, ec = write(CsrWishes(key="rsa-3072")).template, write(CsrWishes(key="ec-p256")).template
    assert rsa is not None
    assert ec is not None
    assert rsa.subject is None
    named = write(CsrWishes(subject=((NameAttributeTemplate("2.5.4.3", None),),))).template
    assert named is not None
    assert named.subject is not None
    assert rsa.key is not None
    assert rsa.key.placeholder is not None
    assert len(rsa.key.placeholder) > 3072 // 8
    assert ec.key == KeyTemplate(bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107"))


@pytest.mark.conformance("ATT-23", "ATT-24")
@pytest.mark.parametrize(
    ("value", "oid"),
    [
        (b"\x30\x04\x82\x02ab", EXTENSION_REQUEST),
        (b"\x30\x02\x87\x00", EXTENSION_TEMPLATE),
        (b"\x30\x04\xa4\x02\x30\x00", EXTENSION_TEMPLATE),
        (None, EXTENSION_TEMPLATE),
    ],
)
def test_only_what_is_left_open_takes_an_extension_template(value: bytes | None, oid: str) -> None:
    wishes = CsrWishes(extensions=(ExtensionTemplate(SUBJECT_ALT_NAME, False, value),))
    template = write(wishes).template
    assert template is not None
    assert [attribute.oid for attribute in template.attributes] == [oid]


@pytest.mark.conformance("ATT-10")
def test_what_no_client_could_read_is_not_written() -> None:
    twice = (ExtensionTemplate(KEY_USAGE, False, None),) * 2
    with pytest.raises(ValueError, match="twice"):
        write(CsrWishes(extensions=twice))
    with pytest.raises(ValueError, match="no kind of key"):
        write(CsrWishes(key="ec-p257"))
    with pytest.raises(ValueError, match="subjectAltName"):
        write(CsrWishes(extensions=(ExtensionTemplate(SUBJECT_ALT_NAME, False, b"\x05\x00"),)))


@pytest.mark.conformance("ATT-11")
def test_two_kinds_of_key_are_none() -> None:
    rsa = CsrAttribute("1.2.840.113549.1.1.1", (b"\x02\x02\x10\x00",))
    wishes = read(CsrAttributes((CsrAttribute(EC_KEY, ()), rsa, CsrAttribute(CHALLENGE_PASSWORD))))
    assert wishes == CsrWishes(link=True, problems=("more than one kind of key is asked for",))


@pytest.mark.parametrize(
    ("element", "part"),
    [
        (CsrAttribute(EC_KEY, (b"\x05\x00",)), EC_KEY),
        (CsrAttribute(EC_KEY, (b"\x06\x01\x2a", b"\x06\x01\x2b")), EC_KEY),
        (CsrAttribute("1.2.840.113549.1.1.1", (b"\x02\x01\x08",)), "1.2.840.113549.1.1.1"),
        (CsrAttribute("2.5.4.3", (b"\x05\x00",)), "CN"),
        (CsrAttribute("2.5.4.6", (b"\x13\x03DEU",)), "C"),
        (CsrAttribute(REQUEST_INFO_TEMPLATE, (b"\x30\x00",)), "template"),
        (
            encode_template(RequestTemplate(key=KeyTemplate(b"\x30\x00"))),
            "key",
        ),
    ],
)
def test_a_part_that_makes_no_sense_is_left_out(element: CsrAttribute, part: str) -> None:
    wishes = read(CsrAttributes((CsrAttribute(MAC_ADDRESS), element)))
    assert not replace(wishes, attributes=())
    assert [problem.partition(": ")[0] for problem in wishes.problems] == [part]


def test_names_are_left_out_of_what_holds_for_a_renewal() -> None:
    assert SECTION_3_4.without_names() == replace(
        SECTION_3_4, subject=(), extensions=SECTION_3_4.extensions[1:]
    )


# -- Properties --------------------------------------------------------------------------------

ARC = "1.3.6.1.4.1.32473."
texts = st.text("abcdefghijklmnopqrstuvwxyz ", min_size=1, max_size=20)
name_attributes = st.tuples(st.sampled_from(["2.5.4.3", "2.5.4.5", "2.5.4.10"]), texts).flatmap(
    lambda pair: st.sampled_from(
        [
            NameAttributeTemplate(pair[0], None),
            NameAttributeTemplate(pair[0], name_values.encoded(*pair)),
        ]
    )
)
subject_alt_names = st.sampled_from(
    [None, b"\x30\x02\x87\x00", b"\x30\x06\x82\x02ab\x82\x00", b"\x30\x06\x87\x04\x7f\0\0\x01"]
)
extensions = st.tuples(
    st.lists(
        st.builds(
            ExtensionTemplate,
            st.integers(1, 99).map(lambda n: f"{ARC}{n}"),
            st.booleans(),
            st.none() | st.binary(max_size=20),
        ),
        max_size=3,
        unique_by=lambda extension: extension.oid,
    ),
    st.lists(
        st.builds(ExtensionTemplate, st.just(SUBJECT_ALT_NAME), st.booleans(), subject_alt_names),
        max_size=1,
    ),
).map(lambda parts: tuple(parts[0] + parts[1]))
kinds = st.sampled_from(
    ["ec", "rsa", "ec-p256", "ec-p521", "ec-brainpoolP256r1", "rsa-2048", "ed25519", "mldsa44"]
)
wishes = st.builds(
    CsrWishes,
    link=st.booleans(),
    identity_linking=st.booleans(),
    otp_challenge=st.booleans(),
    key=st.none() | kinds,
    signature_algorithms=st.lists(st.sampled_from([ECDSA_SHA384, RSA_SHA256]), max_size=2).map(
        tuple
    ),
    subject=st.lists(
        st.lists(name_attributes, min_size=1, max_size=2, unique_by=lambda a: a.value or b"").map(
            lambda rdn: tuple(sorted(rdn, key=_encoded_order))
        ),
        max_size=3,
    ).map(tuple),
    extensions=extensions,
    attributes=st.lists(st.sampled_from([MAC_ADDRESS, FRIENDLY_NAME]), unique=True).map(tuple),
)


def _encoded_order(attribute: NameAttributeTemplate) -> bytes:
    """A SET OF is sorted by its octets (X.690 section 11.6)."""
    content = b"\x06\x03" + bytes([0x55, 4, int(attribute.oid.rpartition(".")[2])])
    content += attribute.value or b""
    return bytes([0x30, len(content)]) + content


def _unordered(wished: CsrWishes) -> CsrWishes:
    return replace(wished, attributes=tuple(sorted(wished.attributes)))


@pytest.mark.conformance("ATT-06", "ATT-11", "ATT-12", "ATT-13")
@given(wishes)
def test_what_is_written_reads_as_the_same(wished: CsrWishes) -> None:
    message = CsrAttributes.decode(write(wished).encode())
    read_back = read(message)
    if message.template is not None:
        # A template has no place for signature algorithms, and its attributes are a SET.
        wished = replace(wished, signature_algorithms=())
    assert _unordered(read_back) == _unordered(wished)


@given(wishes, st.data())
def test_mutated_messages_are_read_or_refused(wished: CsrWishes, data: st.DataObject) -> None:
    der = bytearray(write(wished).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = CsrAttributes.decode(bytes(der))
    except MessageError:
        return
    assert isinstance(read(message), CsrWishes)
