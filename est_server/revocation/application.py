"""CRLs over plain HTTP (RFC 5280 section 4.2.1.13, RFC 2585): GET, and nothing else.

A CRL is public and signed, so it needs no TLS; who checks a certificate of the server on the way
to its CRL could not begin.
"""

from __future__ import annotations

from datetime import timedelta

from aiohttp import web
from aiohttp.helpers import ETag

from est_server.revocation.publisher import CrlPublisher

#: RFC 2585 section 4.2.
PKIX_CRL = "application/pkix-crl"

#: Octets that are handed to a connection at once, so that a slow reader holds no whole CRL.
_PIECE = 64 * 1024

#: Seconds after which a client may ask again while there is no CRL.
_RETRY_AFTER = 10

_PUBLISHER = web.AppKey("publisher", CrlPublisher)
_MAX_AGE = web.AppKey("max_age", timedelta)


def crl_application(publisher: CrlPublisher, *, max_age: timedelta) -> web.Application:
    """An application that answers ``/NAME.crl`` with the CRL of the CA called NAME, in DER.

    :param max_age: for how long caches on the way may answer without asking.
    """
    app = web.Application()
    app[_PUBLISHER] = publisher
    app[_MAX_AGE] = max_age
    app.router.add_get("/{name}.crl", _answer, allow_head=False)
    app.on_response_prepare.append(_conceal_software)
    return app


async def _conceal_software(http: web.Request, response: web.StreamResponse) -> None:
    """Leave out the versions of Python and aiohttp, which help nobody but an attacker."""
    response.headers.pop("Server", None)


async def _answer(http: web.Request) -> web.StreamResponse:
    publisher = http.app[_PUBLISHER]
    try:
        crl = publisher.latest(http.match_info["name"])
    except KeyError:
        raise web.HTTPNotFound from None
    if crl is None:
        raise web.HTTPServiceUnavailable(headers={"Retry-After": str(_RETRY_AFTER)})
    # By its content: a CA that begins anew with an empty store repeats its numbers.
    tag = crl.status.sha256.hex()[:32]
    known = http.if_none_match or ()
    unchanged = any(entry.value in ("*", tag) for entry in known)
    response = web.StreamResponse(status=304 if unchanged else 200)
    response.etag = ETag(tag)
    response.last_modified = crl.status.this_update
    seconds = max(0, int(min(http.app[_MAX_AGE], publisher.time_left(crl)).total_seconds()))
    response.headers["Cache-Control"] = f"public, max-age={seconds}, no-transform"
    if unchanged:
        await response.prepare(http)
        return response
    response.content_type = PKIX_CRL
    response.content_length = len(crl.der)
    await response.prepare(http)
    octets = memoryview(crl.der)
    for start in range(0, len(octets), _PIECE):
        await response.write(octets[start : start + _PIECE])
    await response.write_eof()
    return response
