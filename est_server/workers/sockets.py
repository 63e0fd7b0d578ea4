"""The sockets of worker processes, bound before there are any.

Every worker has sockets of its own on the same ports (``SO_REUSEPORT``); the kernel spreads TCP
connections over them, and UDP peers by a hash of both addresses. The supervisor keeps them open, so
that the death of a worker changes nothing for the peers of the others: the kernel would assign
them anew if a socket went. What comes for a dead worker waits for the next one.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from est_protocol.errors import ConfigurationError
from est_protocol.secure_channel.tcp import let_group_in, listener_on
from est_protocol.secure_channel.udp import transport_on
from est_server.config import ServerConfig
from est_server.listeners import Served

_Kind = socket.SocketKind


@dataclass
class WorkerSockets:
    """The sockets of one worker.

    :param crls: of the first worker only.
    """

    https: list[socket.socket] = field(default_factory=list)
    coaps: list[socket.socket] = field(default_factory=list)
    proxied: list[socket.socket] = field(default_factory=list)
    crls: list[socket.socket] = field(default_factory=list)

    def arrange(self, served: Served) -> Served:
        """Have ``served`` listen on them, and publish no CRLs if there is no socket for those."""
        https, coaps, crls, proxied = served.https, served.coaps, served.crls, served.proxied
        if https and self.https:
            https = replace(https, open_listener=listener_on(self.https))
        if coaps and self.coaps:
            coaps = replace(coaps, transport_factory=transport_on(self.coaps[0]))
        if proxied and self.proxied:
            proxied = replace(proxied, open_listener=listener_on(self.proxied))
        if crls:
            listener = listener_on(self.crls)
            http = replace(crls.http, open_listener=listener)
            crls = replace(crls, http=http) if self.crls else None
        return replace(served, https=https, coaps=coaps, crls=crls, proxied=proxied)

    def close(self) -> None:
        """Close them in this process."""
        for each in fields(self):
            for sock in getattr(self, each.name):
                sock.close()


def bind_for_workers(config: ServerConfig, workers: int) -> list[WorkerSockets]:
    """Bind what ``config`` listens on, once for each worker.

    A port 0 is the same port for all of them.

    :raises ConfigurationError: a host has no address.
    :raises OSError: an address cannot be listened on, or somebody else listens there.
    """
    bound = [WorkerSockets() for _ in range(workers)]
    try:
        _bind_all(config, bound)
    except BaseException:
        for sockets in bound:
            sockets.close()
        raise
    return bound


def _bind_all(config: ServerConfig, bound: list[WorkerSockets]) -> None:
    https, coaps, proxy, crl = config.https, config.coaps, config.proxy, config.crl
    if https is not None:
        _share(https.listen, https.port, socket.SOCK_STREAM, [s.https for s in bound])
    if coaps is not None:
        _share(coaps.listen, coaps.port, socket.SOCK_DGRAM, [s.coaps for s in bound])
    if proxy is not None and proxy.unix_socket is not None:
        _share_unix(proxy.unix_socket, [s.proxied for s in bound])
    elif proxy is not None and proxy.listen is not None:
        _share(proxy.listen, proxy.port, socket.SOCK_STREAM, [s.proxied for s in bound])
    if crl is not None:
        _share(crl.listen, crl.port, socket.SOCK_STREAM, [bound[0].crls])


def _share(host: str, port: int, kind: _Kind, receivers: list[list[socket.socket]]) -> None:
    """Give each receiver sockets on all addresses of ``host``; of UDP on the first."""
    for family, address in _addresses(host, port, kind):
        # Whoever else is on the port as the same user would take a share unnoticed.
        with _bind(family, kind, address, shared=False) as first:
            address = (address[0], first.getsockname()[1], *address[2:])
        for sockets in receivers:
            sockets.append(_bind(family, kind, address, shared=True))
        if kind == socket.SOCK_DGRAM:
            break


def _addresses(host: str, port: int, kind: _Kind) -> Iterator[tuple[int, tuple[object, ...]]]:
    try:
        found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigurationError(f"{host}: {error.strerror}") from error
    for family, _, _, _, address in dict.fromkeys(found):
        yield family, address


def _bind(family: int, kind: _Kind, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and kind == socket.SOCK_STREAM:
            # As asyncio has it: TCP has a socket for each family, UDP one for both.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{address[0]} port {address[1]}: {error.strerror}") from error
    return sock


def _share_unix(path: Path, receivers: list[list[socket.socket]]) -> None:
    """Give each receiver the same socket: Unix sockets cannot share a path."""
    if path.is_socket():
        path.unlink()
    first = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    receivers[0].append(first)
    first.setblocking(False)
    first.bind(str(path))
    let_group_in(path)
    for sockets in receivers[1:]:
        sockets.append(first.dup())
