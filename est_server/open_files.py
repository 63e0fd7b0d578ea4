"""Enough open files for all the connections that the limits allow.

Without them the first flood of idle connections on one listener would keep all others from
accepting any, long before a limit ends the oldest.
"""

from __future__ import annotations

import resource

from est_server.config import ServerConfig

#: Files of one process that are no connections: listeners, databases, logs, the webhook.
_OTHERS = 128


def files_needed(config: ServerConfig) -> int:
    """How many files one process may have open at one time by its limits."""
    https, proxy, crl = config.https, config.proxy, config.crl
    connections = [
        https.limits.max_connections if https else 0,
        proxy.limits.max_connections if proxy else 0,
        crl.limits.max_connections if crl else 0,
    ]
    return sum(connections) + _OTHERS


def allow_open_files(needed: int) -> int:
    """Let this process, and those that it starts, have ``needed`` files open, as far as it may.

    :return: how many it may have.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return needed if soft == resource.RLIM_INFINITY else soft
