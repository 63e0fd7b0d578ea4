"""What UDP sockets of devices and of servers have in common where there are no real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from est_protocol.secure_channel.udp import SocketAddress


class EmulatedDatagrams(asyncio.DatagramTransport):
    """A UDP socket.

    :param protocol: gets what arrives.
    :param send: takes a datagram, and whom it is for as :meth:`sendto` was told.
    :param on_close: called once, when it is closed; what was sent still travels.
    :param extra: for ``get_extra_info``.
    """

    def __init__(
        self,
        protocol: asyncio.DatagramProtocol,
        send: Callable[[bytes, Any], None],
        on_close: Callable[[], None],
        extra: dict[str, SocketAddress],
    ) -> None:
        super().__init__(extra)
        self._protocol = protocol
        self._send = send
        self._on_close = on_close
        self._closing = False

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram."""
        if not self._closing:
            self._send(bytes(data), addr)

    def receive(self, data: bytes, source: SocketAddress) -> None:
        """Give a datagram to the protocol."""
        if not self._closing:
            self._protocol.datagram_received(data, source)

    def get_write_buffer_size(self) -> int:
        """Nothing waits here: what a link does not take is lost."""
        return 0

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self._closing

    def close(self) -> None:
        """Close it; what was sent still travels."""
        if not self._closing:
            self._closing = True
            self._on_close()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """As :meth:`close`."""
        self.close()
