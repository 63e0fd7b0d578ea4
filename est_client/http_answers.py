"""What the header and the error text of an HTTP answer say; pure functions over hostile input."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime
from http import HTTPStatus

#: RFC 7030 section 4.2.3 requires Retry-After with a 202; where a server forgets it, a minute.
DEFAULT_RETRY_AFTER = 60
#: What is longer is taken for this; how much of it is heeded is the retry policy's to say.
LONGEST_RETRY_AFTER = 30 * 86400
#: An explanation is cut off after this many characters.
LONGEST_EXPLANATION = 300


def parse_retry_after(header: str | None, *, now: datetime) -> int | None:
    """Seconds to wait by a Retry-After header (RFC 9110 section 10.2.3).

    :param header: an integer of seconds, or an HTTP-date.
    :param now: the time of the answer, timezone-aware.
    :return: 0 to :data:`LONGEST_RETRY_AFTER`; ``None`` without a header that makes sense.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return LONGEST_RETRY_AFTER if len(text) > 9 else min(int(text), LONGEST_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, min(int((moment - now).total_seconds()), LONGEST_RETRY_AFTER))


def printable(text: bytes | str) -> str:
    """Text of the peer for a person to read: one line of printable characters, not too long."""
    octets = text if isinstance(text, bytes) else text.encode("utf-8", errors="replace")
    text = octets.decode("utf-8", errors="replace")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST_EXPLANATION else line[: LONGEST_EXPLANATION - 1] + "\u2026"


def reason_phrase(status: int) -> str:
    """The words of RFC 9110 for ``status``; empty if it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
