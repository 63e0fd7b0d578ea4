"""Decoding DER with asn1crypto so that nothing but :class:`MessageError` comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from est_protocol.errors import MessageError

_T = TypeVar("_T")


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
    """
    value = spec.load(der, strict=True)
    if value.dump(force=True) != der:
        raise ValueError("not DER")
    return value
