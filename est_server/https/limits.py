"""Every bound of EST over HTTPS on the server, in one documented object."""

from __future__ import annotations

from dataclasses import dataclass

from est_protocol.secure_channel.stream import StreamLimits


@dataclass(frozen=True, slots=True)
class HttpsLimits:
    """The bounds of the HTTPS server. Times are in seconds, sizes in octets.

    :param max_connections: TCP connections at one time, handshakes included. One more ends the
        oldest that waits for its client; while all are working it is reset.
    :param handshake_timeout: for the TLS handshake.
    :param header_timeout: for the header of a request, from the end of the handshake or the first
        octet of a further request.
    :param body_timeout: for the body of a request to arrive after its header; then 408.
    :param idle_timeout: between the answer to one request and the header of the next.
    :param write_timeout: for which an answer may wait because the client does not read.
    :param linger_timeout: for which the rest of a body that nobody wants is read and dropped, so
        that the client gets to read the answer.
    :param shutdown_timeout: for the client to end its side of a TLS connection that is closed.
    :param drain_timeout: for the requests under way when the server is asked to stop.
    :param body_size: a larger body is answered with 413; applies to EST, not to other
        applications on the same server.
    :param header_line_size: a longer request line or header field is answered with 400.
    :param header_count: more header fields are answered with 400.
    :param retry_after: Retry-After of a 503 whose reason does not say how long it will last.
    """

    max_connections: int = 1000
    handshake_timeout: float = 10.0
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 30.0
    write_timeout: float = 30.0
    linger_timeout: float = 2.0
    shutdown_timeout: float = 5.0
    drain_timeout: float = 10.0
    body_size: int = 65536
    header_line_size: int = 8190
    header_count: int = 64
    retry_after: int = 60

    @property
    def stream(self) -> StreamLimits:
        """Those of them that concern the TLS connection."""
        return StreamLimits(
            handshake_timeout=self.handshake_timeout,
            write_timeout=self.write_timeout,
            shutdown_timeout=self.shutdown_timeout,
        )


DEFAULT_HTTPS_LIMITS = HttpsLimits()
