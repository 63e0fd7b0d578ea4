"""What a service manager such as systemd is told, in the protocol of sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
import time

_log = logging.getLogger("est_server.serve")


def notify_ready() -> None:
    """Tell that the server listens, or has read its configuration again."""
    _notify("READY=1")


def notify_reloading() -> None:
    """Tell that the configuration is being read again; :func:`notify_ready` ends that."""
    _notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def notify_stopping() -> None:
    """Tell that the server finishes what is under way."""
    _notify("STOPPING=1")


def _notify(state: str) -> None:
    """Send a datagram to where ``NOTIFY_SOCKET`` says; nobody listens where it says nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # "@" stands for the null octet of Linux's abstract sockets.
    name = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode("ascii"), name)
    except OSError as error:
        _log.warning("NOTIFY_SOCKET %s: %s", address, error.strerror)
