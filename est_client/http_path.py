"""Where an operation is found on an HTTPS server."""

from __future__ import annotations

from urllib.parse import quote

from est_protocol.errors import ConfigurationError
from est_protocol.operations import WELL_KNOWN_PATH, Operation

#: Beside letters, digits and ``_.-~``, what may stand in a path segment (RFC 3986 section 3.3).
_SEGMENT_CHARACTERS = "!$&'()*+,;=:@"


def http_path(operation: Operation, label: str | None) -> str:
    """The path of ``operation`` under ``label``, percent-encoded (RFC 7030 section 3.2.2).

    :raises ConfigurationError: the label cannot stand in a path.
    """
    if label is None:
        return f"{WELL_KNOWN_PATH}/{operation.path_segment}"
    if label in ("", ".", ".."):
        raise ConfigurationError(f"{label!r} cannot be a label")
    return f"{WELL_KNOWN_PATH}/{quote(label, safe=_SEGMENT_CHARACTERS)}/{operation.path_segment}"
