"""A subjectAltName that is filled in only in part (RFC 9908 section 3.4).

An entry without content - an empty iPAddress, a directoryName of no RDNs, an empty string - is a
slot: the client puts a name of the same kind there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from cryptography import x509

from est_protocol.der import SEQUENCE, DerReader
from est_protocol.errors import MessageError

_WHAT = "subjectAltName"
_EMPTY_NAME = b"\x30\x00"

#: What each choice of GeneralName is called, by its tag number (RFC 5280 section 4.2.1.6).
_KINDS = {
    0: "otherName",
    1: "rfc822Name",
    2: "dNSName",
    3: "x400Address",
    4: "directoryName",
    5: "ediPartyName",
    6: "uniformResourceIdentifier",
    7: "iPAddress",
    8: "registeredID",
}
_TEXT_KINDS = ("rfc822Name", "dNSName", "uniformResourceIdentifier")
#: The same by the words that configuration uses, with the octets that leave each open.
OPEN_ENTRIES = {"email": b"\x81\x00", "dns": b"\x82\x00", "uri": b"\x86\x00", "ip": b"\x87\x00"}


@dataclass(frozen=True, slots=True)
class NameEntry:
    """One GeneralName.

    :param kind: the name of its choice.
    :param der: its octets.
    :param is_open: whether it is a slot for the client to fill.
    """

    kind: str
    der: bytes
    is_open: bool

    def __str__(self) -> str:
        content = self.der[2:]
        if self.kind in _TEXT_KINDS and content.isascii():
            return f"{self.kind} {content.decode('ascii')}"
        if self.kind == "iPAddress" and len(content) in (4, 16):
            return f"{self.kind} {ip_address(content)}"
        return f"{self.kind} {content.hex()}"


def entries_of(value: bytes) -> tuple[NameEntry, ...]:
    """The entries of a GeneralNames.

    :param value: the content of extnValue.
    :raises MessageError: it is not DER of one, or has no entry.
    """
    outer = DerReader(value, _WHAT)
    names = DerReader(outer.read(SEQUENCE, "the sequence of names").content, _WHAT)
    outer.require_end()
    entries = []
    while (tag := names.next_tag) is not None:
        kind = _KINDS.get(tag & 0x1F)
        if kind is None or tag & 0xC0 != 0x80:
            raise MessageError(f"{_WHAT}: an entry is no GeneralName")
        element = names.read(tag, "a name")
        is_open = element.content in ((_EMPTY_NAME,) if kind == "directoryName" else (b"",))
        entries.append(NameEntry(kind, element.encoded, is_open))
    if not entries:
        raise MessageError(f"{_WHAT}: there is no name in it")
    return tuple(entries)


def encode(entries: Iterable[bytes]) -> bytes:
    """A GeneralNames of these encoded names."""
    content = b"".join(entries)
    size = len(content)
    if size < 0x80:
        return bytes([SEQUENCE, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([SEQUENCE, 0x80 | len(digits)]) + digits + content


def entry_of(name: x509.GeneralName) -> NameEntry:
    """One complete name."""
    return entries_of(x509.SubjectAlternativeName([name]).public_bytes())[0]


def fill(value: bytes, names: Iterable[x509.GeneralName]) -> bytes:
    """``value`` with each slot filled from ``names``, those of one kind in their order.

    :raises MessageError: ``value`` does not decode.
    :raises LookupError: there is no name left of the kind that a slot wants; its argument is
        the kind.
    """
    left = [entry_of(name) for name in names]
    filled = []
    for entry in entries_of(value):
        if entry.is_open:
            found = next((name for name in left if name.kind == entry.kind), None)
            if found is None:
                raise LookupError(entry.kind)
            left.remove(found)
            entry = found
        filled.append(entry.der)
    return encode(filled)
