"""ChangeSubjectName in a CSR: the names that it is to have, beside the ones that it has."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from asn1crypto.x509 import GeneralName, Name
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from est_protocol import pkcs10
from est_protocol.change_subject_name import CHANGE_SUBJECT_NAME, ChangeSubjectName
from est_protocol.errors import MessageError
from est_protocol.keys import generate_key
from est_protocol.pkcs10 import CertificationRequest
from tests.pki import make_key, make_name
from tests.protocol.raw_csr import attribute, raw_csr, sequence, tagged

OLD = make_name("old")
OLD_ALT = (x509.DNSName("old.example"),)
NEW = make_name("new")
NEW_ALT = (
    x509.DNSName("new.example"),
    x509.IPAddress(ip_address("192.0.2.7")),
    x509.UniformResourceIdentifier("urn:new"),
    x509.DirectoryName(make_name("other")),
)
NAME = bytes(Name.build({"common_name": "new"}).dump())
ALT = bytes(GeneralName("dns_name", "new.example").dump())


def asking(change: ChangeSubjectName) -> CertificationRequest:
    csr = pkcs10.build(make_key("device"), OLD, subject_alt_names=OLD_ALT, change=change)
    return CertificationRequest.decode(csr.der)


@pytest.mark.conformance("SR-04", "SE-08")
@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (ChangeSubjectName(NEW), (NEW, OLD_ALT)),
        (ChangeSubjectName(None, NEW_ALT), (OLD, NEW_ALT)),
        (ChangeSubjectName(NEW, NEW_ALT), (NEW, NEW_ALT)),
        (ChangeSubjectName(x509.Name([]), NEW_ALT), (x509.Name([]), NEW_ALT)),
    ],
)
def test_the_csr_keeps_the_old_names_and_carries_the_new_ones(
    change: ChangeSubjectName, wanted: tuple[x509.Name, tuple[x509.GeneralName, ...]]
) -> None:
    csr = asking(change)
    assert csr.change_subject_name == change
    assert (csr.subject, csr.subject_alt_names) == (OLD, OLD_ALT)
    assert csr.wanted_names == wanted
    assert csr.proves_possession()


def test_without_it_the_names_are_what_is_wanted() -> None:
    csr = pkcs10.build(make_key("device"), OLD, subject_alt_names=OLD_ALT)
    assert csr.change_subject_name is None
    assert csr.wanted_names == (OLD, OLD_ALT)


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "ec-p521", "ed25519", "rsa-2048"])
def test_every_kind_of_key_signs_it(kind: str) -> None:
    csr = pkcs10.build(generate_key(kind), OLD, change=ChangeSubjectName(NEW))
    assert CertificationRequest.decode(csr.der).proves_possession()


def raw(*content: bytes) -> CertificationRequest:
    return CertificationRequest.decode(raw_csr(attribute(CHANGE_SUBJECT_NAME, *content)))


def test_the_tag_of_the_erratum_is_understood() -> None:
    found = raw(sequence(NAME, tagged(0xA1, ALT))).change_subject_name
    assert found is not None
    assert found.subject_alt_names == (x509.DNSName("new.example"),)
    assert raw(sequence(NAME, sequence(ALT))).change_subject_name == found


@pytest.mark.conformance("SR-04")
@pytest.mark.parametrize(
    "content",
    [
        sequence(),
        sequence(NAME, NAME),
        sequence(sequence(ALT), NAME),
        sequence(sequence(ALT), sequence(ALT)),
        sequence(NAME, sequence(ALT), sequence(ALT)),
        sequence(tagged(0xA1)),
        sequence(tagged(0xA2, ALT)),
        sequence(tagged(0x0C, b"new")),
        sequence(NAME[:-1]),
        sequence(NAME, b"\x30\x80\x00\x00"),
        sequence(sequence(tagged(0x31, b"\x05\x00"))),
        sequence(sequence(tagged(0x82, b"\xff"))),
        tagged(0x04, NAME),
        tagged(0x0C, b"new"),
    ],
)
def test_what_is_malformed_is_a_message_error(content: bytes) -> None:
    with pytest.raises(MessageError):
        raw(content)


@given(st.binary(max_size=80))
def test_random_octets_raise_nothing_else(octets: bytes) -> None:
    try:
        raw(tagged(0x30, octets))
    except MessageError:
        return


@given(st.data())
def test_mutated_octets_raise_nothing_else(data: st.DataObject) -> None:
    octets = bytearray(ChangeSubjectName(NEW, NEW_ALT).encode())
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        raw(bytes(octets))
    except MessageError:
        return


def test_nothing_new_is_no_wish() -> None:
    for names in (None, ()):
        with pytest.raises(ValueError, match="neither"):
            ChangeSubjectName(None, names)
