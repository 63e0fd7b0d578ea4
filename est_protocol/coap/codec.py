"""CoAP messages from octets (RFC 7252 section 3).

aiocoap's own decoder keeps every option number and content-format that it has ever seen, takes
option values of any length, and lets some malformed messages pass. This one gives it only what
EST understands, and says what else was there.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiocoap.message import Direction, Message
from aiocoap.numbers import OptionNumber, Type

from est_protocol.errors import MessageError
from est_protocol.media_types import ContentFormat

_HEADER_SIZE = 4
_MAXIMUM_TOKEN = 8
_MARKER = 0xFF
_HIGHEST_NUMBER = 65535
#: Options of one message: several times what EST needs, and far below the 16,000 that fit into a
#: record and take 30 ms to look at.
_MOST_OPTIONS = 64

#: The options that are understood: shortest and longest value, and whether they may be repeated
#: (RFC 7252 table 4, RFC 7959 table 1).
_UNDERSTOOD = {
    OptionNumber.URI_HOST: (1, 255, False),
    OptionNumber.ETAG: (1, 8, True),
    OptionNumber.URI_PORT: (0, 2, False),
    OptionNumber.URI_PATH: (0, 255, True),
    OptionNumber.CONTENT_FORMAT: (0, 2, False),
    OptionNumber.MAX_AGE: (0, 4, False),
    OptionNumber.URI_QUERY: (0, 255, True),
    OptionNumber.ACCEPT: (0, 2, False),
    OptionNumber.BLOCK2: (0, 3, False),
    OptionNumber.BLOCK1: (0, 3, False),
    OptionNumber.SIZE2: (0, 4, False),
    OptionNumber.PROXY_URI: (1, 1034, False),
    OptionNumber.PROXY_SCHEME: (1, 255, False),
    OptionNumber.SIZE1: (0, 4, False),
}
_CONTENT_FORMATS = frozenset(
    value for value in vars(ContentFormat).values() if isinstance(value, int)
)
#: Stands for every content-format that EST has no use for; a number that is reserved for
#: experiments (RFC 7252 section 12.3).
UNKNOWN_CONTENT_FORMAT = 65535


class ReceivedMessage(Message):  # type: ignore[misc]
    """A message of the peer; only its understood options are in ``opt``."""

    #: Number of the first critical option that is not understood: unknown, of a wrong length,
    #: or repeated (RFC 7252 sections 5.4.1, 5.4.3 and 5.4.5).
    bad_option: int | None = None


def decode_message(datagram: bytes) -> ReceivedMessage:
    """Decode one message.

    :raises MessageError: a message format error: the message is to be ignored (section 4.2).
    """
    if len(datagram) < _HEADER_SIZE:
        raise MessageError("a CoAP message has at least 4 octets")
    version, token_length = datagram[0] >> 6, datagram[0] & 0x0F
    if version != 1:
        raise MessageError("not version 1 of CoAP")
    options_at = _HEADER_SIZE + token_length
    if token_length > _MAXIMUM_TOKEN or len(datagram) < options_at:
        raise MessageError("wrong token length")
    if datagram[1] == 0 and len(datagram) > _HEADER_SIZE:
        raise MessageError("an empty message has nothing after its Message ID")
    message = ReceivedMessage(code=datagram[1])
    message.direction = Direction.INCOMING
    message.mtype = Type((datagram[0] & 0x30) >> 4)
    message.mid = int.from_bytes(datagram[2:4], "big")
    message.token = datagram[_HEADER_SIZE:options_at]
    for number, value in _options(datagram, options_at, message):
        _add_option(message, number, value)
    return message


def _options(datagram: bytes, at: int, message: ReceivedMessage) -> Iterator[tuple[int, bytes]]:
    """Walk the options (section 3.1), then leave what follows them in the message."""
    number = count = 0
    while at < len(datagram):
        if datagram[at] == _MARKER:
            message.payload = datagram[at + 1 :]
            if not message.payload:
                raise MessageError("a payload marker without a payload")
            return
        count += 1
        if count > _MOST_OPTIONS:
            raise MessageError(f"more than {_MOST_OPTIONS} options")
        head = datagram[at]
        delta, at = _extended(head >> 4, datagram, at + 1)
        length, at = _extended(head & 0x0F, datagram, at)
        number += delta
        if at + length > len(datagram) or number > _HIGHEST_NUMBER:
            raise MessageError("an option is longer than the message, or its number too high")
        yield number, datagram[at : at + length]
        at += length


def _extended(nibble: int, datagram: bytes, at: int) -> tuple[int, int]:
    if nibble < 13:
        return nibble, at
    size = nibble - 12
    if size > 2 or at + size > len(datagram):
        raise MessageError("an option is cut off")
    return int.from_bytes(datagram[at : at + size], "big") + (13, 269)[size - 1], at + size


def _add_option(message: ReceivedMessage, number: int, value: bytes) -> None:
    rule = _UNDERSTOOD.get(number)
    understood = (
        rule is not None
        and rule[0] <= len(value) <= rule[1]
        and (rule[2] or not message.opt.get_option(number))
    )
    if understood:
        if number in (OptionNumber.CONTENT_FORMAT, OptionNumber.ACCEPT):
            value = _known_content_format(value)
        try:
            message.opt.add_option(OptionNumber(number).create_option(decode=value))
            return
        except UnicodeDecodeError:
            pass
    if number % 2 and message.bad_option is None:
        message.bad_option = number


def _known_content_format(value: bytes) -> bytes:
    known = int.from_bytes(value, "big") in _CONTENT_FORMATS
    return value if known else UNKNOWN_CONTENT_FORMAT.to_bytes(2, "big")
