"""The wish for another name than the current certificate's (RFC 7030 section 4.2, RFC 6402).

::

    id-cmc-changeSubjectName ::= { id-cmc 36 }
    ChangeSubjectName ::= SEQUENCE {
        subject     Name OPTIONAL,
        subjectAlt  GeneralNames OPTIONAL }       -- at least one of them

Both are a SEQUENCE. They are told apart by what is in them, relative names or tagged general
names; the tag [1] before the second that the RFC's erratum 3943 proposes is understood too. The
CSR itself repeats the current names (RFC 7030 section 4.2.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol import der
from est_protocol.csr_rewriting import Request, add_attributes
from est_protocol.der import DerReader
from est_protocol.errors import MessageError
from est_protocol.oid_names import SUBJECT_ALT_NAME
from est_protocol.x509_decoding import decoding_x509

CHANGE_SUBJECT_NAME = "1.3.6.1.5.5.7.7.36"

_WHAT = "ChangeSubjectName"
_EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
_TAGGED_NAMES = 0xA1


@dataclass(frozen=True, slots=True)
class ChangeSubjectName:
    """The new names; what is ``None`` stays as it is.

    :param subject: the new subject.
    :param subject_alt_names: the new subjectAltName entries, at least one.
    :raises ValueError: there is nothing new.
    """

    subject: x509.Name | None = None
    subject_alt_names: tuple[x509.GeneralName, ...] | None = None

    def __post_init__(self) -> None:
        if self.subject is None and not self.subject_alt_names:
            raise ValueError("ChangeSubjectName asks for neither subject nor subjectAltName")

    def encode(self) -> bytes:
        """The DER octets of the attribute's value."""
        content = b"" if self.subject is None else self.subject.public_bytes()
        if self.subject_alt_names:
            content += x509.SubjectAlternativeName(self.subject_alt_names).public_bytes()
        return _sequence(content)


def read(csr: x509.CertificateSigningRequest) -> ChangeSubjectName | None:
    """What ``csr`` says about another name; ``None`` if it says nothing.

    :raises MessageError: the attribute is malformed, or asks for nothing.
    """
    for attribute in csr.attributes:
        if attribute.oid.dotted_string != CHANGE_SUBJECT_NAME:
            continue
        if attribute._type != der.SEQUENCE:
            raise MessageError(f"{_WHAT} is not a SEQUENCE")
        subject, names = _parts(attribute.value)
        return _decoded(csr, subject, names)
    return None


def _parts(content: bytes) -> tuple[bytes | None, bytes | None]:
    """The DER octets of the two fields."""
    reader = DerReader(content, _WHAT)
    fields = list(_fields(reader))
    kinds = [kind for kind, _ in fields]
    if kinds not in (["subject"], ["subjectAlt"], ["subject", "subjectAlt"]):
        raise MessageError(f"{_WHAT} has to be a subject, a subjectAlt, or both in this order")
    found = dict(fields)
    return found.get("subject"), found.get("subjectAlt")


def _fields(reader: DerReader) -> Iterator[tuple[str, bytes]]:
    while not reader.at_end:
        if reader.next_is(_TAGGED_NAMES):
            yield "subjectAlt", _sequence(reader.read(_TAGGED_NAMES, "subjectAlt").content)
            continue
        element = reader.read(der.SEQUENCE, "a name")
        is_name = not element.content or element.content[0] == der.SET
        yield ("subject" if is_name else "subjectAlt"), element.encoded


def _decoded(
    csr: x509.CertificateSigningRequest, subject: bytes | None, names: bytes | None
) -> ChangeSubjectName:
    """Have the fields read by those who read the names of a CSR: as though it had them."""
    with decoding_x509(_WHAT):
        request = Request.load(csr.public_bytes(Encoding.DER))
        request["info"]["attributes"] = []
        if subject is not None:
            request["info"]["subject"] = core.Any.load(subject)
        if names is not None:
            add_attributes(request, {_EXTENSION_REQUEST: _alt_name_extension(names)})
        twin = x509.load_der_x509_csr(request.dump(force=True))
        alt_names = None
        if names is not None:
            extension = twin.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            alt_names = tuple(extension.value)
        return ChangeSubjectName(None if subject is None else twin.subject, alt_names)


def _alt_name_extension(names: bytes) -> bytes:
    oid = core.ObjectIdentifier(SUBJECT_ALT_NAME).dump()
    return _sequence(_sequence(oid + core.OctetString(names).dump()))


def _sequence(content: bytes) -> bytes:
    return bytes(core.Sequence(contents=content).dump())
