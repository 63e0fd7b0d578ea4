"""The stream sockets under TLS, replaceable by a link emulator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from est_protocol.secure_channel.udp import SocketAddress

_User = TypeVar("_User", bound=asyncio.BaseProtocol)


class StreamConnector(Protocol):
    """Opens a TCP connection; a link emulator puts itself in its place."""

    async def __call__(
        self, make_protocol: Callable[[], _User], host: str, port: int
    ) -> tuple[asyncio.Transport, _User]:
        """Connect to ``host``.

        :raises OSError: there is no connection to be had.
        """
        ...


class StreamListener(Protocol):
    """What accepts TCP connections."""

    @property
    def addresses(self) -> Sequence[SocketAddress]:
        """Where it listens, or did."""
        ...

    def close(self) -> None:
        """Accept no more; what is connected stays so."""
        ...


class StreamListenerFactory(Protocol):
    """Listens for TCP connections; a link emulator puts itself in its place."""

    async def __call__(
        self,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        host: str | None,
        port: int,
        *,
        backlog: int,
        reuse_port: bool,
    ) -> StreamListener:
        """Listen on ``host``.

        :param backlog: connections that may wait to be accepted.
        :param reuse_port: let several processes listen on the port (``SO_REUSEPORT``).
        :raises OSError: the address cannot be listened on.
        """
        ...


class _SocketListener:
    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.addresses = [sock.getsockname() for sock in server.sockets]

    def close(self) -> None:
        self._server.close()


async def tcp_connection(
    make_protocol: Callable[[], _User], host: str, port: int
) -> tuple[asyncio.Transport, _User]:
    """A TCP connection; the default :class:`StreamConnector`."""
    return await asyncio.get_running_loop().create_connection(make_protocol, host, port)


async def tcp_listener(
    make_protocol: Callable[[], asyncio.BaseProtocol],
    host: str | None,
    port: int,
    *,
    backlog: int,
    reuse_port: bool,
) -> StreamListener:
    """A listening TCP socket, or one per address; the default :class:`StreamListenerFactory`."""
    server = await asyncio.get_running_loop().create_server(
        make_protocol, host, port, backlog=backlog, reuse_port=reuse_port or None
    )
    return _SocketListener(server)
