"""Media types of EST and the CoAP content-formats that stand for them (RFC 9148 section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type with its parameters.

    :param name: type and subtype, lower case.
    :param parameters: parameter names in lower case to their values.
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        # libest's client insists on the space after the semicolon.
        return "; ".join([self.name, *(f"{k}={v}" for k, v in self.parameters.items())])

    @classmethod
    def parse(cls, text: str) -> MediaType:
        """Parse a Content-Type header; type and parameter names without regard to case.

        Never fails: text that is no media type becomes a name that matches nothing of EST's.
        """
        name, *rest = text.split(";")
        parameters = {}
        for part in rest:
            key, separator, value = part.partition("=")
            if separator:
                parameters[key.strip().lower()] = value.strip().strip('"')
        return cls(name.strip().lower(), parameters)


PKCS10 = MediaType("application/pkcs10")
CERTS_ONLY = MediaType("application/pkcs7-mime", MappingProxyType({"smime-type": "certs-only"}))
SERVER_GENERATED_KEY = MediaType(
    "application/pkcs7-mime", MappingProxyType({"smime-type": "server-generated-key"})
)
PKIX_CERT = MediaType("application/pkix-cert")
PKCS8 = MediaType("application/pkcs8")
CSR_ATTRIBUTES = MediaType("application/csrattrs")
MULTIPART_MIXED = MediaType("multipart/mixed")
MULTIPART_CORE = MediaType("application/multipart-core")
LINK_FORMAT = MediaType("application/link-format")
PLAIN_TEXT = MediaType("text/plain", MappingProxyType({"charset": "utf-8"}))


class ContentFormat:
    """CoAP Content-Format numbers (RFC 9148 section 4.3, IANA CoRE parameters)."""

    LINK_FORMAT = 40
    MULTIPART_CORE = 62
    SERVER_GENERATED_KEY = 280
    CERTS_ONLY = 281
    PKCS8 = 284
    CSR_ATTRIBUTES = 285
    PKCS10 = 286
    PKIX_CERT = 287
