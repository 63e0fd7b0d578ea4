"""The stream sockets under TLS, replaceable by a link emulator."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
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
    def __init__(self, *servers: asyncio.Server) -> None:
        self._servers = servers
        self.addresses = [sock.getsockname() for server in servers for sock in server.sockets]

    def close(self) -> None:
        for server in self._servers:
            server.close()


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


def let_group_in(path: Path) -> None:
    """Set the mode of a Unix socket so that its user and group may connect."""
    path.chmod(0o660)


def unix_listener(path: Path) -> StreamListenerFactory:
    """A :class:`StreamListenerFactory` for a Unix socket, which user and group may connect to."""

    async def listen(
        make_protocol: Callable[[], asyncio.BaseProtocol],
        host: str | None,
        port: int,
        *,
        backlog: int,
        reuse_port: bool,
    ) -> StreamListener:
        # What a process before this one left there is removed by asyncio, if it is a socket.
        server = await asyncio.get_running_loop().create_unix_server(
            make_protocol, path, backlog=backlog
        )
        let_group_in(path)
        return _SocketListener(server)

    return listen


def listener_on(sockets: Sequence[socket.socket]) -> StreamListenerFactory:
    """A :class:`StreamListenerFactory` that listens on sockets which are bound already.

    :param sockets: of any family; closing the listener closes them.
    """

    async def listen(
        make_protocol: Callable[[], asyncio.BaseProtocol],
        host: str | None,
        port: int,
        *,
        backlog: int,
        reuse_port: bool,
    ) -> StreamListener:
        loop = asyncio.get_running_loop()
        return _SocketListener(
            *[
                await (
                    loop.create_unix_server(make_protocol, sock=sock, backlog=backlog)
                    if sock.family == socket.AF_UNIX
                    else loop.create_server(make_protocol, sock=sock, backlog=backlog)
                )
                for sock in sockets
            ]
        )

    return listen
