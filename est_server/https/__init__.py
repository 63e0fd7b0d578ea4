"""EST over HTTPS on the server: translation, and the transport under it.

:func:`serve` serves EST over TLS: on its own as an :class:`EstSite`, or as one part of an aiohttp
application, by :func:`est_application`. :func:`serve_plain` serves without TLS: what is public and
signed, or what a TLS-terminating proxy passes on.
"""

from est_server.https.application import est_application
from est_server.https.limits import HttpsLimits
from est_server.https.peers import ConveyedBinding, ProxyTrust
from est_server.https.plain import (
    PlainHttpApplication,
    PlainHttpEndpoint,
    PlainHttpLimits,
    PlainHttpServer,
    prepare_plain,
    serve_plain,
)
from est_server.https.server import HttpsApplication, HttpsEndpoint, HttpsServer, prepare, serve
from est_server.https.site import EstSite

__all__ = [
    "ConveyedBinding",
    "EstSite",
    "HttpsApplication",
    "HttpsEndpoint",
    "HttpsLimits",
    "HttpsServer",
    "PlainHttpApplication",
    "PlainHttpEndpoint",
    "PlainHttpLimits",
    "PlainHttpServer",
    "ProxyTrust",
    "est_application",
    "prepare",
    "prepare_plain",
    "serve",
    "serve_plain",
]
