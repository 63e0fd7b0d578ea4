"""The base64 of EST's HTTP bodies (RFC 8951 section 3): RFC 4648 section 4, no PEM armour.

A Content-Transfer-Encoding header says nothing about these bodies and is ignored.
"""

from __future__ import annotations

import base64
import binascii
import re

from est_protocol.errors import MessageError

#: RFC 8951 section 3.1: receivers tolerate these anywhere.
_WHITE_SPACE = b"\r\n\t "
_OUTSIDE_ALPHABET = re.compile(rb"[^A-Za-z0-9+/=\r\n\t ]")
#: They make 64 columns.
_OCTETS_PER_LINE = 48


def encode(der: bytes, *, wrap: bool = True) -> bytes:
    """The base64 of ``der`` in lines that end in LF, the last one too.

    :param der: the octets of the message.
    :param wrap: lines of 64 columns, which OpenSSL's reader wants; ``False`` makes it one line,
        for readers that take no white space inside.
    """
    octets = _OCTETS_PER_LINE if wrap else max(len(der), 1)
    # Each with the LF at its end.
    lines = [binascii.b2a_base64(der[at : at + octets]) for at in range(0, len(der), octets)]
    return b"".join(lines)


def decode(body: bytes) -> bytes:
    """The octets that ``body`` is the base64 of; white space in it means nothing.

    :param body: an HTTP body as received; its size is the transport's to bound.
    :raises MessageError: the body is empty or is not base64; the sentence says why.
    """
    text = body.translate(None, _WHITE_SPACE)
    if not text:
        raise MessageError("the body is empty")
    _require_alphabet(body)
    if len(text) % 4:
        raise MessageError(f"the base64 body is cut short: {len(text)} is no multiple of four")
    if b"=" in text.removesuffix(b"=").removesuffix(b"="):
        # Python 3.11's strict mode lets whole groups of padding pass.
        raise MessageError("the base64 body is padded in the wrong place")
    return base64.b64decode(text)


def _require_alphabet(body: bytes) -> None:
    found = _OUTSIDE_ALPHABET.search(body)
    if not found:
        return
    if body.lstrip(_WHITE_SPACE).startswith(b"-----BEGIN"):
        raise MessageError("the body is PEM; EST sends the base64 without the PEM header lines")
    if body[0] == 0x30:
        raise MessageError("the body is not base64; it looks like the DER itself")
    octet = found.group()[0]
    raise MessageError(f"the body is not base64: octet 0x{octet:02x} at offset {found.start()}")
