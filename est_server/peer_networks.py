"""Who counts as one sender where senders are bounded by where they come from."""

from __future__ import annotations

import ipaddress


def network_of(address: str) -> str:
    """An IPv4 address, or the /64 of IPv6 that one subscriber has at least.

    :param address: of a peer, with its port or, where a proxy tells of it, without. What is none
        of these, such as the path of a socket, stands for itself, without what may be a port.
    """
    with_port = address.rpartition(":")[0].strip("[]")
    for host in (address, with_port):
        try:
            found = ipaddress.ip_address(host)
        except ValueError:
            continue
        break
    else:
        return with_port or address
    if found.version == 6:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return host
