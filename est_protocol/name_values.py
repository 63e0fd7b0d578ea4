"""Values of a distinguished name's attributes: DER to text and back (RFC 5280 appendix A.1)."""

from __future__ import annotations

from asn1crypto import core
from cryptography import x509

from est_protocol.errors import MessageError
from est_protocol.strict_asn1 import decoding

_STRINGS = {
    12: core.UTF8String,
    19: core.PrintableString,
    20: core.TeletexString,
    22: core.IA5String,
    26: core.VisibleString,
    28: core.UniversalString,
    30: core.BMPString,
}
_TYPES = {
    kind.value: kind for kind in type(x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")._type)
}


def text_of(der: bytes) -> str:
    """The text of a string value.

    :raises MessageError: it is none, or an empty one.
    """
    spec = _STRINGS.get(der[0] if der else 0)
    if spec is None:
        raise MessageError("the value in a name is not a string")
    text = str(decoding("the characters of a name", lambda: spec.load(der, strict=True).native))
    if not text:
        raise MessageError("the value in a name is empty")
    return text


def name_attribute(oid: str, der: bytes) -> x509.NameAttribute[str]:
    """The attribute with this value, its string type kept.

    :raises MessageError: the value is not one that this attribute can have.
    """
    text = text_of(der)
    try:
        return x509.NameAttribute(x509.ObjectIdentifier(oid), text, _TYPES[der[0]])
    except ValueError as error:
        raise MessageError(f"a value in a name is not allowed: {error}") from error


def encoded(oid: str, text: str) -> bytes:
    """The DER of ``text`` as a value of the attribute ``oid``, in the string type that it takes.

    :raises ValueError: the attribute cannot have this value.
    """
    attribute = x509.NameAttribute(x509.ObjectIdentifier(oid), text)
    return bytes(_STRINGS[attribute._type.value](text).dump())
