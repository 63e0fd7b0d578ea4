"""``/.well-known/core``: what is served, in link-format (RFC 6690, RFC 9148 section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from est_protocol.labels import path_segment
from est_protocol.media_types import ContentFormat
from est_protocol.operations import Operation

#: Content-formats that each operation can answer with, the default first.
CONTENT_FORMATS = {
    Operation.CACERTS: (ContentFormat.CERTS_ONLY, ContentFormat.PKIX_CERT),
    Operation.SIMPLEENROLL: (ContentFormat.CERTS_ONLY, ContentFormat.PKIX_CERT),
    Operation.SIMPLEREENROLL: (ContentFormat.CERTS_ONLY, ContentFormat.PKIX_CERT),
    Operation.CSRATTRS: (ContentFormat.CSR_ATTRIBUTES,),
    Operation.SERVERKEYGEN: (ContentFormat.MULTIPART_CORE,),
}


@dataclass(frozen=True, slots=True)
class Link:
    """One link: where, and its attributes ``rt`` and ``ct`` with their values."""

    href: str
    attributes: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        text = f"<{self.href}>"
        for name, values in self.attributes.items():
            # RFC 9148 section 4.1 prints a single content-format bare and a list quoted.
            bare = name == "ct" and len(values) == 1
            joined = " ".join(values)
            text += f";{name}={joined}" if bare else f';{name}="{joined}"'
        return text

    def matches(self, name: str, wanted: str) -> bool:
        """Whether the attribute ``name`` has the value ``wanted``, or starts with it where
        ``wanted`` ends in an asterisk (RFC 6690 section 4.1)."""
        values = (self.href,) if name == "href" else self.attributes.get(name, ())
        if wanted.endswith("*"):
            return any(value.startswith(wanted[:-1]) for value in values)
        return wanted in values


def links(
    root: Sequence[str], operations: Mapping[str | None, Iterable[Operation]]
) -> tuple[Link, ...]:
    """A link for each name of each operation, below ``root``.

    :param operations: what is served, by label.
    """
    return tuple(
        Link(
            "/" + "/".join(path_segment(segment) for segment in path),
            {
                "rt": (f"ace.est.{name}",),
                "ct": tuple(str(number) for number in CONTENT_FORMATS[operation]),
            },
        )
        for label, served in operations.items()
        for operation in served
        for name in operation.short_names
        for path in [(*root, *(() if label is None else (label,)), name)]
    )


def link_format(found: Iterable[Link], queries: Iterable[str]) -> bytes:
    """The links that every one of ``queries`` (``name=value``) matches, as link-format."""
    kept = list(found)
    for query in queries:
        name, _, wanted = query.partition("=")
        kept = [link for link in kept if link.matches(name, wanted.strip('"'))]
    return ",".join(map(str, kept)).encode("utf-8")
