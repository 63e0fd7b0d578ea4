"""CoAP messages as aiocoap's objects, from octets.

aiocoap's own decoder keeps every option number and content-format that it has ever seen, takes
option values of any length, and lets some malformed messages pass. This one gives it only what
EST understands, and says what else was there.
"""

from __future__ import annotations

from aiocoap.message import Direction, Message
from aiocoap.numbers import OptionNumber, Type

from est_protocol.coap.octets import CoapOctets, OptionRule, parse
from est_protocol.media_types import ContentFormat

#: The options that are understood (RFC 7252 table 4, RFC 7959 table 1).
_UNDERSTOOD = {
    OptionNumber.URI_HOST: OptionRule(1, 255),
    OptionNumber.ETAG: OptionRule(1, 8, repeatable=True),
    OptionNumber.URI_PORT: OptionRule(0, 2),
    OptionNumber.URI_PATH: OptionRule(0, 255, repeatable=True),
    OptionNumber.CONTENT_FORMAT: OptionRule(0, 2),
    OptionNumber.MAX_AGE: OptionRule(0, 4),
    OptionNumber.URI_QUERY: OptionRule(0, 255, repeatable=True),
    OptionNumber.ACCEPT: OptionRule(0, 2),
    OptionNumber.BLOCK2: OptionRule(0, 3),
    OptionNumber.BLOCK1: OptionRule(0, 3),
    OptionNumber.SIZE2: OptionRule(0, 4),
    OptionNumber.PROXY_URI: OptionRule(1, 1034),
    OptionNumber.PROXY_SCHEME: OptionRule(1, 255),
    OptionNumber.SIZE1: OptionRule(0, 4),
}
_CONTENT_FORMATS = frozenset(
    value for value in vars(ContentFormat).values() if isinstance(value, int)
)
#: Stands for every content-format that EST has no use for; a number that is reserved for
#: experiments (RFC 7252 section 12.3).
UNKNOWN_CONTENT_FORMAT = 65535


class ReceivedMessage(Message):  # type: ignore[misc]
    """A message of the peer; only its understood options are in ``opt``."""

    #: Number of the first critical option that is not understood; see
    #: :class:`~est_protocol.coap.octets.CoapOctets`.
    bad_option: int | None = None


def decode_message(datagram: bytes) -> ReceivedMessage:
    """Decode one message.

    :raises MessageError: a message format error: the message is to be ignored (section 4.2).
    """
    parsed = parse(datagram, _UNDERSTOOD)
    message = ReceivedMessage(code=parsed.code, payload=parsed.payload)
    message.direction = Direction.INCOMING
    message.mtype = Type(parsed.type)
    message.mid = parsed.message_id
    message.token = parsed.token
    for number, values in parsed.options.items():
        for value in values:
            _add_option(message, parsed, number, value)
    message.bad_option = parsed.bad_option
    return message


def _add_option(message: ReceivedMessage, parsed: CoapOctets, number: int, value: bytes) -> None:
    if number in (OptionNumber.CONTENT_FORMAT, OptionNumber.ACCEPT):
        value = _known_content_format(value)
    try:
        message.opt.add_option(OptionNumber(number).create_option(decode=value))
    except UnicodeDecodeError:
        parsed.note_bad_option(number)


def _known_content_format(value: bytes) -> bytes:
    known = int.from_bytes(value, "big") in _CONTENT_FORMATS
    return value if known else UNKNOWN_CONTENT_FORMAT.to_bytes(2, "big")
