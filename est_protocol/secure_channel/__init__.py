"""The one (D)TLS engine of both ends.

``engine`` and its parts are sans-IO: octets in, octets out, time as an argument. The asyncio
drivers, ``stream`` and ``tls_endpoints`` for TLS and ``datagram`` for DTLS, are the only modules
with sockets.
"""
