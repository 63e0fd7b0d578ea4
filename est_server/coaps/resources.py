"""What is behind the paths: each resource checks a request and makes the body of its answer."""

from __future__ import annotations

from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol import certs_only, key_delivery
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.media_types import ContentFormat
from est_protocol.messages import (
    CsrAttributesResponse,
    EstRequest,
    GeneratedKeyResponse,
    Pending,
    Transport,
)
from est_protocol.operations import SERVERKEYGEN_BARE, Operation
from est_server.coaps import discovery
from est_server.coaps.blockwise import Body
from est_server.coaps.messages import CHANGED, CONTENT, GET, POST, Request
from est_server.interfaces import Responder

_METHODS = {"GET": GET, "POST": POST}


class EstService(Responder, Protocol):
    """What the site needs of :class:`est_server.service.EnrollmentService`."""

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The labels that are served."""
        ...

    def operations(self, label: str | None) -> tuple[Operation, ...]:
        """The operations that are served under a label."""
        ...


class AnsweredByService(Exception):
    """The service refused, and has noted it; or it said "not yet".

    :param refused: what to tell the client.
    """

    def __init__(self, refused: RequestRefused) -> None:
        super().__init__(str(refused))
        self.refused = refused


class Resource(Protocol):
    """Something that a path leads to."""

    @property
    def operation(self) -> Operation | None:
        """The EST operation, if it is one."""
        ...

    @property
    def label(self) -> str | None:
        """The label it stands under."""
        ...

    def check(self, request: Request) -> None:
        """Check what can be checked before the request's body is there.

        :raises RequestRefused: method, Content-Format or Accept are not for this resource.
        """
        ...

    async def answer(self, request: Request, payload: bytes) -> Body:
        """Answer the whole request.

        :raises RequestRefused: found here, not noted yet.
        :raises AnsweredByService: noted already.
        """
        ...


class Discovery:
    """``/.well-known/core`` (RFC 9148 section 4.1); anybody may ask."""

    operation = None
    label = None

    def __init__(self, links: tuple[discovery.Link, ...]) -> None:
        self._links = links

    def check(self, request: Request) -> None:
        """See :class:`Resource`."""
        _require_method(request, "GET")
        _require_accept(request, ContentFormat.LINK_FORMAT)

    async def answer(self, request: Request, payload: bytes) -> Body:
        """See :class:`Resource`."""
        found = discovery.link_format(self._links, request.query)
        return Body(CONTENT, found, ContentFormat.LINK_FORMAT)


class EstResource:
    """One operation under one label.

    :param name: the path segment, where the operation has several.
    """

    def __init__(
        self, service: EstService, operation: Operation, label: str | None, *, name: str
    ) -> None:
        self._service = service
        self._name = name
        self.operation = operation
        self.label = label
        self._latest: tuple[tuple[x509.Certificate, ...], Body] | None = None

    def check(self, request: Request) -> None:
        """See :class:`Resource`; RFC 9148 section 4.3 for the content-formats."""
        _require_method(request, self.operation.method)
        wanted = ContentFormat.PKCS10 if self.operation.enrolls else None
        if request.content_format != wanted:
            raise RequestRefused(
                RefusalReason.UNSUPPORTED_MEDIA_TYPE,
                f"{self._name} takes "
                + (f"content-format {wanted} (application/pkcs10)" if wanted else "no body"),
            )
        _require_accept(request, *discovery.CONTENT_FORMATS[self.operation])

    async def answer(self, request: Request, payload: bytes) -> Body:
        """See :class:`Resource`; RFC 9148 section 4.5 for the codes."""
        est = EstRequest(self.operation, Transport.COAPS, self.label, payload)
        try:
            response = await self._service.respond(est, request.session.peer)
        except RequestRefused as refused:
            raise AnsweredByService(refused) from refused
        if isinstance(response, Pending):
            raise AnsweredByService(_not_yet(response))
        if isinstance(response, CsrAttributesResponse):
            return _csr_attributes(response)
        if isinstance(response, GeneratedKeyResponse):
            bare = self._name == SERVERKEYGEN_BARE
            encoded = key_delivery.to_multipart_core(response, bare_certificate=bare)
            return Body(CHANGED, encoded, ContentFormat.MULTIPART_CORE)
        code = CHANGED if self.operation.enrolls else CONTENT
        if request.accept != ContentFormat.PKIX_CERT:
            return self._certs_only(code, response.certificates)
        if len(response.certificates) != 1:
            raise RequestRefused(
                RefusalReason.NOT_ACCEPTABLE,
                "the answer is more than one certificate, which content-format "
                f"{ContentFormat.PKIX_CERT} cannot hold",
            )
        der = response.certificates[0].public_bytes(Encoding.DER)
        return Body(code, der, ContentFormat.PKIX_CERT)

    def _certs_only(self, code: int, certificates: tuple[x509.Certificate, ...]) -> Body:
        # A CA's certificates are asked for by every client; encoding two and hashing them for the
        # ETag took 25 us.
        if self._latest is not None and self._latest[0] == certificates:
            return self._latest[1]
        body = Body(code, certs_only.encode(certificates), ContentFormat.CERTS_ONLY)
        if not self.operation.enrolls:
            self._latest = certificates, body
        return body


def _csr_attributes(response: CsrAttributesResponse) -> Body:
    if response.der is None:
        # RFC 9148 section 4.5: what is 204 on HTTPS is 4.04 here.
        raise AnsweredByService(
            RequestRefused(RefusalReason.UNKNOWN_OPERATION, "no CSR attributes are asked for here")
        )
    return Body(CONTENT, response.der, ContentFormat.CSR_ATTRIBUTES)


def _require_method(request: Request, method: str) -> None:
    if request.code != _METHODS[method]:
        raise RequestRefused(RefusalReason.METHOD_NOT_ALLOWED, f"this resource takes {method} only")


def _require_accept(request: Request, *formats: int) -> None:
    # Without Accept, RFC 9148 section 4.3 lets the server choose.
    if request.accept is not None and request.accept not in formats:
        offered = " or ".join(map(str, formats))
        raise RequestRefused(
            RefusalReason.NOT_ACCEPTABLE, f"the answer can be had as content-format {offered}"
        )


def _not_yet(pending: Pending) -> RequestRefused:
    """RFC 9148 section 4.7: "not yet" is 5.03 with Max-Age."""
    return RequestRefused(
        RefusalReason.TRY_LATER,
        "the request is pending; repeat it later",
        retry_after=pending.retry_after,
    )
