"""Requests and answers of EST, the same for both transports.

HTTPS and CoAPS translate octets to these values and back, and decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cryptography import x509

from est_protocol.http_authentication import HttpCredentials
from est_protocol.operations import Operation


class Transport(StrEnum):
    """The transport over which a request came."""

    HTTPS = "https"
    COAPS = "coaps"


@dataclass(frozen=True, slots=True)
class EstRequest:
    """One EST request.

    :param operation: what is asked for.
    :param transport: how it came; some rules differ (RFC 9148 section 4: every function on CoAPS
        needs an authenticated client).
    :param label: the path segment that selects a CA and a profile (RFC 7030 section 3.2.2), or
        ``None`` for the default.
    :param body: the DER octets of the body, transfer encoding removed; empty for GET.
    :param http_credentials: what HTTP authentication carries; never there on CoAPS, which has
        none. On a server a Digest's ``uri`` is that of this very request.
    :param path: on a client, the path and query that a redirect has moved it to; else ``None``.
    """

    operation: Operation
    transport: Transport
    label: str | None = None
    body: bytes = b""
    http_credentials: HttpCredentials | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class CertificatesResponse:
    """Success: the CA certificates, or the one certificate that was issued."""

    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class GeneratedKeyResponse:
    """Success of /serverkeygen: a private key that the server made, and its certificate.

    :param certificates: the one certificate that was issued; some servers send its chain along.
    :param key: PKCS#8 in the clear, or a CMS message; never in the ``repr``, so never in a log.
    :param protected: whether ``key`` is CMS, encrypted for the client (RFC 7030 section 4.4.2).
    """

    certificates: tuple[x509.Certificate, ...]
    key: bytes = field(repr=False)
    protected: bool


@dataclass(frozen=True, slots=True)
class CsrAttributesResponse:
    """What the server asks for in a CSR (RFC 8951 section 4).

    :param der: the DER octets of a CsrAttrs message, or ``None`` if it asks for nothing: 204 on
        HTTPS, 4.04 on CoAPS.
    """

    der: bytes | None


@dataclass(frozen=True, slots=True)
class Pending:
    """Not yet: 202 with Retry-After, or 5.03 with Max-Age.

    :param retry_after: seconds after which the client should ask again.
    """

    retry_after: int


EstResponse = CertificatesResponse | CsrAttributesResponse | GeneratedKeyResponse | Pending
