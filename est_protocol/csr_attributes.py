"""CSR attributes: what a server wants to see in a CSR (RFC 8951 section 4, RFC 9908).

Two languages say it, and one message may speak both::

    CsrAttrs ::= SEQUENCE SIZE (0..MAX) OF AttrOrOID
    AttrOrOID ::= CHOICE { oid OBJECT IDENTIFIER, attribute Attribute {{AttrSet}} }
    Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET SIZE (1..MAX) OF ANY }

the legacy list, and one attribute of it (RFC 9908 section 3.4) that holds a template of the CSR::

    CertificationRequestInfoTemplate ::= SEQUENCE {
        version       INTEGER { v1(0) } (v1, ... ),
        subject       NameTemplate OPTIONAL,
        subjectPKInfo [0] SubjectPublicKeyInfoTemplate OPTIONAL,
        attributes    [1] Attributes }
    NameTemplate ::= SEQUENCE OF SET SIZE (1..MAX) OF SingleAttributeTemplate
    SingleAttributeTemplate ::= SEQUENCE { type OBJECT IDENTIFIER, value ANY OPTIONAL }
    SubjectPublicKeyInfoTemplate ::= SEQUENCE {
        algorithm AlgorithmIdentifier, subjectPublicKey BIT STRING OPTIONAL }
    ExtensionTemplate ::= SEQUENCE {
        extnID OBJECT IDENTIFIER, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING OPTIONAL }

This module is the codec: structure, not meaning. What a message asks for is worked out in
:mod:`est_protocol.csr_wishes`. Where the RFCs contradict themselves:

- ``values`` may be empty although the ASN.1 says ``SIZE (1..MAX)`` (RFC 9908 section 3.2);
- an extensionReqTemplate is a ``SEQUENCE OF ExtensionTemplate`` as in the ASN.1 module, not one
  ExtensionTemplate as in the prose; its OID is the registered 1.2.840.113549.1.9.16.2.62, and the
  misprint 1.2.840.113549.1.9.62 of section 3.4 is understood, never sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from asn1crypto import core

from est_protocol.errors import MessageError
from est_protocol.strict_asn1 import decoding, load_der

EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
REQUEST_INFO_TEMPLATE = "1.2.840.113549.1.9.16.2.61"
EXTENSION_TEMPLATE = "1.2.840.113549.1.9.16.2.62"
EXTENSION_TEMPLATE_MISPRINTED = "1.2.840.113549.1.9.62"

#: Elements in one list. RFC 8951 sets no bound; a constrained client has to have one.
MAX_ELEMENTS = 256


@dataclass(frozen=True, slots=True)
class CsrAttribute:
    """One element of the list.

    :param oid: the OBJECT IDENTIFIER in dotted form.
    :param values: DER of each value of an Attribute, in the order in which they came, or ``None``
        where the element is a bare OID.
    """

    oid: str
    values: tuple[bytes, ...] | None = None


@dataclass(frozen=True, slots=True)
class NameAttributeTemplate:
    """One attribute of a name: ``value`` is the DER to use, or ``None`` to be filled in."""

    oid: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """What kind of key is wanted.

    :param algorithm: DER of the AlgorithmIdentifier.
    :param placeholder: octets of a subjectPublicKey that shows nothing but the wanted size
        (RFC 9908 section 3.4: RSA only), or ``None``.
    """

    algorithm: bytes
    placeholder: bytes | None = None


@dataclass(frozen=True, slots=True)
class ExtensionTemplate:
    """One extension: ``value`` is the extnValue's content, or ``None`` to be filled in."""

    oid: str
    critical: bool
    value: bytes | None


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """A template of a CSR (RFC 9908 section 3.4).

    :param subject: relative distinguished names, each of one or more attributes, or ``None``
        where the subject is left to the client.
    :param key: the wanted kind of key, or ``None``.
    :param attributes: the attributes of the CSR; see :func:`extensions_of`.
    """

    subject: tuple[tuple[NameAttributeTemplate, ...], ...] | None = None
    key: KeyTemplate | None = None
    attributes: tuple[CsrAttribute, ...] = ()


