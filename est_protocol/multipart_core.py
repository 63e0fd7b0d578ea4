"""application/multipart-core (RFC 8710), as /skg and /skc answer it (RFC 9148 section 4.8)::

multipart-core = [* multipart-part]
multipart-part = (type: uint .size 2, part: bytes / null)
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import cbor2

from est_protocol.errors import MessageError

#: Octets of the whole body.
MAX_OCTETS = 512 * 1024
_LARGEST_CONTENT_FORMAT = 0xFFFF
#: A key and a certificate, each with its content-format.
_ITEMS = 4
#: An array of four items; every other first octet is another number of items or another type.
_ARRAY_OF_FOUR = 0x84
#: Major types, and the additional information of a string in chunks (RFC 8949 section 3).
_UNSIGNED, _BYTE_STRING, _INDEFINITE = 0, 2, 31


class Part(NamedTuple):
    """One representation and the number of its content-format."""

    content_format: int
    body: bytes


def encode(parts: Sequence[Part]) -> bytes:
    """The CBOR array of ``parts``."""
    return cbor2.dumps([item for part in parts for item in part])


def decode(octets: bytes) -> tuple[Part, Part]:
    """The two representations, in the order in which they come; that says nothing.

    :raises MessageError: anything but an array of exactly two content-formats, each with its
        octets.
    """
    if len(octets) > MAX_OCTETS:
        raise MessageError(f"the multipart-core is larger than {MAX_OCTETS} octets")
    # Asked first, so that nothing deep or tagged reaches the CBOR library.
    if octets[:1] != bytes([_ARRAY_OF_FOUR]):
        raise MessageError("the multipart-core is not an array of exactly four items")
    stream = io.BytesIO(octets[1:])
    items = [_item(stream) for _ in range(_ITEMS)]
    if stream.read(1):
        raise MessageError("there are octets after the multipart-core")
    return _part(*items[:2]), _part(*items[2:])


def _item(stream: io.BytesIO) -> object:
    """One item, if it is of a type that stands in a multipart-core."""
    start = stream.tell()
    head = stream.read(1)
    if not head:
        raise MessageError("the multipart-core is cut short")
    if head[0] >> 5 not in (_UNSIGNED, _BYTE_STRING) or head[0] & 31 == _INDEFINITE:
        raise MessageError("the multipart-core has an item that is no number and no octets")
    stream.seek(start)
    try:
        return cbor2.CBORDecoder(stream).decode()
    except cbor2.CBORDecodeError as error:
        raise MessageError("the multipart-core is no CBOR, or is cut short") from error


def _part(content_format: object, body: object) -> Part:
    if not isinstance(content_format, int) or content_format > _LARGEST_CONTENT_FORMAT:
        raise MessageError("the multipart-core has a content-format that is none")
    if not isinstance(body, bytes):
        raise MessageError("the multipart-core has a representation that is no octets")
    return Part(content_format, body)
