"""Where an operation is found on an HTTPS server."""

from __future__ import annotations

from est_protocol.errors import ConfigurationError
from est_protocol.labels import DOT_SEGMENTS, path_segment
from est_protocol.operations import WELL_KNOWN_PATH, Operation


def http_path(operation: Operation, label: str | None) -> str:
    """The path of ``operation`` under ``label``, percent-encoded (RFC 7030 section 3.2.2).

    :raises ConfigurationError: the label cannot stand in a path.
    """
    if label is None:
        return f"{WELL_KNOWN_PATH}/{operation.path_segment}"
    if label in DOT_SEGMENTS:
        raise ConfigurationError(f"{label!r} cannot be a label")
    return f"{WELL_KNOWN_PATH}/{path_segment(label)}/{operation.path_segment}"