@dataclass(frozen=True, slots=True)
class CsrAttributes:
    """A whole CsrAttrs message; no element at all says that there are no wishes."""

    elements: tuple[CsrAttribute, ...] = ()

    def encode(self) -> bytes:
        """The DER octets."""
        return _AttrOrOids([_element(element) for element in self.elements]).dump()  # type: ignore[no-any-return]

    @classmethod
    def decode(cls, der: bytes) -> CsrAttributes:
        """Decode DER octets.

        :raises MessageError: they are not a CsrAttrs message.
        """
        return decoding(_WHAT, lambda: cls(_elements(load_der(_AttrOrOids, der))))

    @property
    def template(self) -> RequestTemplate | None:
        """The template among the elements, or ``None``.

        :raises MessageError: it does not decode, or there are two.
        """
        found = [e for e in self.elements if e.oid == REQUEST_INFO_TEMPLATE]
        if not found:
            return None
        if len(found) > 1 or found[0].values is None or len(found[0].values) != 1:
            raise MessageError("a CSR attributes message has at most one template, of one value")
        return decode_template(found[0].values[0])


def extensions_of(attributes: Iterable[CsrAttribute]) -> tuple[ExtensionTemplate, ...]:
    """The extensions that are asked for, complete or to be filled in.

    :raises MessageError: there is more than one attribute that asks for extensions, it has not
        exactly one value, the value does not decode, or an extension stands there twice
        (RFC 9908 sections 3.2 and 3.4). RFC 7030's own example, an extensionRequest around a bare
        OID, is one of these.
    """
    asking = {EXTENSION_REQUEST, EXTENSION_TEMPLATE, EXTENSION_TEMPLATE_MISPRINTED}
    found = [attribute for attribute in attributes if attribute.oid in asking]
    if not found:
        return ()
    if len(found) > 1:
        raise MessageError("extensions are asked for in more than one attribute")
    if found[0].values is None or len(found[0].values) != 1:
        raise MessageError("an attribute that asks for extensions has exactly one value")
    extensions = decoding(_WHAT, lambda: _extensions(found[0]))
    oids = [extension.oid for extension in extensions]
    if len(set(oids)) != len(oids):
        raise MessageError("an extension is asked for twice")
    return extensions


def asking_for(
    extensions: Iterable[ExtensionTemplate], *, partial_values: bool = False
) -> CsrAttribute:
    """The attribute that asks for ``extensions``: extensionRequest if every value is complete,
    else extensionReqTemplate (RFC 9908 section 3.4).

    :param partial_values: a value that is there is not complete, such as a subjectAltName with
        an empty iPAddress.
    """
    extensions = tuple(extensions)
    complete = not partial_values and all(e.value is not None for e in extensions)
    value = _Extensions([_extension(extension) for extension in extensions])
    return CsrAttribute(EXTENSION_REQUEST if complete else EXTENSION_TEMPLATE, (value.dump(),))


def encode_template(template: RequestTemplate) -> CsrAttribute:
    """The element that carries ``template``."""
    value = _Template({"version": 0})
    if template.subject is not None:
        value["subject"] = [
            [_name_attribute(attribute) for attribute in rdn] for rdn in template.subject
        ]
    if template.key is not None:
        key: dict[str, Any] = {"algorithm": core.Any.load(template.key.algorithm)}
        if template.key.placeholder is not None:
            key["key"] = core.OctetBitString(template.key.placeholder)
        value["key"] = key
    value["attributes"] = [_attribute(attribute) for attribute in template.attributes]
    return CsrAttribute(REQUEST_INFO_TEMPLATE, (value.dump(),))


def decode_template(der: bytes) -> RequestTemplate:
    """Decode one CertificationRequestInfoTemplate.

    :raises MessageError: the octets are not one.
    """
    return decoding(_WHAT, lambda: _template(load_der(_Template, der)))


# -- ASN.1 -------------------------------------------------------------------------------------


class _Values(core.SetOf):  # type: ignore[misc]
    _child_spec = core.Any


class _Attribute(core.Sequence):  # type: ignore[misc]
    _fields = [("type", core.ObjectIdentifier), ("values", _Values)]  # noqa: RUF012


class _AttrOrOid(core.Choice):  # type: ignore[misc]
    _alternatives = [("oid", core.ObjectIdentifier), ("attribute", _Attribute)]  # noqa: RUF012


