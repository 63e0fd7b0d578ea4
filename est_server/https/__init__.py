"""EST over HTTPS on the server: translation, and the transport under it.

:func:`est_application` is EST as an aiohttp application; :func:`serve` serves that, or any
application that it is mounted in, over TLS. :func:`serve_plain` serves without TLS: what is public
and signed, or what a TLS-terminating proxy passes on.
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

__all__ = [
    "ConveyedBinding",
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
