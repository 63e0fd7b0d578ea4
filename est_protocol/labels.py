"""Labels: the path segment that selects a CA and a profile (RFC 7030 section 3.2.2).

A label is the text of one path segment, which may be anything that a URL can say::

    segment       = *pchar
    pchar         = unreserved / pct-encoded / sub-delims / ":" / "@"     ; RFC 3986 section 3.3

Two spellings are one label if they are the same text once percent-encoding is undone. On CoAPS
the text travels as it is, in Uri-Path (RFC 7252 section 6.4).
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from est_protocol.errors import ConfigurationError
from est_protocol.operations import RESERVED_SEGMENTS

#: Octets of UTF-8 that fit into one Uri-Path (RFC 7252 section 5.10).
LONGEST_LABEL = 255

#: Segments that a path does not keep (RFC 3986 section 5.2.4).
DOT_SEGMENTS = frozenset({"", ".", ".."})

#: Beside letters, digits and ``-._~``, what stands for itself in a path segment.
_SEGMENT_SAFE = "!$&'()*+,;=:@"

_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_label(label: str) -> None:
    """Check that requests can name ``label``, percent-encoding undone.

    :raises ConfigurationError: it is empty, a dot segment, longer than :data:`LONGEST_LABEL`
        octets, has control characters or half a surrogate pair, or is named like an operation.
    """
    if label in DOT_SEGMENTS:
        raise ConfigurationError(f"{label!r} cannot be a label: no path has it as a segment")
    if label in RESERVED_SEGMENTS:
        raise ConfigurationError(
            f"{label!r} cannot be a label: a label must not be named like an operation "
            "(RFC 7030 section 3.2.2)"
        )
    if _CONTROLS.search(label):
        raise ConfigurationError(f"{label[:40]!r} cannot be a label: it has control characters")
    try:
        octets = len(label.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{label[:40]!r} cannot be a label: it is not Unicode text"
        ) from None
    if octets > LONGEST_LABEL:
        raise ConfigurationError(
            f"{label[:40]!r} cannot be a label: it is longer than {LONGEST_LABEL} octets"
        )


def read_label(written: str) -> str:
    """The label that stands in a URL, a file or an option, percent-encoded or not.

    A percent sign of the label's own is written ``%25``, a slash ``%2F``.

    :raises ConfigurationError: it is not percent-encoded text, or cannot be a label.
    """
    if "/" in written:
        raise ConfigurationError(
            f"{written!r} cannot be a label: it is two path segments; a slash of its own is %2F"
        )
    if _STRAY_PERCENT.search(written):
        raise ConfigurationError(
            f"{written!r} cannot be a label: after % come two hexadecimal digits; % itself is %25"
        )
    try:
        label = unquote(written, errors="strict")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{written!r} cannot be a label: it is not UTF-8") from None
    check_label(label)
    return label


def path_segment(text: str) -> str:
    """``text`` as one segment of a path: percent-encoded, and no more than it has to be."""
    return quote(text, safe=_SEGMENT_SAFE)
