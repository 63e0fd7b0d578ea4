"""CoAP messages as octets (RFC 7252 section 3), taken apart and put together.

The server works on these values as they are. aiocoap's message objects, which the client works
with, cost several times as much (see docs/explanation/architecture.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from est_protocol.errors import MessageError

CON, NON, ACK, RST = range(4)
EMPTY = 0

_HEADER_SIZE = 4
_MAXIMUM_TOKEN = 8
_MARKER = 0xFF
_HIGHEST_NUMBER = 65535
#: Options of one message: several times what EST needs, and far below the 16,000 that fit into a
#: record and take 30 ms to look at.
_MOST_OPTIONS = 64


@dataclass(frozen=True, slots=True)
class OptionRule:
    """What the value of an option may be like.

    :param shortest: octets of its value, at least.
    :param longest: octets of its value, at most.
    :param repeatable: whether a message may have several.
    """

    shortest: int
    longest: int
    repeatable: bool = False


@dataclass(slots=True)
class CoapOctets:
    """One message; only the options that its reader understands are there.

    :param bad_option: number of the first critical option that is not understood: unknown, of a
        wrong length, or repeated (RFC 7252 sections 5.4.1, 5.4.3 and 5.4.5).
    """

    type: int
    code: int
    message_id: int
    token: bytes
    options: dict[int, list[bytes]] = field(default_factory=dict)
    payload: bytes = b""
    bad_option: int | None = None

    def note_bad_option(self, number: int) -> None:
        """Note that the option ``number`` is not understood, if that matters."""
        if number % 2 and self.bad_option is None:
            self.bad_option = number


def parse(datagram: bytes, understood: Mapping[int, OptionRule]) -> CoapOctets:
    """Take one message apart.

    :param understood: the options that are understood, by number.
    :raises MessageError: a message format error: the message is to be ignored (section 4.2).
    """
    if len(datagram) < _HEADER_SIZE:
        raise MessageError("a CoAP message has at least 4 octets")
    first = datagram[0]
    token_length = first & 0x0F
    if first >> 6 != 1:
        raise MessageError("not version 1 of CoAP")
    at = _HEADER_SIZE + token_length
    if token_length > _MAXIMUM_TOKEN or len(datagram) < at:
        raise MessageError("wrong token length")
    if datagram[1] == EMPTY and len(datagram) > _HEADER_SIZE:
        raise MessageError("an empty message has nothing after its Message ID")
    message_id = datagram[2] << 8 | datagram[3]
    message = CoapOctets(first >> 4 & 3, datagram[1], message_id, datagram[_HEADER_SIZE:at])
    if at < len(datagram):
        _parse_options(datagram, at, message, understood)
    return message


def _parse_options(
    datagram: bytes, at: int, message: CoapOctets, understood: Mapping[int, OptionRule]
) -> None:
    """Walk the options (section 3.1), then leave what follows them in the message."""
    number = count = 0
    end = len(datagram)
    while at < end:
        head = datagram[at]
        if head == _MARKER:
            message.payload = datagram[at + 1 :]
            if not message.payload:
                raise MessageError("a payload marker without a payload")
            return
        count += 1
        if count > _MOST_OPTIONS:
            raise MessageError(f"more than {_MOST_OPTIONS} options")
        delta, length, at = head >> 4, head & 0x0F, at + 1
        if delta > 12:
            delta, at = _extended(delta, datagram, at)
        if length > 12:
            length, at = _extended(length, datagram, at)
        number += delta
        if at + length > end or number > _HIGHEST_NUMBER:
            raise MessageError("an option is longer than the message, or its number too high")
        _take(message, number, datagram[at : at + length], understood)
        at += length


def _extended(nibble: int, datagram: bytes, at: int) -> tuple[int, int]:
    size = nibble - 12
    if size > 2 or at + size > len(datagram):
        raise MessageError("an option is cut off")
    return int.from_bytes(datagram[at : at + size], "big") + (13, 269)[size - 1], at + size


def _take(
    message: CoapOctets, number: int, value: bytes, understood: Mapping[int, OptionRule]
) -> None:
    rule = understood.get(number)
    if rule is None or not rule.shortest <= len(value) <= rule.longest:
        message.note_bad_option(number)
        return
    values = message.options.get(number)
    if values is None:
        message.options[number] = [value]
    elif rule.repeatable:
        values.append(value)
    else:
        message.note_bad_option(number)


def encode(
    type: int,
    code: int,
    message_id: int,
    token: bytes = b"",
    options: Iterable[tuple[int, bytes]] = (),
    payload: bytes = b"",
) -> bytes:
    """Put one message together.

    :param options: numbers and values, in order of their numbers.
    """
    octets = bytearray((0x40 | type << 4 | len(token), code, message_id >> 8, message_id & 0xFF))
    octets += token
    before = 0
    for number, value in options:
        delta, length = number - before, len(value)
        octets.append(_nibble(delta) << 4 | _nibble(length))
        octets += _extension(delta) + _extension(length) + value
        before = number
    if payload:
        octets.append(_MARKER)
        octets += payload
    return bytes(octets)


def encode_uint(value: int) -> bytes:
    """An option value of format uint (section 3.2)."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _nibble(value: int) -> int:
    return value if value < 13 else 13 if value < 269 else 14


def _extension(value: int) -> bytes:
    if value < 13:
        return b""
    return bytes((value - 13,)) if value < 269 else (value - 269).to_bytes(2, "big")
