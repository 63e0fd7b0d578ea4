"""EST as an aiohttp application; what it does is in :mod:`.translation`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ChannelError, MessageError
from est_protocol.secure_channel.stream import PEER_CREDENTIALS, format_address
from est_server.https.limits import DEFAULT_HTTPS_LIMITS, HttpsLimits
from est_server.https.peers import NO_PROXIES, Connection, ProxyTrust
from est_server.https.runner import conceal_software
from est_server.https.translation import HttpAnswer, HttpRequest, HttpTranslation
from est_server.interfaces import HttpResponder


def est_application(
    service: HttpResponder,
    limits: HttpsLimits = DEFAULT_HTTPS_LIMITS,
    proxies: ProxyTrust = NO_PROXIES,
) -> web.Application:
    """EST as an application that answers ``/OPERATION`` and ``/LABEL/OPERATION``.

    Mount it where EST belongs (RFC 7030 section 3.2.2)::

        app.add_subapp("/.well-known/est", est_application(service))

    and serve the whole with :func:`est_server.https.serve`. Under any other server the client's
    TLS channel is out of sight: requests for certificates are then refused, and on a connection
    without TLS all requests are, unless a proxy is trusted to tell of the channel.

    :param service: answers the requests.
    :param limits: ``body_size``, ``body_timeout`` and ``retry_after`` apply.
    :param proxies: TLS-terminating proxies that are believed (RFC 9440).
    """
    translation = HttpTranslation(service, limits, proxies)

    async def handle(http: web.Request) -> web.Response:
        if http.transport is None:
            return web.Response(status=400)  # The client is gone; nobody will read this.
        return _response(await translation.answer(_request(http)))

    app = web.Application()
    for path in ("/{operation}", "/{label:[^/]+}/{operation}", "/{anything:.*}"):
        app.router.add_route("*", path, handle, expect_handler=_invite_later)
    app.on_response_prepare.append(conceal_software)
    return app


async def _invite_later(http: web.Request) -> None:
    """Leave ``Expect: 100-continue`` to the handler, which may not want the body at all."""


async def _invite_body(http: web.Request) -> None:
    """Answer ``Expect: 100-continue`` (RFC 9110 section 10.1.1)."""
    if http.headers.get("Expect", "").lower() == "100-continue":
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # aiohttp takes octets that were written for the beginning of the answer.
        http.writer.output_size = 0


def _request(http: web.Request) -> HttpRequest:
    found = http.match_info
    # aiohttp has undone the percent-encoding.
    segments = tuple(found[name] for name in ("label", "operation") if name in found)
    headers: dict[str, list[str]] = {}
    for name, value in http.headers.items():
        headers.setdefault(name.lower(), []).append(value)

    async def read_body() -> AsyncIterator[bytes]:
        try:
            await _invite_body(http)
            async for chunk in http.content.iter_any():
                yield chunk
        except web.RequestPayloadError as error:
            raise MessageError("the body's transfer coding is broken") from error
        except (OSError, ChannelError) as error:
            raise MessageError("the connection ended within the body") from error

    return HttpRequest(http.method, http.raw_path, segments, headers, _connection(http), read_body)


def _connection(http: web.Request) -> Connection:
    assert http.transport is not None
    name = http.transport.get_extra_info("peername")
    channel: PeerCredentials | None = http.transport.get_extra_info(PEER_CREDENTIALS)
    return Connection(
        # The peer of a Unix socket has no name, or a path.
        host=str(name[0]) if isinstance(name, tuple) else None,
        address=format_address(name) if isinstance(name, tuple) else "unix",
        channel=channel,
        over_tls=http.secure,
    )


def _response(answer: HttpAnswer) -> web.Response:
    response = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
    if answer.close:
        response.force_close()
    return response
