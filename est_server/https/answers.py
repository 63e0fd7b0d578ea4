"""HTTP answers as octets (RFC 9112 sections 4 to 6)."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from est_server.https.translation import HttpAnswer

#: What answers octets that are no HTTP; of which version they are nobody knows.
MALFORMED = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 16\r\nConnection: close\r\n\r\nthis is no HTTP\n"
)
#: RFC 9110 section 10.1.1.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def encode(answer: HttpAnswer, *, to_head: bool, close: bool) -> bytes:
    """The octets of ``answer``.

    :param to_head: whether it answers HEAD, which gets no body.
    :param close: whether the connection ends with it.
    :raises ValueError: a header field has a line end in it, and would be more than one.
    """
    body = answer.body or b""
    lines = [_status_line(answer.status)]
    for name, value in answer.headers:
        if "\r" in value or "\n" in value:
            raise ValueError(f"a line end in the header field {name}")
        lines.append(f"{name}: {value}")
    if answer.status != HTTPStatus.NO_CONTENT:
        # RFC 9110 section 8.6: there is none with 204.
        lines.append(f"Content-Length: {len(body)}")
    lines.append(_date(int(time.time())))
    if close:
        lines.append("Connection: close")
    lines.append("\r\n")
    head = "\r\n".join(lines).encode()
    return head if to_head else head + body


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}"


@lru_cache(maxsize=1)
def _date(now: int) -> str:
    """RFC 9110 section 6.6.1; the same for all answers of one second."""
    return f"Date: {formatdate(now, usegmt=True)}"
