"""Where the tables of one configuration listen, and which of them are in each other's way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations

from est_server.config.settings import ServerConfig


@dataclass(frozen=True, slots=True)
class TcpListener:
    """A table that listens on a TCP port.

    :param table: its name in the configuration.
    :param host: an address or a name; empty for all addresses.
    """

    table: str
    host: str
    port: int

    def is_in_the_way_of(self, other: TcpListener) -> bool:
        """Whether only one of them could listen. A name is compared with nothing but itself."""
        # Each gets a port of its own where any will do.
        if self.port != other.port or self.port == 0:
            return False
        if self.host.lower() == other.host.lower() or not self.host or not other.host:
            return True
        here, there = _address(self.host), _address(other.host)
        if here is None or there is None or here.version != there.version:
            return False
        return here == there or here.is_unspecified or there.is_unspecified


def clashes(config: ServerConfig) -> Iterator[tuple[TcpListener, TcpListener]]:
    """The listeners that are in each other's way; CoAPS is alone on UDP."""
    return (
        (one, other)
        for one, other in combinations(_tcp_listeners(config), 2)
        if one.is_in_the_way_of(other)
    )


def _tcp_listeners(config: ServerConfig) -> Iterator[TcpListener]:
    if config.https is not None:
        yield TcpListener("https", config.https.listen, config.https.port)
    if config.proxy is not None and config.proxy.listen is not None:
        yield TcpListener("proxy", config.proxy.listen, config.proxy.port)
    if config.crl is not None:
        yield TcpListener("crl", config.crl.listen, config.crl.port)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
