"""The datagram socket under DTLS, replaceable by a link emulator."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Protocol

#: Host and port; IPv6 addresses as asyncio reports them have two more parts.
SocketAddress = tuple[Any, ...]


class DatagramTransportFactory(Protocol):
    """Opens a datagram socket; a link emulator puts itself in its place.

    The transport that ``connection_made`` is given must be the one that is returned: a client sends
    through the first, a server through the second. It must have ``get_write_buffer_size`` as those
    of stream sockets do.
    """

    async def __call__(
        self,
        protocol: asyncio.DatagramProtocol,
        *,
        local: tuple[str, int] | None,
        remote: tuple[str, int] | None,
    ) -> asyncio.DatagramTransport:
        """Bind to ``local`` (a server) or connect to ``remote`` (a client).

        :raises OSError: the address cannot be had or found.
        """
        ...


async def udp_transport(
    protocol: asyncio.DatagramProtocol,
    *,
    local: tuple[str, int] | None,
    remote: tuple[str, int] | None,
) -> asyncio.DatagramTransport:
    """A UDP socket; the default :class:`DatagramTransportFactory`."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: protocol, local_addr=local, remote_addr=remote
    )
    return transport


def transport_on(sock: socket.socket) -> DatagramTransportFactory:
    """A :class:`DatagramTransportFactory` for a socket that is bound already.

    :param sock: closing the transport closes it.
    """

    async def open_transport(
        protocol: asyncio.DatagramProtocol,
        *,
        local: tuple[str, int] | None,
        remote: tuple[str, int] | None,
    ) -> asyncio.DatagramTransport:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: protocol, sock=sock
        )
        return transport

    return open_transport


def send_datagram(
    transport: asyncio.DatagramTransport | None,
    datagram: bytes,
    addr: SocketAddress | None,
    send_buffer: int,
) -> bool:
    """Send a datagram to ``addr``, or to the connected peer; whether that was possible.

    UDP promises nothing, so what does not fit into ``send_buffer`` octets is not sent.
    """
    if transport is None or transport.is_closing():
        return False
    buffered: int = transport.get_write_buffer_size()  # type: ignore[attr-defined]
    if buffered + len(datagram) > send_buffer:
        return False
    transport.sendto(datagram, addr)
    return True
