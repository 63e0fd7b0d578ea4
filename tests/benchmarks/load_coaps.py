"""A load generator over CoAPS: one thread, blocking sockets, our own DTLS engine."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator

from aiocoap.numbers import Type
from cryptography import x509

from est_protocol.coap.codec import ReceivedMessage, decode_message
from est_protocol.credentials import AnchorSet
from est_protocol.media_types import ContentFormat
from est_protocol.secure_channel.context import TrustAnchors, dtls_context
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.policy import DtlsPolicy
from tests.benchmarks.devices import Device

_GET, _POST = 1, 2
_URI_PATH, _CONTENT_FORMAT, _BLOCK2, _BLOCK1 = 11, 12, 23, 27
_CONTINUE = 0x5F
_RESEND_SECONDS = 1.0
_ATTEMPTS = 8


class CoapsSession:
    """One DTLS session of one device, with one exchange at a time.

    :param block_exponent: SZX, 2 for 64 octets up to 6 for 1024.
    """

    def __init__(
        self,
        port: int,
        device: Device,
        trusted: x509.Certificate,
        policy: DtlsPolicy,
        block_exponent: int,
    ) -> None:
        anchors = TrustAnchors({AnchorSet.EXPLICIT: (trusted,)})
        context = dtls_context(
            policy,
            server=False,
            credentials=device.credentials,
            anchors=anchors,
            require_trust=True,
        )
        self._session = DtlsSession(context, anchors, policy, server=False)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._szx = block_exponent
        self._message_id = 0
        #: Exchanges that were made.
        self.exchanges = 0
        self._session.start()
        self._flush()
        while not self._session.established:
            self._receive(_RESEND_SECONDS)
            self._session.handle_timeout()
            self._flush()

    def get(self, *path: str) -> bytes:
        """Fetch a resource, block by block."""
        answer = self._ask(_GET, _path(path))
        return bytes(answer.payload) + self._rest(_GET, _path(path), answer, 1)

    def post(self, octets: bytes, content_format: int, *path: str) -> bytes:
        """Send a request block by block and fetch the answer likewise."""
        options = [*_path(path), (_CONTENT_FORMAT, _uint(content_format))]
        size = 16 << self._szx
        blocks = [octets[at : at + size] for at in range(0, len(octets), size)]
        for number, block in enumerate(blocks):
            more = number < len(blocks) - 1
            option = (_BLOCK1, _block(number, more, self._szx))
            answer = self._ask(_POST, [*options, option], block)
            if more and answer.code != _CONTINUE:
                raise RuntimeError(f"refused with {answer.code}: {answer.payload!r}")
        last = (_BLOCK1, _block(len(blocks) - 1, False, self._szx))
        return bytes(answer.payload) + self._rest(_POST, [*options, last], answer, 1)

    def close(self) -> None:
        """End the session with a close_notify."""
        self._session.close()
        self._flush()
        self._socket.close()

    def _rest(
        self, code: int, options: list[tuple[int, bytes]], answer: ReceivedMessage, number: int
    ) -> bytes:
        if answer.code >> 5 != 2:
            raise RuntimeError(f"refused with {answer.code}: {answer.payload!r}")
        octets = b""
        while answer.opt.block2 is not None and answer.opt.block2.more:
            block = (_BLOCK2, _block(number, False, self._szx))
            wanted = [o for o in options if o[0] == _URI_PATH] + [block]
            answer = self._ask(code, wanted)
            octets += answer.payload
            number += 1
        return octets

    def _ask(
        self, code: int, options: list[tuple[int, bytes]], payload: bytes = b""
    ) -> ReceivedMessage:
        self._message_id += 1
        self.exchanges += 1
        if code == _GET and not any(number == _BLOCK2 for number, _ in options):
            options = [*options, (_BLOCK2, _block(0, False, self._szx))]
        datagram = _encode(code, self._message_id, options, payload)
        for _ in range(_ATTEMPTS):
            self._session.send_plaintext(datagram)
            self._flush()
            # After an empty acknowledgement the answer comes by itself.
            answer = self._answer(datagram[4:6]) or self._answer(datagram[4:6])
            if answer is not None:
                return answer
        raise TimeoutError("no answer")

    def _answer(self, token: bytes) -> ReceivedMessage | None:
        """The answer with this token if it is what comes next."""
        found = None
        for plaintext in self._receive(_RESEND_SECONDS):
            answer = decode_message(plaintext)
            if answer.mtype is Type.CON:
                # Until it is acknowledged the server sends no other (NSTART is 1).
                self._session.send_plaintext(bytes((0x60, 0)) + answer.mid.to_bytes(2, "big"))
                self._flush()
            if answer.code and answer.token == token:
                found = answer
        return found

    def _receive(self, seconds: float) -> list[bytes]:
        # Not select(), which knows the first 1024 descriptors only.
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        if not waiting.poll(seconds * 1000):
            return []
        plaintext: list[bytes] = []
        while True:
            try:
                plaintext += self._session.receive_datagram(self._socket.recv(65536))
            except BlockingIOError:
                break
        self._flush()
        return plaintext

    def _flush(self) -> None:
        for datagram in self._session.datagrams_to_send():
            self._socket.send(datagram)


def enroll_each(
    port: int,
    devices: list[Device],
    trusted: x509.Certificate,
    policy: DtlsPolicy,
    block_exponent: int,
) -> Iterator[tuple[float, int]]:
    """/crts and first enrollment of each device over a session of its own.

    :return: seconds and exchanges of each.
    :raises RuntimeError: one was refused.
    """
    for device in devices:
        began = time.perf_counter()
        session = CoapsSession(port, device, trusted, policy, block_exponent)
        session.get(".well-known", "est", "crts")
        session.post(device.csr, ContentFormat.PKCS10, ".well-known", "est", "sen")
        session.close()
        yield time.perf_counter() - began, session.exchanges


def _path(segments: tuple[str, ...]) -> list[tuple[int, bytes]]:
    return [(_URI_PATH, segment.encode()) for segment in segments]


def _uint(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _block(number: int, more: bool, exponent: int) -> bytes:
    return _uint(number << 4 | more << 3 | exponent)


def _encode(code: int, message_id: int, options: list[tuple[int, bytes]], payload: bytes) -> bytes:
    """A confirmable message with a token of two octets (RFC 7252 section 3)."""
    octets = bytearray([0x42, code]) + message_id.to_bytes(2, "big") * 2
    before = 0
    for number, value in sorted(options, key=lambda option: option[0]):
        octets += _option(number - before, value)
        before = number
    return bytes(octets + (b"\xff" + payload if payload else b""))


def _option(delta: int, value: bytes) -> bytes:
    extended = bytearray()
    nibbles = []
    for size in (delta, len(value)):
        nibbles.append(min(size, 13))
        if size >= 13:
            extended.append(size - 13)
    return bytes([nibbles[0] << 4 | nibbles[1]]) + extended + value
