"""EST in terms of HTTP, whichever server brings the requests: HTTP in, EstRequest out;
EstResponse in, HTTP out.

Translation only; every decision is the service's. RFC 7030 sections 3.2 and 4, RFC 8951. What
belongs to one kind of server is in :mod:`.http1` (our own), :mod:`.application` (aiohttp) and
:mod:`.asgi`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NoReturn

from est_protocol import base64_body, certs_only, key_delivery, pem_request
from est_protocol.errors import MessageError, RefusalReason, RequestRefused
from est_protocol.http_authentication import (
    DigestCredentials,
    HttpCredentials,
    parse_credentials,
)
from est_protocol.media_types import PLAIN_TEXT, MediaType
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    GeneratedKeyResponse,
    Pending,
    Transport,
)
from est_protocol.operations import WELL_KNOWN_PATH, Operation
from est_server.https.limits import DEFAULT_HTTPS_LIMITS, HttpsLimits
from est_server.https.peers import NO_PROXIES, Connection, Headers, ProxyTrust, find_peer
from est_server.interfaces import HttpResponder
from est_server.legacy_forms import LegacyForms

#: All header fields that strongSwan's ``pki`` sends.
_SAID_BY_STRONGSWAN = frozenset({"host", "authorization", "content-type", "content-length"})

#: Refusals after which the rest of the body would be taken for the next request.
_BODY_LEFT_OVER = (RefusalReason.BODY_TOO_LARGE, RefusalReason.REQUEST_TIMEOUT)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request for EST, its body yet to come.

    :param method: as it was sent.
    :param target: path and query as they were sent, for Digest.
    :param segments: those of the path below where EST is, with the percent-encoding undone.
    :param headers: all values of each field, by names in lower case.
    :param connection: what it came over.
    :param read_body: gives the body piece by piece; raises
        :class:`~est_protocol.errors.MessageError` if it breaks off.
    :param arrived: the body, if all of it is here already and nobody has to wait for it.
    """

    method: str
    target: str
    segments: tuple[str, ...]
    headers: Headers
    connection: Connection
    read_body: Callable[[], AsyncIterator[bytes]]
    arrived: bytes | None = None

    def header(self, name: str) -> str:
        """The first value of a field, empty if it is missing."""
        return next(iter(self.headers.get(name, ())), "")


@dataclass(slots=True)
class HttpAnswer:
    """One HTTP answer.

    :param headers: pairs, since WWW-Authenticate may be there more than once.
    :param close: whether the connection has to end with it.
    """

    status: int
    body: bytes | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    close: bool = False


