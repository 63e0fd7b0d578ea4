"""Decoding DER with asn1crypto so that nothing but :class:`MessageError` comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from est_protocol.der import OBJECT_IDENTIFIER, DerReader
from est_protocol.errors import MessageError

_T = TypeVar("_T")

#: asn1crypto's time for one object identifier grows with the square of its length: seconds for the
#: longest that fits into a message. ``cryptography`` takes none above 63 octets either.
_LONGEST_IDENTIFIER = 63
_MOST_ELEMENTS = 4096
_DEEPEST = 32
_CONSTRUCTED = 0x20


def decoding(what: str, decode: Callable[[], _T]) -> _T:
    """The result of ``decode``, which reads octets from the network.

    asn1crypto decodes when a value is looked at, so all looking belongs inside.

    :param what: what is decoded, for the error message.
    :raises MessageError: ``decode`` raised it, or what asn1crypto raises for octets that it
        cannot make sense of.
    """
    try:
        return decode()
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        # AttributeError comes for a tag that no alternative of a CHOICE has.
        raise MessageError(f"{what} do not decode") from error


def load_der(spec: Any, der: bytes) -> Any:
    """Load ``der`` as the asn1crypto type ``spec``; to be called inside :func:`decoding`.

    :raises ValueError: it is not DER, or something follows it.
    :raises MessageError: as :func:`require_modest`.
    """
    require_modest(der)
    value = spec.load(der, strict=True)
    if value.dump(force=True) != der:
        raise ValueError("not DER")
    return value


def require_modest(der: bytes) -> None:
    """Check that asn1crypto will not take long over ``der``, before it is given to it.

    :raises MessageError: it has too many elements, too deep ones or too long object identifiers,
        or is not DER.
    """
    pending, count = [(der, 0)], 0
    while pending:
        octets, depth = pending.pop()
        reader = DerReader(octets, "the ASN.1")
        while (tag := reader.next_tag) is not None:
            content, count = reader.read(tag, "an element").content, count + 1
            if tag == OBJECT_IDENTIFIER and len(content) > _LONGEST_IDENTIFIER:
                raise MessageError("an object identifier is too long")
            if count > _MOST_ELEMENTS or depth > _DEEPEST:
                raise MessageError("the ASN.1 has too many elements, or too deep ones")
            if tag & _CONSTRUCTED:
                pending.append((content, depth + 1))
