"""A datagram socket whose network loses datagrams both ways; the same ones for the same seed."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from est_protocol.secure_channel.udp import udp_transport

#: Content type of DTLS records with CoAP in them (RFC 6347 section 4.1).
_APPLICATION_DATA = 23


class LossyNetwork:
    """A :class:`~est_protocol.secure_channel.udp.DatagramTransportFactory` over UDP.

    :param loss: the share of datagrams that are lost, each way; so one end with such a network is
        enough.
    :param seed: for the choice of which, anew with each socket.
    :param from_handshake: lose datagrams of DTLS handshakes too. OpenSSL repeats those after one
        second and more, so a test that has many handshakes may want to spare them.
    """

    def __init__(self, loss: float, seed: int, *, from_handshake: bool = True) -> None:
        self.loss = loss
        self._from_handshake = from_handshake
        self.lost = 0
        self._seed = seed
        self._opened = 0
        self._random = random.Random()

    async def __call__(
        self,
        protocol: asyncio.DatagramProtocol,
        *,
        local: tuple[str, int] | None,
        remote: tuple[str, int] | None,
    ) -> asyncio.DatagramTransport:
        """Open the socket."""
        # How much was said before depends on how long it took. A handshake must not depend on it,
        # or once in a while it would lose more than it has time to repeat.
        self._opened += 1
        self._random.seed(f"{self._seed} {self._opened}")
        return await udp_transport(_LossyProtocol(protocol, self), local=local, remote=remote)

    def loses(self, datagram: bytes) -> bool:
        """Whether this datagram is lost."""
        if not self._from_handshake and datagram[0] != _APPLICATION_DATA:
            return False
        lost = self._random.random() < self.loss
        self.lost += lost
        return lost


class _LossyProtocol(asyncio.DatagramProtocol):
    def __init__(self, inner: asyncio.DatagramProtocol, network: LossyNetwork) -> None:
        self._inner = inner
        self._network = network

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(_LossyTransport(transport, self._network))

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def error_received(self, exc: Exception) -> None:
        self._inner.error_received(exc)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if not self._network.loses(data):
            self._inner.datagram_received(data, addr)


class _LossyTransport(asyncio.DatagramTransport):
    def __init__(self, transport: Any, network: LossyNetwork) -> None:
        super().__init__()
        self._transport = transport
        self._network = network

    def sendto(self, data: Any, addr: Any = None) -> None:
        if not self._network.loses(data):
            self._transport.sendto(data, addr)

    def get_write_buffer_size(self) -> int:
        size: int = self._transport.get_write_buffer_size()
        return size

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())

    def close(self) -> None:
        self._transport.close()