class _AttrOrOids(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _AttrOrOid


class _Attributes(core.SetOf):  # type: ignore[misc]
    _child_spec = _Attribute


class _NameAttribute(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("type", core.ObjectIdentifier),
        ("value", core.Any, {"optional": True}),
    ]


class _RelativeName(core.SetOf):  # type: ignore[misc]
    _child_spec = _NameAttribute


class _Name(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _RelativeName


class _KeyInfo(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("algorithm", core.Any),
        ("key", core.OctetBitString, {"optional": True}),
    ]


class _Template(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("version", core.Integer),
        ("subject", _Name, {"optional": True}),
        ("key", _KeyInfo, {"implicit": 0, "optional": True}),
        ("attributes", _Attributes, {"implicit": 1, "optional": True}),
    ]


class _Extension(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("oid", core.ObjectIdentifier),
        ("critical", core.Boolean, {"default": False}),
        ("value", core.OctetString, {"optional": True}),
    ]


class _Extensions(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _Extension


# -- Values to ASN.1 ---------------------------------------------------------------------------


def _attribute(attribute: CsrAttribute) -> _Attribute:
    values = [core.Any.load(value) for value in attribute.values or ()]
    return _Attribute({"type": attribute.oid, "values": _Values(values)})


def _element(element: CsrAttribute) -> _AttrOrOid:
    if element.values is None:
        return _AttrOrOid("oid", core.ObjectIdentifier(element.oid))
    return _AttrOrOid("attribute", _attribute(element))


def _name_attribute(attribute: NameAttributeTemplate) -> _NameAttribute:
    fields: dict[str, Any] = {"type": attribute.oid}
    if attribute.value is not None:
        fields["value"] = core.Any.load(attribute.value)
    return _NameAttribute(fields)


def _extension(extension: ExtensionTemplate) -> _Extension:
    fields: dict[str, Any] = {"oid": extension.oid, "critical": extension.critical}
    if extension.value is not None:
        fields["value"] = extension.value
    return _Extension(fields)


# -- ASN.1 to values ---------------------------------------------------------------------------


_WHAT = "the CSR attributes"


def _elements(items: Any) -> tuple[CsrAttribute, ...]:
    if len(items) > MAX_ELEMENTS:
        raise MessageError(f"more than {MAX_ELEMENTS} CSR attributes")
    return tuple(
        CsrAttribute(item.chosen.dotted) if item.name == "oid" else _attribute_value(item.chosen)
        for item in items
    )


def _attribute_value(item: Any) -> CsrAttribute:
    return CsrAttribute(item["type"].dotted, tuple(value.dump() for value in item["values"]))


def _optional(item: Any) -> Any | None:
    return None if isinstance(item, core.Void) else item


def _template(item: Any) -> RequestTemplate:
    if item["version"].native != 0:
        raise MessageError("the template of a CSR is of an unknown version")
    subject, key = _optional(item["subject"]), _optional(item["key"])
    return RequestTemplate(
        subject=None if subject is None else tuple(_relative_name(rdn) for rdn in subject),
        key=None if key is None else _key(key),
        attributes=tuple(_attribute_value(entry) for entry in _optional(item["attributes"]) or ()),
    )


def _relative_name(rdn: Any) -> tuple[NameAttributeTemplate, ...]:
    if not len(rdn):
        raise MessageError("a relative distinguished name has at least one attribute")
    return tuple(
        NameAttributeTemplate(
            attribute["type"].dotted,
            None if _optional(attribute["value"]) is None else attribute["value"].dump(),
        )
        for attribute in rdn
    )


def _key(item: Any) -> KeyTemplate:
    placeholder = _optional(item["key"])
    return KeyTemplate(
        item["algorithm"].dump(), None if placeholder is None else placeholder.native
    )


def _extensions(attribute: CsrAttribute) -> tuple[ExtensionTemplate, ...]:
    assert attribute.values is not None
    extensions = tuple(
        ExtensionTemplate(
            item["oid"].dotted,
            bool(item["critical"].native),
            None if _optional(item["value"]) is None else item["value"].native,
        )
        for item in load_der(_Extensions, attribute.values[0])
    )
    if attribute.oid == EXTENSION_REQUEST and any(e.value is None for e in extensions):
        raise MessageError("an extensionRequest leaves an extension open")
    return extensions
