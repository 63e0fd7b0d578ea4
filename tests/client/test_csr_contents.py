"""A CSR made as the server asks for it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from est_client.csr_contents import CsrContents, contents_as_wished
from est_client.self_signed import udid_name
from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.csr_attributes import (
    CsrAttribute,
    CsrAttributes,
    ExtensionTemplate,
    NameAttributeTemplate,
)
from est_protocol.csr_wishes import CsrWishes, read, write
from est_protocol.errors import ConfigurationError
from est_protocol.oid_names import (
    EST_IDENTITY_LINKING,
    EXTENDED_KEY_USAGE,
    KEY_USAGE,
    SUBJECT_ALT_NAME,
)
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.unmet_wishes import unmet
from tests.pki import make_key, make_name
from tests.vectors import rfc_vector

KEY = make_key("device")
UDID = udid_name(KEY.public_key())
BINDING = ChannelBinding(ChannelBindingType.TLS_UNIQUE, bytes(12))
ADDRESS = x509.IPAddress(ip_address("192.0.2.7"))
OPEN_CN = (NameAttributeTemplate("2.5.4.3", None),)
SERIAL_NUMBER = (NameAttributeTemplate("2.5.4.5", None),)


def _decoded(contents: CsrContents) -> CertificationRequest:
    return CertificationRequest.decode(contents.build(KEY, BINDING))


def _alt_name(value: bytes | None) -> CsrWishes:
    return CsrWishes(extensions=(ExtensionTemplate(SUBJECT_ALT_NAME, False, value),))


@pytest.mark.conformance("ATT-19", "ATT-21", "ATT-22")
def test_the_template_of_rfc_9908_section_3_4_is_followed() -> None:
    der = rfc_vector("DERIVED_rfc9908_3.4_csrattrs_with_template.b64")
    wishes = read(CsrAttributes.decode(der))
    names = (x509.DNSName("not.asked.for"), ADDRESS)
    contents = contents_as_wished(wishes, KEY, subject=UDID, subject_alt_names=names)
    csr = _decoded(contents)
    assert unmet(wishes, csr) == ()
    assert csr.subject == x509.Name(
        [
            *UDID,
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "myDept"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "myGroup"),
        ]
    )
    assert csr.subject_alt_names == (x509.DNSName("www.myServer.com"), ADDRESS)
    assert csr.extensions[KEY_USAGE] == ExtensionTemplate(KEY_USAGE, True, b"\x03\x02\x03\x88")
    assert csr.extensions[EXTENDED_KEY_USAGE].value is not None
    assert csr.proves_possession()


@pytest.mark.conformance("ATT-19")
def test_values_come_before_the_subject_and_others_are_not_added() -> None:
    subject = x509.Name([*make_name("pump 7"), x509.NameAttribute(NameOID.LOCALITY_NAME, "here")])
    wishes = CsrWishes(subject=(OPEN_CN, SERIAL_NUMBER), as_template=True)
    contents = contents_as_wished(wishes, KEY, subject=subject, values={"serialnumber": "4711"})
    assert contents.subject.rfc4514_string() == "2.5.4.5=4711,CN=pump 7"
    contents = contents_as_wished(
        wishes, KEY, subject=subject, values={"2.5.4.5": "1", "CN": "other"}
    )
    assert contents.subject.rfc4514_string() == "2.5.4.5=1,CN=other"


@pytest.mark.parametrize("template", [False, True])
def test_a_list_leaves_the_rest_of_the_subject_to_the_device(*, template: bool) -> None:
    message = CsrAttributes((CsrAttribute(NameOID.EMAIL_ADDRESS.dotted_string),))
    if template:
        message = write(read(message))
    contents = contents_as_wished(
        read(message), KEY, subject=make_name("pump 7"), values={"emailAddress": "pump@example.org"}
    )
    email = x509.NameAttribute(NameOID.EMAIL_ADDRESS, "pump@example.org")
    assert contents.subject == x509.Name([email] if template else [*make_name("pump 7"), email])


def test_without_wishes_for_names_the_device_names_itself() -> None:
    contents = contents_as_wished(
        CsrWishes(key="ec"), KEY, subject=UDID, subject_alt_names=(ADDRESS,)
    )
    assert (contents.subject, contents.subject_alt_names) == (UDID, (ADDRESS,))


def test_the_given_string_type_is_kept() -> None:
    """A value of the template is to be used as it is."""
    wishes = CsrWishes(subject=((NameAttributeTemplate("2.5.4.11", b"\x13\x05pumps"),),))
    csr = _decoded(contents_as_wished(wishes, KEY, subject=UDID))
    assert b"\x13\x05pumps" in csr.der


def test_an_open_subject_alt_name_takes_all_that_there_is() -> None:
    names = (ADDRESS, x509.DNSName("a.test"))
    csr = _decoded(contents_as_wished(_alt_name(None), KEY, subject=UDID, subject_alt_names=names))
    assert csr.subject_alt_names == names


@pytest.mark.conformance("ATT-22")
def test_a_directory_name_of_no_rdns_is_a_slot() -> None:
    name = x509.DirectoryName(make_name("pump 7"))
    wishes = _alt_name(b"\x30\x04\xa4\x02\x30\x00")
    csr = _decoded(contents_as_wished(wishes, KEY, subject=UDID, subject_alt_names=(name,)))
    assert csr.subject_alt_names == (name,)


@pytest.mark.conformance("POP-18")
def test_identity_linking_is_preferred() -> None:
    """RFC 7894 section 4."""
    contents = contents_as_wished(CsrWishes(link=True, identity_linking=True), KEY, subject=UDID)
    assert contents.must_link
    csr = _decoded(contents)
    assert csr.challenges.challenge_password is None
    assert csr.challenges.identity_linking == BINDING.challenge_password()
    assert EST_IDENTITY_LINKING in csr.attributes


@pytest.mark.conformance("ATT-05")
def test_attributes_are_filled_in_where_a_value_is_given() -> None:
    wishes = CsrWishes(otp_challenge=True, attributes=("1.2.840.113549.1.9.20", "2.999.1"))
    values = {"otpChallenge": "secret", "friendlyName": "pump", "2.999.2": "not asked for"}
    csr = _decoded(contents_as_wished(wishes, KEY, subject=UDID, values=values))
    assert csr.challenges.otp_challenge == "secret"
    assert "1.2.840.113549.1.9.20" in csr.attributes
    assert not csr.attributes & {"2.999.1", "2.999.2"}


def test_the_wanted_hash_is_used() -> None:
    wishes = CsrWishes(signature_algorithms=("1.2.840.113549.1.1.11", "1.2.840.10045.4.3.4"))
    contents = contents_as_wished(wishes, KEY, subject=UDID)
    assert isinstance(contents.algorithm, hashes.SHA512)


@pytest.mark.parametrize(
    ("wishes", "values", "why"),
    [
        (CsrWishes(key="rsa"), {}, "a key of kind rsa, and this one is ec-p256"),
        (CsrWishes(signature_algorithms=("1.3.101.112",)), {}, "a signature by Ed25519"),
        (CsrWishes(subject=(SERIAL_NUMBER,)), {}, "asks for serialNumber in the subject"),
        (CsrWishes(subject=(OPEN_CN, OPEN_CN)), {}, "asks for CN in the subject"),
        (CsrWishes(subject=(OPEN_CN,)), {"CN": "x" * 65}, "CN in the subject: "),
        (_alt_name(None), {}, "asks for a subjectAltName"),
        (_alt_name(b"\x30\x02\x87\x00"), {}, "asks for iPAddress in subjectAltName"),
        (CsrWishes(otp_challenge=True), {}, "asks for a one-time secret"),
        (CsrWishes(link=True), {"nonsense": "1"}, "'nonsense' is neither"),
    ],
)
def test_what_cannot_be_followed_is_said(
    wishes: CsrWishes, values: dict[str, str], why: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        contents_as_wished(wishes, KEY, subject=UDID, values=values)
    assert why in str(caught.value)
