"""CoAP requests and answers as the resources of EST see them (RFC 7252, RFC 7959)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from est_protocol.coap.octets import CoapOctets, OptionRule, encode_uint
from est_protocol.credentials import PeerCredentials

GET, POST = 0x01, 0x02
CHANGED, CONTENT, CONTINUE = 0x44, 0x45, 0x5F

_URI_HOST, _ETAG, _URI_PORT, _URI_PATH, _CONTENT_FORMAT, _MAX_AGE = 3, 4, 7, 11, 12, 14
_URI_QUERY, _ACCEPT, _BLOCK2, _BLOCK1, _SIZE2, _SIZE1 = 15, 17, 23, 27, 28, 60

#: Options that a request may carry (RFC 9148 section 4.4). Any other one with an odd number, or
#: one that comes twice, is refused with 4.02 (RFC 7252 sections 5.4.1 and 5.4.5).
UNDERSTOOD = {
    _URI_HOST: OptionRule(1, 255),
    _URI_PORT: OptionRule(0, 2),
    _URI_PATH: OptionRule(0, 255, repeatable=True),
    _CONTENT_FORMAT: OptionRule(0, 2),
    _URI_QUERY: OptionRule(0, 255, repeatable=True),
    _ACCEPT: OptionRule(0, 2),
    _BLOCK2: OptionRule(0, 3),
    _BLOCK1: OptionRule(0, 3),
    _SIZE2: OptionRule(0, 4),
    _SIZE1: OptionRule(0, 4),
}


@dataclass(frozen=True, slots=True)
class Block:
    """A Block1 or Block2 option (RFC 7959 section 2.2).

    :param number: number of the block, counted in its own size.
    :param more: whether more blocks follow.
    :param szx: size exponent, 0 to 6 for 16 to 1024 octets; 7 is reserved on UDP.
    """

    number: int
    more: bool
    szx: int

    @classmethod
    def decode(cls, value: bytes) -> Block:
        """Read an option's value of up to 3 octets."""
        whole = int.from_bytes(value, "big")
        return cls(whole >> 4, bool(whole & 8), whole & 7)

    def encode(self) -> bytes:
        """The option's value."""
        return encode_uint(self.number << 4 | self.more << 3 | self.szx)

    @property
    def size(self) -> int:
        """Octets in a full block."""
        return 1 << (self.szx + 4)

    @property
    def offset(self) -> int:
        """Where the block begins in the body, in octets."""
        return self.number * self.size


class Session(Protocol):
    """One DTLS session, as what has to do with its requests sees it."""

    @property
    def peer(self) -> PeerCredentials:
        """Who it is, as far as the handshake proved it."""
        ...


@dataclass(slots=True)
class Request:
    """One request.

    :param session: the DTLS session that it came over.
    :param bad_option: see :class:`~est_protocol.coap.octets.CoapOctets`.
    """

    session: Session
    code: int
    path: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    content_format: int | None = None
    accept: int | None = None
    block1: Block | None = None
    block2: Block | None = None
    size1: int | None = None
    size2: int | None = None
    payload: bytes = b""
    bad_option: int | None = None

    @classmethod
    def of(cls, message: CoapOctets, session: Session) -> Request:
        """The request that ``message`` is; it was parsed with :data:`UNDERSTOOD`."""
        options = message.options
        path, query = _texts(message, _URI_PATH), _texts(message, _URI_QUERY)
        return cls(
            session,
            message.code,
            path,
            query,
            _uint(options, _CONTENT_FORMAT),
            _uint(options, _ACCEPT),
            _block(options, _BLOCK1),
            _block(options, _BLOCK2),
            _uint(options, _SIZE1),
            _uint(options, _SIZE2),
            message.payload,
            message.bad_option,
        )


@dataclass(slots=True)
class Response:
    """One answer; options that are ``None`` or empty are left out."""

    code: int
    payload: bytes = b""
    content_format: int | None = None
    etag: bytes = b""
    max_age: int | None = None
    block1: Block | None = None
    block2: Block | None = None
    size1: int | None = None
    size2: int | None = None

    def options(self) -> list[tuple[int, bytes]]:
        """The options in order of their numbers."""
        present: list[tuple[int, bytes]] = []
        if self.etag:
            present.append((_ETAG, self.etag))
        if self.content_format is not None:
            present.append((_CONTENT_FORMAT, encode_uint(self.content_format)))
        if self.max_age is not None:
            present.append((_MAX_AGE, encode_uint(self.max_age)))
        if self.block2 is not None:
            present.append((_BLOCK2, self.block2.encode()))
        if self.block1 is not None:
            present.append((_BLOCK1, self.block1.encode()))
        if self.size2 is not None:
            present.append((_SIZE2, encode_uint(self.size2)))
        if self.size1 is not None:
            present.append((_SIZE1, encode_uint(self.size1)))
        return present


def _texts(message: CoapOctets, number: int) -> tuple[str, ...]:
    try:
        return tuple([value.decode() for value in message.options.get(number, ())])
    except UnicodeDecodeError:
        message.note_bad_option(number)
        return ()


def _uint(options: dict[int, list[bytes]], number: int) -> int | None:
    values = options.get(number)
    return int.from_bytes(values[0], "big") if values else None


def _block(options: dict[int, list[bytes]], number: int) -> Block | None:
    values = options.get(number)
    return Block.decode(values[0]) if values else None
