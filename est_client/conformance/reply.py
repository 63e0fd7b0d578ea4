"""An answer of the server, the same for both transports."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from multidict import CIMultiDict

from est_client.conformance.rows import Failed
from est_client.http_answers import printable
from est_protocol import base64_body, certs_only
from est_protocol.keys import SigningKey, spki_der
from est_protocol.media_types import CERTS_ONLY, ContentFormat, MediaType
from est_protocol.messages import Transport

#: How much of an answer's text stands in the evidence.
_EVIDENCE = 100


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    :param transport: how it came.
    :param code: status code or CoAP code: ``403``, or ``4.03`` as 403 too.
    :param status: the code as it is written.
    :param body: the octets of the body as they came.
    :param headers: the HTTP header fields.
    :param content_format: CoAP's Content-Format.
    """

    transport: Transport
    code: int
    status: str
    body: bytes
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    content_format: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether the request was granted; "not yet" is not."""
        return 200 <= self.code < 300 and self.code != 202

    @property
    def refused(self) -> bool:
        """Whether it was refused for a reason that lies in the request."""
        return 400 <= self.code < 500

    @property
    def text(self) -> str:
        """The words of a refusal."""
        return printable(self.body)

    @property
    def media_type(self) -> MediaType:
        """The Content-Type."""
        return MediaType.parse(self.headers.get("Content-Type", ""))

    def __str__(self) -> str:
        words = "" if self.accepted else self.text[:_EVIDENCE]
        return f"{self.status} {words!r}" if words else self.status

    def der(self) -> bytes:
        """The DER in the body.

        :raises MessageError: the body of an HTTP answer is not base64.
        """
        return base64_body.decode(self.body) if self.transport is Transport.HTTPS else self.body

    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The certificates of a certs-only answer.

        :raises Failed: the request was not granted, or the answer is of another type.
        :raises MessageError: it does not decode.
        """
        if not self.accepted:
            raise Failed(f"the answer is {self}")
        if self.transport is Transport.COAPS:
            if self.content_format != ContentFormat.CERTS_ONLY:
                raise Failed(f"the answer has content-format {self.content_format}, not 281")
        elif self.media_type.name != CERTS_ONLY.name:
            raise Failed(f"the answer has the type {self.media_type.name!r}, not {CERTS_ONLY.name}")
        return certs_only.decode(self.der())

    def certificate_of(self, key: SigningKey) -> x509.Certificate | None:
        """The certificate of ``key`` in a certs-only answer, wherever it stands there.

        :raises Failed: as :meth:`certificates`.
        :raises MessageError: it does not decode.
        """
        wanted = spki_der(key.public_key())
        found = (c for c in self.certificates() if spki_der(c.public_key()) == wanted)
        return next(found, None)
