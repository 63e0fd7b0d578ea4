"""A load generator over HTTPS: one thread, blocking sockets, our own TLS engine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

from cryptography import x509

from est_protocol.credentials import AnchorSet
from est_protocol.secure_channel.context import TrustAnchors, tls_context
from est_protocol.secure_channel.policy import TlsPolicy
from est_protocol.secure_channel.tls import TlsEngine
from tests.benchmarks.devices import Device, body

_PATH = "/.well-known/est/simpleenroll"


class HttpsConnection:
    """One TLS connection of one device.

    :param trusted: the server's root; the generator checks it as a device would.
    """

    def __init__(
        self, port: int, device: Device, trusted: x509.Certificate, policy: TlsPolicy
    ) -> None:
        anchors = TrustAnchors({AnchorSet.EXPLICIT: (trusted,)})
        context = tls_context(
            policy,
            server=False,
            credentials=device.credentials,
            anchors=anchors,
            require_trust=True,
        )
        self._engine = TlsEngine(context, anchors, server=False, server_name="localhost")
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._plaintext = b""
        self._engine.start()
        self._flush()
        while not self._engine.established:
            self._receive()

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask for a resource: its status and its body."""
        return self._ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def post(self, path: str, octets: bytes) -> tuple[int, bytes]:
        """Send a request and read the answer: its status and its body."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/pkcs10\r\nAccept: */*\r\n"
            f"Content-Length: {len(octets)}\r\n\r\n"
        )
        return self._ask(head.encode() + octets)

    def _ask(self, request: bytes) -> tuple[int, bytes]:
        self._engine.send_plaintext(request)
        self._flush()
        while b"\r\n\r\n" not in self._plaintext:
            self._receive()
        header, _, rest = self._plaintext.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in header.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        while len(rest) < length:
            self._plaintext = b""
            self._receive()
            rest += self._plaintext
        self._plaintext = rest[length:]
        return int(header.split(b" ", 2)[1]), rest[:length]

    def close(self) -> None:
        """End the connection as a client does that is done."""
        self._engine.close()
        self._flush()
        self._socket.close()

    def _receive(self) -> None:
        octets = self._socket.recv(65536)
        if not octets:
            raise ConnectionError("the server ended the connection")
        self._plaintext += b"".join(self._engine.receive_octets(octets))
        self._flush()

    def _flush(self) -> None:
        octets = self._engine.octets_to_send()
        if octets:
            self._socket.sendall(octets)


def enroll_each(
    port: int, devices: list[Device], trusted: x509.Certificate, policy: TlsPolicy
) -> Iterator[float]:
    """First enrollment of each device over a connection of its own; seconds of each.

    :raises RuntimeError: one was refused.
    """
    for device in devices:
        began = time.perf_counter()
        connection = HttpsConnection(port, device, trusted, policy)
        _enroll(connection, device)
        connection.close()
        yield time.perf_counter() - began


def enroll_all_over_one(
    port: int, devices: list[Device], trusted: x509.Certificate, policy: TlsPolicy
) -> Iterator[float]:
    """Enroll every device's key over one connection, as the first of them; seconds of each.

    The first one's credentials are those of a registration authority.
    """
    connection = HttpsConnection(port, devices[0], trusted, policy)
    for device in devices:
        began = time.perf_counter()
        _enroll(connection, device)
        yield time.perf_counter() - began
    connection.close()


def _enroll(connection: HttpsConnection, device: Device) -> None:
    status, answer = connection.post(_PATH, body(device.csr))
    if status != 200:
        raise RuntimeError(f"refused with {status}: {answer[:200]!r}")
