"""Where a CoAPS server says that its EST resources are (RFC 9148 section 4.1, RFC 6690)::

    REQ: GET coaps://est.example/.well-known/core?rt=ace.est*
    RES: </est/crts>;rt="ace.est.crts";ct="281 287",</est/sen>;rt="ace.est.sen",...

The answer comes from the server itself, over its verified DTLS session. It may choose the paths,
and nothing else: links to other servers are not followed.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from est_client.http_answers import printable
from est_client.redirects import Origin
from est_protocol.errors import MessageError
from est_protocol.operations import Operation

_log = logging.getLogger(__name__)

WELL_KNOWN_CORE = (".well-known", "core")
EST_RESOURCES = "rt=ace.est*"

#: Links that are looked at in one answer, and segments of a path, at most.
_MOST_LINKS = 256
_MOST_SEGMENTS = 8
#: Octets of a Uri-Path option at most (RFC 7252 section 5.10).
_LONGEST_SEGMENT = 255

_PREFIX = "ace.est."
_NAMES = frozenset(name for operation in Operation for name in operation.short_names)
#: What every EST-coaps server links to (RFC 9148 section 4.1).
_REQUIRED = frozenset({"crts", "sen", "sren"})
_COAPS_PORT = 5684

_LINK = re.compile(r"\s*<([^<>]*)>")
_ATTRIBUTE = re.compile(
    r'\s*;\s*([A-Za-z0-9!#$&+\-.^_`|~]+\*?)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s",;]*))?'
)
_END = re.compile(r"\s*(,|$)")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EstLink:
    """One link to an EST resource of the server.

    :param name: the short name of the operation, whatever the path says.
    :param path: the segments of its path.
    """

    name: str
    path: Path


def read_links(payload: bytes, server: Origin) -> tuple[EstLink, ...]:
    """The links to EST resources on ``server`` in an answer in link-format.

    :param server: host and port that were asked.
    :raises MessageError: it is not link-format, or has too many links.
    """
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MessageError("the links of the server are not UTF-8") from error
    found = []
    for number, (target, resource_types) in enumerate(_links(text)):
        if number == _MOST_LINKS:
            raise MessageError(f"the server has more than {_MOST_LINKS} links")
        names = [t.removeprefix(_PREFIX) for t in resource_types if t.startswith(_PREFIX)]
        known = [name for name in names if name in _NAMES]
        path = _path(target, server) if known else None
        if path is not None:
            found += [EstLink(name, path) for name in known]
    return tuple(found)


def paths_under(links: Iterable[EstLink], label: str | None) -> dict[str, Path]:
    """The path of each operation, by its short name, under a label.

    The resources of one label stand in one place of their own. The default is the place with the
    shortest path; a label is the last segment of its place.

    :param label: ``None`` for the default.
    :raises MessageError: crts, sen and sren are not all there, or more than one place would do.
    """
    links = tuple(links)
    alone = {link.name: link.path for link in links}
    if label is None and len(alone) == len(links) and alone.keys() >= _REQUIRED:
        # Wherever they are, there is nothing to choose from.
        return alone
    places: dict[Path, dict[str, Path]] = defaultdict(dict)
    for link in links:
        places[link.path[:-1]][link.name] = link.path
    fitting = [
        place
        for place, names in places.items()
        if names.keys() >= _REQUIRED and (label is None or place[-1:] == (label,))
    ]
    shortest = min(map(len, fitting), default=0)
    chosen = [place for place in fitting if len(place) == shortest]
    of_label = "" if label is None else f" of the label {printable(label)!r}"
    if not chosen:
        raise MessageError(f"the server does not say where the EST resources{of_label} are")
    if len(chosen) > 1:
        raise MessageError(f"the server says of more than one place that EST{of_label} is there")
    return places[chosen[0]]


def _links(text: str) -> Iterator[tuple[str, list[str]]]:
    """The target of each link with its resource types."""
    position = 0
    while position < len(text):
        link = _LINK.match(text, position)
        if link is None:
            raise _malformed(text, position)
        position = link.end()
        resource_types: list[str] = []
        while attribute := _ATTRIBUTE.match(text, position):
            position = attribute.end()
            if attribute[1].lower() == "rt" and attribute[2]:
                resource_types += attribute[2].strip('"').split()
        end = _END.match(text, position)
        if end is None:
            raise _malformed(text, position)
        position = end.end()
        yield link[1], resource_types


def _malformed(text: str, position: int) -> MessageError:
    return MessageError(f"no link-format: {printable(text[position : position + 40])!r}")


def _path(target: str, server: Origin) -> Path | None:
    """The path of a link, if it leads to a resource of ``server``."""
    path = _path_on(target, server)
    if path is None:
        _log.warning("not followed: the link %s is not to a path on the server", printable(target))
    return path


def _path_on(target: str, server: Origin) -> Path | None:
    try:
        parts = urlsplit(target)
        origin = Origin.of(parts.hostname or "", parts.port or _COAPS_PORT)
        segments = tuple(unquote(text, errors="strict") for text in parts.path.split("/"))
    except ValueError:
        return None
    if parts.scheme or parts.netloc:
        if (parts.scheme, origin) != ("coaps", server) or parts.username is not None:
            return None
    if parts.query or parts.fragment or segments[0]:
        return None
    if not 1 <= len(segments) - 1 <= _MOST_SEGMENTS or not all(map(_is_segment, segments[1:])):
        return None
    return segments[1:]


def _is_segment(segment: str) -> bool:
    return segment not in ("", ".", "..") and len(segment.encode()) <= _LONGEST_SEGMENT
