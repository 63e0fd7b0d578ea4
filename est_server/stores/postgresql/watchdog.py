"""Cuts connections to a database that does not answer.

The database's own time-outs are of no use when it is the database that hangs, and libpq waits for
an answer as long as the other side's kernel is alive.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

_log = logging.getLogger(__name__)

#: Looks around so often within the time that is given for an answer.
_LOOKS = 8


class Watchdog:
    """A thread that watches connections while they wait for an answer.

    :param patience: seconds that an answer may usually take.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._waiting: dict[int, tuple[float, psycopg.Connection[Any]]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def watching(self, connection: psycopg.Connection[Any], patience: float) -> Iterator[None]:
        """Cut ``connection`` if this is not left within ``patience`` seconds."""
        with self._lock:
            self._waiting[id(connection)] = (time.monotonic() + patience, connection)
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[id(connection)]

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self.patience / _LOOKS):
            # Under the lock nobody leaves, so no descriptor is closed and given to another.
            with self._lock:
                now = time.monotonic()
                for deadline, connection in self._waiting.values():
                    if deadline < now:
                        _cut(connection)


def _cut(connection: psycopg.Connection[Any]) -> None:
    _log.warning("PostgreSQL does not answer; its connection is cut")
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)
    except (psycopg.Error, OSError) as error:
        _log.warning("it was cut already: %s", error)