class HttpTranslation:
    """Answers HTTP requests by a service's answers.

    :param service: answers the requests.
    :param limits: ``body_size``, ``body_timeout`` and ``retry_after`` apply.
    :param proxies: whose word is taken for who the client is.
    """

    def __init__(
        self,
        service: HttpResponder,
        limits: HttpsLimits = DEFAULT_HTTPS_LIMITS,
        proxies: ProxyTrust = NO_PROXIES,
    ) -> None:
        self._service = service
        self._limits = limits
        self._proxies = proxies

    async def answer(self, http: HttpRequest) -> HttpAnswer:
        """Answer one HTTP request."""
        operation, label = _target(http.segments)
        found = find_peer(http.connection, http.headers, self._proxies)
        try:
            if found.refused is not None:
                raise found.refused
            request = await self._decode(http, operation, label, in_sight=found.in_sight)
        except RequestRefused as refused:
            await self._service.record_refusal(
                refused,
                operation=operation,
                label=label,
                transport=Transport.HTTPS,
                peer=found.peer,
            )
            return self._refusal(refused, operation, label)
        try:
            response = await self._service.respond(request, found.peer)
        except RequestRefused as refused:
            return self._refusal(refused, operation, label)
        forms = self._service.legacy_forms(label)
        answer = _encode(request.operation, response, forms, wrap=_reads_lines(http.headers))
        if _is_base64(response) and forms.content_transfer_encoding:
            answer.headers.append(("Content-Transfer-Encoding", "base64"))
        return answer

    async def _decode(
        self, http: HttpRequest, operation: Operation | None, label: str | None, *, in_sight: bool
    ) -> EstRequest:
        """The request that ``http`` stands for.

        :param in_sight: whether it is known who the client is on its TLS channel.
        :raises RequestRefused: it stands for none.
        """
        if operation is None:
            _refuse(RefusalReason.UNKNOWN_OPERATION, "there is no such EST operation")
        if http.method != operation.method:
            _refuse(
                RefusalReason.METHOD_NOT_ALLOWED,
                f"/{operation.path_segment} is asked for with {operation.method}",
            )
        if not in_sight:
            _require_no_channel(http.connection, operation)
        if not operation.enrolls:
            return EstRequest(operation, Transport.HTTPS, label)
        _require_media_type(http, operation)
        body = await self._read_body(http)
        credentials = _http_credentials(http)
        try:
            # An empty body is the service's to answer: some clients send one in order to be asked
            # for HTTP credentials.
            der = self._decode_body(body, label) if body else b""
        except MessageError as error:
            raise RequestRefused(RefusalReason.MALFORMED_BODY, str(error)) from error
        return EstRequest(operation, Transport.HTTPS, label, der, credentials)

    def _decode_body(self, body: bytes, label: str | None) -> bytes:
        if self._service.legacy_forms(label).pem_requests and pem_request.is_pem(body):
            return pem_request.remove_armour(body)
        return base64_body.decode(body)

    async def _read_body(self, http: HttpRequest) -> bytes:
        self._check_size(_announced(http))
        if http.arrived is not None:
            self._check_size(len(http.arrived))
            return http.arrived
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                async for chunk in http.read_body():
                    body += chunk
                    self._check_size(len(body))
        except TimeoutError as error:
            raise RequestRefused(
                RefusalReason.REQUEST_TIMEOUT,
                f"the body did not arrive within {self._limits.body_timeout:g} s",
            ) from error
        except MessageError as error:
            raise RequestRefused(RefusalReason.MALFORMED_REQUEST, str(error)) from error
        return bytes(body)

    def _check_size(self, octets: int) -> None:
        limit = self._limits.body_size
        if octets > limit:
            _refuse(RefusalReason.BODY_TOO_LARGE, f"the body is larger than {limit} octets")

    def _refusal(
        self, refused: RequestRefused, operation: Operation | None, label: str | None
    ) -> HttpAnswer:
        status = refused.status.http
        headers: list[tuple[str, str]] = []
        if operation is not None and refused.reason is RefusalReason.METHOD_NOT_ALLOWED:
            headers.append(("Allow", operation.method))
        headers += [("WWW-Authenticate", challenge) for challenge in refused.challenges]
        if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            headers.append(("Retry-After", str(refused.retry_after or self._limits.retry_after)))
        # A sentence may repeat a label, and a path may hold octets that are no UTF-8.
        body: bytes | None = f"{refused.sentence}\n".encode(errors="replace")
        if status == HTTPStatus.UNAUTHORIZED and self._service.legacy_forms(label).empty_bodies:
            body = None
        else:
            headers.insert(0, ("Content-Type", str(PLAIN_TEXT)))
        return HttpAnswer(status, body, headers, close=refused.reason in _BODY_LEFT_OVER)


def segments_below(path: str) -> tuple[str, ...]:
    """The segments of a path below ``/.well-known/est``; none if it is elsewhere."""
    prefix = f"{WELL_KNOWN_PATH}/"
    if not path.startswith(prefix):
        return ()
    segments = path.removeprefix(prefix).split("/")
    return tuple(segments) if all(segments) else ()


def _target(segments: tuple[str, ...]) -> tuple[Operation | None, str | None]:
    """The operation and the label in the path: ``OPERATION`` or ``LABEL/OPERATION``."""
    if len(segments) not in (1, 2):
        return None, None
    try:
        operation = Operation(segments[-1])
    except ValueError:
        operation = None
    return operation, segments[0] if len(segments) == 2 else None


