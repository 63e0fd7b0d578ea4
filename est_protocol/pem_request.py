"""A certification request in PEM (RFC 7468 section 7), which some clients send in place of its
base64 alone (RFC 8951 section 3)."""

from __future__ import annotations

from est_protocol import base64_body
from est_protocol.errors import MessageError

_BEGIN = b"-----BEGIN"

#: The second is what older tools write (RFC 7468 section 7).
_KINDS = (b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST")


def is_pem(text: bytes) -> bool:
    """Whether ``text`` is PEM, of whatever kind, if it is anything."""
    return text.lstrip().startswith(_BEGIN)


def remove_armour(text: bytes) -> bytes:
    """The DER octets of the one request that ``text`` holds.

    :param text: an HTTP body or a file; its size is the caller's to bound.
    :raises MessageError: it is no such PEM; the sentence says why.
    """
    stripped = text.strip()
    for kind in _KINDS:
        begin, end = b"-----BEGIN " + kind + b"-----", b"-----END " + kind + b"-----"
        if stripped.startswith(begin) and stripped.endswith(end):
            return base64_body.decode(stripped[len(begin) : -len(end)])
    raise MessageError("the PEM is not one certification request and nothing else")
