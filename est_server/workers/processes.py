"""Worker processes as their supervisor sees them."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from est_server.config import ServerConfig
from est_server.workers.sockets import WorkerSockets

#: What runs in a worker: gets its configuration, sockets and channel, and gives an exit status.
Work = Callable[[ServerConfig, WorkerSockets, socket.socket], int]

#: What a worker keeps back until it can deal with it.
_HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LONGEST_WORD = 4096


@dataclass
class WorkerProcess:
    """One worker. Times are seconds of a clock that never jumps.

    :param number: from 0; the place that it takes.
    :param listening_since: ``None`` until it listens.
    :param listens_at: such as ``https=127.0.0.1:8443``.
    :param heard_at: when it last said anything.
    :param doubted: it was not heard of for so long that it has only a little time left.
    """

    number: int
    pid: int
    channel: socket.socket
    started_at: float
    listening_since: float | None = None
    listens_at: str = ""
    heard_at: float = math.inf
    doubted: bool = False
    _unread: bytes = b""

    def listened_for(self, now: float) -> float:
        """Seconds since it began to listen."""
        return 0.0 if self.listening_since is None else now - self.listening_since

    def words(self) -> Iterator[str]:
        """What it has told since the last time.

        :raises EOFError: nothing more will come.
        """
        try:
            received = self.channel.recv(_LONGEST_WORD)
        except BlockingIOError:
            return
        except ConnectionResetError:
            received = b""
        if not received:
            raise EOFError
        *whole, self._unread = (self._unread + received).split(b"\n")
        yield from (line.decode() for line in whole)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; it has not been waited for, so that its id is still its own."""
        os.kill(self.pid, number)

    def ended(self) -> int | None:
        """Its exit status once it has ended, negative for the signal that killed it."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


def fork_worker(
    number: int,
    work: Callable[[socket.socket], int],
    now: float,
    let_go: Callable[[], None],
) -> WorkerProcess:
    """Start a worker. A copy of this process starts in no time and shares its memory.

    :param work: given the worker's end of the channel; gives the exit status.
    :param let_go: closes in the worker what belongs to the supervisor.
    :raises OSError: there can be no more processes.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    sys.stdout.flush()
    sys.stderr.flush()
    with _held_back(_HELD_BACK):
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            status = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                ours.close()
                let_go()
                status = work(theirs)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                # Not the supervisor's way out of its stack, which would end its workers.
                os._exit(status)
    theirs.close()
    return WorkerProcess(number, pid, ours, now)


@contextmanager
def _held_back(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
