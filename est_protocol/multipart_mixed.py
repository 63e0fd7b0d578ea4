"""The multipart/mixed body of /serverkeygen over HTTPS (RFC 2046 section 5.1, RFC 7030 4.4.2).

The parts are told apart by their Content-Type; a Content-Transfer-Encoding says nothing about
them and is ignored (RFC 8951 section 3.2.4).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from est_protocol.errors import MessageError
from est_protocol.media_types import MULTIPART_MIXED, MediaType

#: EST has two parts; some servers may add one of their own.
MAX_PARTS = 8
#: Octets of the headers of one part.
MAX_HEADER = 8192
#: Octets of the whole body.
MAX_OCTETS = 512 * 1024

#: RFC 2046's boundary: 1 to 70 bchars, no space at the end.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_FOLDED = re.compile(rb"\r?\n[ \t]+")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body.

    :param media_type: its Content-Type.
    :param body: its octets, as they are; not in the ``repr``, since they may be a private key.
    """

    media_type: MediaType
    body: bytes = field(repr=False)


def _token() -> str:
    return f"est-{secrets.token_hex(16)}"


def encode(
    parts: Sequence[Part], *, transfer_encoding: str = "", token: Callable[[], str] = _token
) -> tuple[MediaType, bytes]:
    """The media type, with its boundary, and the body that ``parts`` make.

    :param transfer_encoding: what each part says of itself as its Content-Transfer-Encoding, for
        peers that read none without.
    :param token: makes candidates for the boundary; the first that occurs in no part is taken.
    """
    boundary = token()
    while any(boundary.encode("ascii") in part.body for part in parts):
        boundary = token()
    delimiter = f"--{boundary}".encode("ascii")
    encoded = f"Content-Transfer-Encoding: {transfer_encoding}\r\n" if transfer_encoding else ""
    body = b"".join(
        delimiter
        + f"\r\nContent-Type: {part.media_type}\r\n{encoded}\r\n".encode("ascii")
        + part.body
        + b"\r\n"
        for part in parts
    )
    media_type = MediaType(MULTIPART_MIXED.name, {"boundary": boundary})
    return media_type, body + delimiter + b"--\r\n"


def decode(media_type: MediaType, body: bytes) -> tuple[Part, ...]:
    """The parts of ``body``, in their order; preamble and epilogue are left out.

    :param media_type: the Content-Type that came with it.
    :raises MessageError: it is no multipart/mixed, has no usable boundary, does not end with it,
        or has too many parts or octets.
    """
    if len(body) > MAX_OCTETS:
        raise MessageError(f"the multipart body is larger than {MAX_OCTETS} octets")
    return tuple(_part(section) for section in _sections(_boundary(media_type), body))


def _boundary(media_type: MediaType) -> bytes:
    if media_type.name != MULTIPART_MIXED.name:
        raise MessageError(f"the answer is not {MULTIPART_MIXED}")
    boundary = media_type.parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise MessageError("the multipart body has no usable boundary")
    return boundary.encode("ascii")


def _sections(boundary: bytes, body: bytes) -> list[bytes]:
    """What stands between the delimiters, the line break in front of each left out."""
    delimiter = re.compile(rb"(?:\A|\r?\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r?\n|\Z)")
    sections: list[bytes] = []
    start: int | None = None
    position = 0
    while found := delimiter.search(body, position):
        if start is not None:
            sections.append(body[start : max(start, found.start())])
        if found[1]:
            return sections
        if len(sections) == MAX_PARTS:
            raise MessageError(f"the multipart body has more than {MAX_PARTS} parts")
        start = found.end()
        # The line break after one delimiter may be the one in front of the next.
        position = start - 1 if body[start - 1 : start] == b"\n" else start
        if position and body[position - 1 : position] == b"\r":
            position -= 1
    raise MessageError("the multipart body does not end with its boundary")


def _part(section: bytes) -> Part:
    headers, content = _split(section)
    if len(headers) > MAX_HEADER:
        raise MessageError("the headers of a part are too long")
    for line in _FOLDED.sub(b" ", headers).splitlines():
        name, separator, value = line.partition(b":")
        if separator and name.strip().lower() == b"content-type":
            return Part(MediaType.parse(value.decode("ascii", errors="replace")), content)
    raise MessageError("a part has no Content-Type")


def _split(section: bytes) -> tuple[bytes, bytes]:
    found = _END_OF_HEADERS.search(section, 0, MAX_HEADER + 4)
    if found is None:
        raise MessageError("a part has no end of its headers")
    return section[: found.start()], section[found.end() :]