def _announced(http: HttpRequest) -> int:
    """The octets of the body, as far as the client says."""
    text = http.header("content-length")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


def _require_no_channel(connection: Connection, operation: Operation) -> None:
    """Refuse what needs the client's TLS channel, where another server ends it or nobody."""
    if not connection.over_tls:
        _refuse(RefusalReason.AUTHENTICATION_REQUIRED, "EST is available over TLS only")
    if operation.enrolls:
        _refuse(
            RefusalReason.AUTHENTICATION_REQUIRED,
            "the client cannot be authenticated",
            detail="the server of the application does not tell who the TLS client is",
        )


def _http_credentials(http: HttpRequest) -> HttpCredentials | None:
    values = http.headers.get("authorization", ())
    if not values:
        return None
    if len(values) > 1:
        _refuse(RefusalReason.MALFORMED_REQUEST, "there is more than one Authorization")
    try:
        credentials = parse_credentials(values[0])
    except MessageError as error:
        raise RequestRefused(RefusalReason.MALFORMED_REQUEST, str(error)) from error
    if isinstance(credentials, DigestCredentials) and credentials.uri != http.target:
        # RFC 7616 section 3.4.6: somebody may have put it on another request.
        _refuse(RefusalReason.MALFORMED_REQUEST, "the Digest credentials are for another request")
    return credentials


def _require_media_type(http: HttpRequest, operation: Operation) -> None:
    """Compare the type alone: parameters say nothing about the body (RFC 8951 section 3)."""
    if (http.header("content-encoding") or "identity").strip().lower() != "identity":
        # RFC 9110 section 8.4: 415 for a coding that is not taken.
        _refuse(RefusalReason.UNSUPPORTED_MEDIA_TYPE, "a body is not taken compressed")
    expected = operation.request_type
    header = http.header("content-type")
    if expected is None or header == expected.name:
        return
    if header and MediaType.parse(header).name == expected.name:
        return
    _refuse(RefusalReason.UNSUPPORTED_MEDIA_TYPE, f"the Content-Type has to be {expected}")


def _reads_lines(headers: Mapping[str, object]) -> bool:
    """Whether the client reads base64 in lines, as RFC 8951 section 3.1 wants of all of them.

    strongSwan's ``pki`` up to 5.9.10 does not, and libest's client reads no long line, so that no
    one form suits both. strongSwan's is known by how little it says of itself.
    """
    return not headers.keys() <= _SAID_BY_STRONGSWAN


def _encode(
    operation: Operation, response: EstResponse, forms: LegacyForms, *, wrap: bool
) -> HttpAnswer:
    if isinstance(response, Pending):
        retry_after = ("Retry-After", str(response.retry_after))
        if forms.empty_bodies:
            return HttpAnswer(HTTPStatus.ACCEPTED, None, [retry_after])
        return HttpAnswer(
            HTTPStatus.ACCEPTED,
            b"the request is pending; repeat it later\n",
            [("Content-Type", str(PLAIN_TEXT)), retry_after],
        )
    if isinstance(response, CsrAttributesResponse):
        if response.der is None:
            return HttpAnswer(HTTPStatus.NO_CONTENT)
        return _content(operation.response_type, base64_body.encode(response.der))
    if isinstance(response, GeneratedKeyResponse):
        encoding = forms.content_transfer_encoding
        return _content(*key_delivery.to_multipart_mixed(response, transfer_encoding=encoding))
    body = base64_body.encode(certs_only.encode(response.certificates), wrap=wrap)
    return _content(operation.response_type, body)


def _is_base64(response: EstResponse) -> bool:
    """Whether the body of the answer is base64 from end to end."""
    if isinstance(response, CsrAttributesResponse):
        return response.der is not None
    return isinstance(response, CertificatesResponse)


def _content(media_type: MediaType, body: bytes) -> HttpAnswer:
    return HttpAnswer(HTTPStatus.OK, body, [("Content-Type", str(media_type))])


def _refuse(reason: RefusalReason, sentence: str, *, detail: str = "") -> NoReturn:
    raise RequestRefused(reason, sentence, detail=detail)
