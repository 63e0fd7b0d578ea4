"""A link that loses datagrams: a seeded filter before a real UDP socket."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from est_protocol.secure_channel.udp import DatagramTransportFactory, udp_transport


class LossyTransport(asyncio.DatagramTransport):
    """Sends what the dice let through; a lossy server and a lossy client lose in each direction."""

    def __init__(self, inner: asyncio.DatagramTransport, loss: float, dice: random.Random) -> None:
        super().__init__()
        self._inner = inner
        self._loss = loss
        self._dice = dice

    def sendto(self, data: Any, addr: Any = None) -> None:
        if self._dice.random() >= self._loss:
            self._inner.sendto(data, addr)

    def get_write_buffer_size(self) -> int:
        size: int = self._inner.get_write_buffer_size()  # type: ignore[attr-defined]
        return size

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def close(self) -> None:
        self._inner.close()

    def abort(self) -> None:
        self._inner.abort()


def lossy_link(loss: float, seed: int) -> DatagramTransportFactory:
    """Opens UDP sockets that lose the share ``loss`` of what is sent."""
    dice = random.Random(seed)

    async def open_socket(
        protocol: asyncio.DatagramProtocol,
        *,
        local: tuple[str, int] | None,
        remote: tuple[str, int] | None,
    ) -> asyncio.DatagramTransport:
        return LossyTransport(await udp_transport(protocol, local=local, remote=remote), loss, dice)

    return open_socket
