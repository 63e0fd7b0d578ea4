"""Starts worker processes, starts others for those that die, and passes on what it is told.

It holds the sockets and no keys, serves nobody, and has one thread and no event loop, so that it
can be copied at any moment.
"""

from __future__ import annotations

import logging
import math
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from est_protocol.errors import ConfigurationError
from est_server import service_manager
from est_server.cautions import INTERVAL, Cautions
from est_server.config import ServerConfig, load_config
from est_server.config.changes import require_no_restart
from est_server.serving import ready, reloaded
from est_server.workers.pace import Despair, Pace
from est_server.workers.processes import Work, WorkerProcess, fork_worker
from est_server.workers.sockets import WorkerSockets, bind_for_workers
from est_server.workers.worker import Word

_log = logging.getLogger("est_server.workers")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class _Place:
    """The place of one worker: its sockets, and the worker that is there."""

    def __init__(self, sockets: WorkerSockets, pace: Pace) -> None:
        self.sockets = sockets
        self.pace = pace
        self.worker: WorkerProcess | None = None
        self.start_at = math.inf


class Supervisor:
    """Looks after worker processes until it is told to stop.

    :param count: how many.
    :param work: what they do.
    :param announce: called when all of them listen, and when all go by a new configuration, with
        the line that says so.
    :param cautions: what the operator is warned of.
    :raises ConfigurationError: a host has no address.
    :raises OSError: an address cannot be listened on.
    """

    def __init__(
        self,
        config: ServerConfig,
        count: int,
        work: Work,
        announce: Callable[[str], None],
        cautions: Cautions,
    ) -> None:
        self._config = config
        self._limits = config.service.workers
        self._work = work
        self._announce = announce
        self._cautions = cautions
        self._warn_at = time.monotonic() + INTERVAL.total_seconds()
        self._announced = False
        self._addresses = ""
        self._places = [
            _Place(sockets, Pace(self._limits)) for sockets in bind_for_workers(config, count)
        ]
        self._despair = Despair(self._limits)
        self._selector = selectors.DefaultSelector()
        self._wakeups: tuple[socket.socket, socket.socket]
        self._status = 0
        self._stop_by: float | None = None
        # Of a reload: asked for; under way, with the workers that have not answered.
        self._to_reload = False
        self._candidate: ServerConfig | None = None
        self._unanswered: set[int] = set()

    def run(self) -> int:
        """Supervise.

        :return: the exit status: 0 if it was told to stop; that of the worker that could not
            start; else 1.
        """
        with _wakeups() as self._wakeups:
            self._selector.register(self._wakeups[0], selectors.EVENT_READ)
            # The first one alone, so that what they cannot start for is said once.
            self._places[0].start_at = time.monotonic()
            while self._workers or self._stop_by is None:
                self._do_what_is_due(time.monotonic())
                for key, _ in self._selector.select(self._patience(time.monotonic())):
                    if key.data is None:
                        self._take_signals()
                    else:
                        self._listen_to(key.data)
                self._bury(time.monotonic())
        self._selector.close()
        return self._status

    @property
    def _workers(self) -> list[WorkerProcess]:
        return [place.worker for place in self._places if place.worker is not None]

    # -- What happens ----------------------------------------------------------------------------

    def _take_signals(self) -> None:
        numbers = self._wakeups[0].recv(4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop(0)
        self._to_reload = self._to_reload or signal.SIGHUP in numbers

    def _listen_to(self, worker: WorkerProcess) -> None:
        try:
            for line in worker.words():
                worker.heard_at, worker.doubted = time.monotonic(), False
                word, _, rest = line.partition(" ")
                if word == Word.READY:
                    worker.listening_since, worker.listens_at = time.monotonic(), rest
                    self._one_more_listens(worker)
                elif word != Word.ALIVE:
                    self._answered(worker, Word(word))
        except EOFError:
            self._selector.unregister(worker.channel)

    def _one_more_listens(self, worker: WorkerProcess) -> None:
        if self._announced:
            _log.warning("worker %d listens again, process %d", worker.number + 1, worker.pid)
            return
        for place in self._places:
            if place.worker is None:
                place.start_at = time.monotonic()
        if all(place.worker and place.worker.listens_at for place in self._places):
            self._announced = True
            # Only the first one publishes CRLs.
            self._addresses = self._places[0].worker.listens_at if self._places[0].worker else ""
            self._announce(ready(self._addresses))
            service_manager.notify_ready()

    def _bury(self, now: float) -> None:
        for place in self._places:
            worker = place.worker
            status = worker.ended() if worker else None
            if worker is None or status is None:
                continue
            with suppress(KeyError):
                self._selector.unregister(worker.channel)
            worker.channel.close()
            place.worker = None
            if self._stop_by is None:
                self._replace(place, worker, status, now)
            if worker.number in self._unanswered:
                self._answered(worker, Word.NOT_RELOADED)

    def _replace(self, place: _Place, dead: WorkerProcess, status: int, now: float) -> None:
        lived = dead.listened_for(now)
        _log.error("worker %d, process %d, %s", dead.number + 1, dead.pid, _how(status))
        if not self._announced:
            self._stop(status if status > 0 else 1)
            return
        settled = any(
            worker.listened_for(now) >= self._limits.settled_after for worker in self._workers
        )
        if self._despair.died(lived=lived, another_is_settled=settled):
            _log.error("giving up: %d workers in a row died at once", self._limits.attempts)
            self._stop(1)
        else:
            place.start_at = place.pace.next_start(now, lived=lived)

    # -- What is done ----------------------------------------------------------------------------

    def _do_what_is_due(self, now: float) -> None:
        if self._stop_by is not None:
            if now >= self._stop_by:
                self._kill_all()
            return
        for place in self._places:
            if place.worker is None and now >= place.start_at:
                self._start(place, now)
            elif place.worker and now >= self._has_to_listen_by(place.worker):
                _log.error("worker %d does not begin to listen", place.worker.number + 1)
                place.worker.signal(signal.SIGKILL)
            elif place.worker and now >= self._has_to_speak_by(place.worker):
                self._doubt(place.worker, now)
        if now >= self._warn_at:
            self._warn_at = now + INTERVAL.total_seconds()
            self._cautions.say_ends()
        if self._to_reload and self._announced and not self._unanswered:
            self._to_reload = False
            self._reload()

    def _patience(self, now: float) -> float | None:
        """Seconds until something is due."""
        if self._stop_by is not None:
            due = [self._stop_by]
        else:
            due = [self._warn_at]
            due += [place.start_at for place in self._places if place.worker is None]
            due += [self._has_to_listen_by(worker) for worker in self._workers]
            due += [self._has_to_speak_by(worker) for worker in self._workers]
        first = min(due, default=math.inf)
        return None if first == math.inf else max(0.0, first - now)

    def _has_to_listen_by(self, worker: WorkerProcess) -> float:
        if worker.listening_since is not None:
            return math.inf
        return worker.started_at + self._limits.start_timeout

    def _has_to_speak_by(self, worker: WorkerProcess) -> float:
        if worker.listening_since is None:
            return math.inf
        return worker.heard_at + self._limits.silence * (1.25 if worker.doubted else 1.0)

    def _doubt(self, worker: WorkerProcess, now: float) -> None:
        # If the whole machine stood still, this process too, the worker will say something soon.
        if not worker.doubted:
            worker.doubted, worker.heard_at = True, now - self._limits.silence
            return
        _log.error("worker %d is stuck, and is killed", worker.number + 1)
        worker.signal(signal.SIGKILL)
        worker.heard_at = math.inf

    def _start(self, place: _Place, now: float) -> None:
        place.start_at = math.inf
        config, work, number = self._config, self._work, self._places.index(place)
        try:
            place.worker = fork_worker(
                number,
                lambda channel: work(config, place.sockets, channel),
                now,
                lambda: self._let_go(place),
            )
        except OSError as error:
            _log.error("worker %d could not be started: %s", number + 1, error.strerror)
            place.start_at = place.pace.next_start(now, lived=0.0)
            return
        self._selector.register(place.worker.channel, selectors.EVENT_READ, place.worker)

    def _let_go(self, own: _Place) -> None:
        """In a worker: close what is the supervisor's, and the other workers'."""
        self._selector.close()
        for sock in self._wakeups:
            sock.close()
        for place in self._places:
            if place is not own:
                place.sockets.close()
            if place.worker is not None:
                place.worker.channel.close()

    def _stop(self, status: int) -> None:
        if self._stop_by is not None:
            return
        self._status = status
        self._stop_by = time.monotonic() + self._limits.stop_timeout
        service_manager.notify_stopping()
        for place in self._places:
            # Once the workers have closed theirs, nobody waits for an answer that never comes.
            place.sockets.close()
        for worker in self._workers:
            worker.signal(signal.SIGTERM)

    def _kill_all(self) -> None:
        self._stop_by = math.inf
        self._status = 1
        for worker in self._workers:
            _log.error("worker %d does not end, and is killed", worker.number + 1)
            worker.signal(signal.SIGKILL)

    # -- Reloading -------------------------------------------------------------------------------

    def _reload(self) -> None:
        service_manager.notify_reloading()
        try:
            candidate = load_config(self._config.file)
            require_no_restart(self._config, candidate)
        except ConfigurationError as error:
            _log.error("the configuration was not reloaded, the old one goes on: %s", error)
            service_manager.notify_ready()
            return
        self._candidate = candidate
        # Those that do not listen yet were started with the configuration before.
        self._unanswered = {worker.number for worker in self._workers if worker.listens_at}
        for worker in self._workers:
            worker.signal(signal.SIGHUP)

    def _answered(self, worker: WorkerProcess, word: Word) -> None:
        if word is Word.NOT_RELOADED and self._candidate is not None:
            _log.error("worker %d goes on with the old configuration", worker.number + 1)
            self._candidate = None
        self._unanswered.discard(worker.number)
        if not self._unanswered:
            self._take_over()
            service_manager.notify_ready()

    def _take_over(self) -> None:
        if self._candidate is None:
            return
        # A worker that takes the place of one that dies goes by what worked for all.
        self._config, self._candidate = self._candidate, None
        changes = self._cautions.take_over(self._config)
        self._announce(reloaded(self._addresses, changes))


def _how(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


@contextmanager
def _wakeups() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Sockets on which the numbers of signals arrive, one octet each, from the second one."""
    receiver, sender = socket.socketpair()
    with receiver, sender:
        receiver.setblocking(False)
        sender.setblocking(False)
        signal.set_wakeup_fd(sender.fileno())
        handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        try:
            yield receiver, sender
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in handlers.items():
                signal.signal(number, handler)
