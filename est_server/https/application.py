"""EST as an aiohttp application: HTTP in, EstRequest out; EstResponse in, HTTP out.

Translation only; every decision is the service's. RFC 7030 sections 3.2 and 4, RFC 8951.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

from aiohttp import web

from est_protocol import base64_body, certs_only, key_delivery
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ChannelError, MessageError, RefusalReason, RequestRefused
from est_protocol.http_authentication import (
    DigestCredentials,
    HttpCredentials,
    parse_credentials,
)
from est_protocol.media_types import PLAIN_TEXT, MediaType
from est_protocol.messages import (
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    GeneratedKeyResponse,
    Pending,
    Transport,
)
from est_protocol.operations import Operation
from est_protocol.secure_channel.stream import PEER_CREDENTIALS, format_address
from est_server.https.limits import DEFAULT_HTTPS_LIMITS, HttpsLimits
from est_server.interfaces import Responder

#: All header fields that strongSwan's ``pki`` sends, in lower case.
_SAID_BY_STRONGSWAN = frozenset({"host", "authorization", "content-type", "content-length"})


def est_application(
    service: Responder, limits: HttpsLimits = DEFAULT_HTTPS_LIMITS
) -> web.Application:
    """EST as an application that answers ``/OPERATION`` and ``/LABEL/OPERATION``.

    Mount it where EST belongs (RFC 7030 section 3.2.2)::

        app.add_subapp("/.well-known/est", est_application(service))

    and serve the whole with :func:`est_server.https.serve`. Under any other server the client's
    TLS channel is out of sight: requests for certificates are then refused, and on a connection
    without TLS all requests are.

    :param service: answers the requests.
    :param limits: ``body_size``, ``body_timeout`` and ``retry_after`` apply.
    """
    handlers = _Handlers(service, limits)
    app = web.Application()
    for path in ("/{operation}", "/{label:[^/]+}/{operation}", "/{anything:.*}"):
        app.router.add_route("*", path, handlers.handle, expect_handler=_invite_later)
    app.on_response_prepare.append(_conceal_software)
    return app


async def _conceal_software(http: web.Request, response: web.StreamResponse) -> None:
    """Leave out the versions of Python and aiohttp, which help nobody but an attacker."""
    response.headers.pop("Server", None)


async def _invite_later(http: web.Request) -> None:
    """Leave ``Expect: 100-continue`` to the handler, which may not want the body at all."""


async def _invite_body(http: web.Request) -> None:
    """Answer ``Expect: 100-continue`` (RFC 9110 section 10.1.1)."""
    if http.headers.get("Expect", "").lower() == "100-continue":
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # aiohttp takes octets that were written for the beginning of the answer.
        http.writer.output_size = 0


class _Handlers:
    def __init__(self, service: Responder, limits: HttpsLimits) -> None:
        self._service = service
        self._limits = limits

    async def handle(self, http: web.Request) -> web.Response:
        """Answer one HTTP request."""
        if http.transport is None:
            return web.Response(status=400)  # The client is gone; nobody will read this.
        operation, label = _target(http)
        credentials = http.transport.get_extra_info(PEER_CREDENTIALS)
        peer = credentials or PeerCredentials(
            address=format_address(http.transport.get_extra_info("peername"))
        )
        try:
            request = await self._decode(http, operation, label, in_sight=credentials is not None)
        except RequestRefused as refused:
            await self._service.record_refusal(
                refused, operation=operation, label=label, transport=Transport.HTTPS, peer=peer
            )
            return self._refusal(refused, operation)
        try:
            response = await self._service.respond(request, peer)
        except RequestRefused as refused:
            return self._refusal(refused, operation)
        return _encode(request.operation, response, wrap=_reads_lines(http))

    async def _decode(
        self,
        http: web.Request,
        operation: Operation | None,
        label: str | None,
        *,
        in_sight: bool,
    ) -> EstRequest:
        """The request that ``http`` stands for.

        :param in_sight: whether the client's TLS channel is known.
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
            _require_no_channel(http, operation)
        if not operation.enrolls:
            return EstRequest(operation, Transport.HTTPS, label)
        _require_media_type(http, operation)
        body = await self._read_body(http)
        credentials = _http_credentials(http)
        try:
            # An empty body is the service's to answer: some clients send one in order to be asked
            # for HTTP credentials.
            der = base64_body.decode(body) if body else b""
        except MessageError as error:
            raise RequestRefused(RefusalReason.MALFORMED_BODY, str(error)) from error
        return EstRequest(operation, Transport.HTTPS, label, der, credentials)

    async def _read_body(self, http: web.Request) -> bytes:
        body = bytearray()
        self._check_size(http.content_length or 0)
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                await _invite_body(http)
                async for chunk in http.content.iter_any():
                    body += chunk
                    self._check_size(len(body))
        except TimeoutError as error:
            raise RequestRefused(
                RefusalReason.REQUEST_TIMEOUT,
                f"the body did not arrive within {self._limits.body_timeout:g} s",
            ) from error
        except web.RequestPayloadError as error:
            raise RequestRefused(
                RefusalReason.MALFORMED_REQUEST, "the body's transfer coding is broken"
            ) from error
        except (OSError, ChannelError) as error:
            raise RequestRefused(
                RefusalReason.MALFORMED_REQUEST, "the connection ended within the body"
            ) from error
        return bytes(body)

    def _check_size(self, octets: int) -> None:
        limit = self._limits.body_size
        if octets > limit:
            _refuse(RefusalReason.BODY_TOO_LARGE, f"the body is larger than {limit} octets")

    def _refusal(self, refused: RequestRefused, operation: Operation | None) -> web.Response:
        status = refused.status.http
        response = web.Response(
            status=status,
            # A sentence may repeat a label, and a path may hold octets that are no UTF-8.
            body=f"{refused.sentence}\n".encode(errors="replace"),
            headers={"Content-Type": str(PLAIN_TEXT)},
        )
        if operation is not None and refused.reason is RefusalReason.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = operation.method
        for challenge in refused.challenges:
            response.headers.add("WWW-Authenticate", challenge)
        if status in (
            web.HTTPServiceUnavailable.status_code,
            web.HTTPTooManyRequests.status_code,
        ):
            retry_after = refused.retry_after or self._limits.retry_after
            response.headers["Retry-After"] = str(retry_after)
        if refused.reason in (RefusalReason.BODY_TOO_LARGE, RefusalReason.REQUEST_TIMEOUT):
            # The rest of the body would be taken for the next request.
            response.force_close()
        return response


