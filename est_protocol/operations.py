"""The EST operations and how each is spelt on HTTPS and on CoAPS.

RFC 7030 section 3.2.2 and RFC 9148 section 4.1, table 1.
"""

from __future__ import annotations

from enum import Enum

from est_protocol.media_types import (
    CERTS_ONLY,
    CSR_ATTRIBUTES,
    MULTIPART_MIXED,
    PKCS10,
    MediaType,
)

#: Where EST is found (RFC 7030 section 3.2.2, RFC 9148 section 4.1).
WELL_KNOWN_PATH = "/.well-known/est"


class Operation(Enum):
    """One EST operation.

    The value is the HTTPS path segment; ``short_name`` the CoAPS one.
    """

    CACERTS = "cacerts"
    SIMPLEENROLL = "simpleenroll"
    SIMPLEREENROLL = "simplereenroll"
    CSRATTRS = "csrattrs"
    SERVERKEYGEN = "serverkeygen"
    FULLCMC = "fullcmc"

    @property
    def path_segment(self) -> str:
        """The path segment on HTTPS (RFC 7030 section 3.2.2)."""
        return self.value

    @property
    def short_name(self) -> str | None:
        """The path segment on CoAPS (RFC 9148 table 1), or ``None`` where there is none."""
        return _SHORT_NAMES.get(self)

    @property
    def short_names(self) -> tuple[str, ...]:
        """All path segments on CoAPS; server-side key generation has two."""
        if self is Operation.SERVERKEYGEN:
            return (_SHORT_NAMES[self], SERVERKEYGEN_BARE)
        return () if self.short_name is None else (self.short_name,)

    @property
    def method(self) -> str:
        """``GET`` or ``POST``, on both transports."""
        return "GET" if self in (Operation.CACERTS, Operation.CSRATTRS) else "POST"

    @property
    def enrolls(self) -> bool:
        """Whether the operation asks for a certificate."""
        return self.method == "POST"

    @property
    def request_type(self) -> MediaType | None:
        """The media type of the request body, or ``None`` if there is no body."""
        return PKCS10 if self.enrolls and self is not Operation.FULLCMC else None

    @property
    def response_type(self) -> MediaType:
        """The media type of a successful answer on HTTPS."""
        if self is Operation.CSRATTRS:
            return CSR_ATTRIBUTES
        return MULTIPART_MIXED if self is Operation.SERVERKEYGEN else CERTS_ONLY


_SHORT_NAMES = {
    Operation.CACERTS: "crts",
    Operation.SIMPLEENROLL: "sen",
    Operation.SIMPLEREENROLL: "sren",
    Operation.CSRATTRS: "att",
    Operation.SERVERKEYGEN: "skg",
}

#: The other path segment of SERVERKEYGEN on CoAPS: the certificate comes bare, as /skc has it,
#: rather than in a certs-only message (RFC 9148 section 4.1).
SERVERKEYGEN_BARE = "skc"

#: Path segments that a label must not be (RFC 7030 section 3.2.2), on either transport.
RESERVED_SEGMENTS = frozenset(
    {operation.path_segment for operation in Operation}
    | {*_SHORT_NAMES.values(), SERVERKEYGEN_BARE}
)