def _target(http: web.Request) -> tuple[Operation | None, str | None]:
    """The operation and the label in the path; aiohttp has undone the percent-encoding."""
    segment = http.match_info.get("operation")
    try:
        operation = Operation(segment)
    except ValueError:
        operation = None
    return operation, http.match_info.get("label")


def _require_no_channel(http: web.Request, operation: Operation) -> None:
    """Refuse what needs the client's TLS channel, where another server ends it or nobody."""
    if not http.secure:
        _refuse(RefusalReason.AUTHENTICATION_REQUIRED, "EST is available over TLS only")
    if operation.enrolls:
        _refuse(
            RefusalReason.AUTHENTICATION_REQUIRED,
            "the client cannot be authenticated",
            detail="the application is not served by est_server.https: no peer credentials",
        )


def _http_credentials(http: web.Request) -> HttpCredentials | None:
    headers = http.headers.getall("Authorization", [])
    if not headers:
        return None
    if len(headers) > 1:
        _refuse(RefusalReason.MALFORMED_REQUEST, "there is more than one Authorization")
    try:
        credentials = parse_credentials(headers[0])
    except MessageError as error:
        raise RequestRefused(RefusalReason.MALFORMED_REQUEST, str(error)) from error
    if isinstance(credentials, DigestCredentials) and credentials.uri != http.raw_path:
        # RFC 7616 section 3.4.6: somebody may have put it on another request.
        _refuse(RefusalReason.MALFORMED_REQUEST, "the Digest credentials are for another request")
    return credentials


def _require_media_type(http: web.Request, operation: Operation) -> None:
    """Compare the type alone: parameters say nothing about the body (RFC 8951 section 3)."""
    expected = operation.request_type
    header = http.headers.get("Content-Type")
    if expected is None or (header and MediaType.parse(header).name == expected.name):
        return
    _refuse(RefusalReason.UNSUPPORTED_MEDIA_TYPE, f"the Content-Type has to be {expected}")


def _reads_lines(http: web.Request) -> bool:
    """Whether the client reads base64 in lines, as RFC 8951 section 3.1 wants of all of them.

    strongSwan's ``pki`` up to 5.9.10 does not, and libest's client reads no long line, so that no
    one form suits both. strongSwan's is known by how little it says of itself.
    """
    return any(name.lower() not in _SAID_BY_STRONGSWAN for name in http.headers)


def _encode(operation: Operation, response: EstResponse, *, wrap: bool) -> web.Response:
    if isinstance(response, Pending):
        return web.Response(
            status=202,
            body=b"the request is pending; repeat it later\n",
            headers={"Content-Type": str(PLAIN_TEXT), "Retry-After": str(response.retry_after)},
        )
    if isinstance(response, CsrAttributesResponse):
        if response.der is None:
            return web.Response(status=204)
        return web.Response(
            body=base64_body.encode(response.der),
            headers={"Content-Type": str(operation.response_type)},
        )
    if isinstance(response, GeneratedKeyResponse):
        media_type, body = key_delivery.to_multipart_mixed(response)
        return web.Response(body=body, headers={"Content-Type": str(media_type)})
    return web.Response(
        body=base64_body.encode(certs_only.encode(response.certificates), wrap=wrap),
        headers={"Content-Type": str(operation.response_type)},
    )


def _refuse(reason: RefusalReason, sentence: str, *, detail: str = "") -> NoReturn:
    raise RequestRefused(reason, sentence, detail=detail)
