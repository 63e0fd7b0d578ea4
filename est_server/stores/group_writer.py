"""The one writer of a store: many writes, one transaction, one flush to the disk.

A flush takes a thousand times longer than a write. While one group is being flushed the next one
gathers; nobody waits for company longer than the event loop takes to go round a few times, and
nobody is answered before the flush is done.

What may wait for something else runs in a thread: for the turn to write, for the disk, for a
database that is far. Short writes over a session that waits for nothing run on the event loop:
each statement in a thread would cost both the way from one to the other and back, because SQLite
lets go of the interpreter's lock each time (with an enrollment of 2 ms on the loop, 0.4 ms).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from est_server.stores.engine import Engine, Session, unavailable
from est_server.stores.lone_thread import LoneThread
from est_server.stores.transaction import Transaction

_log = logging.getLogger(__name__)

#: Rounds of the event loop for which a group gathers: requests that have arrived already come
#: along in its flush. Under load that saves 6 % of the CPU time of an enrollment; a round in which
#: nothing happens takes 10 us.
_ROUNDS = 4

T = TypeVar("T")
Write = Callable[[Transaction], T]


@dataclass(slots=True)
class _Waiting:
    """A write and what became of it.

    :param brief: it may run on the event loop.
    """

    write: Write[Any]
    future: asyncio.Future[Any]
    brief: bool
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        # The future of a caller that was cancelled is done already.
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class GroupWriter:
    """Runs the writes that are submitted to it over a session of its own.

    :param engine: the database; asked for a session before each transaction.
    :param max_waiting: writes that may wait.
    :param max_group: writes in one transaction.
    :param max_pause: how long the writes of one transaction may keep the event loop.
    """

    def __init__(
        self, engine: Engine, *, max_waiting: int, max_group: int, max_pause: timedelta
    ) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._max_group = max_group
        self._max_pause = max_pause.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._session: Session | None = None
        self._thread = LoneThread("store-writer")
        self._task = self._loop.create_task(self._run())

    async def submit(self, write: Write[T], *, share: float = 1.0, brief: bool = False) -> T:
        """Run ``write`` in a transaction of the writer; returns when its effect is durable.

        If ``write`` raises, its own effect is undone and the exception raised here. Once
        accepted, a write is carried out even if the caller is cancelled.

        :param share: the part of the queue, 0 to 1, that writes of this kind may fill.
        :param brief: it takes a bounded number of statements, each of which finds its rows by an
            index, and so may run on the event loop.
        :raises RequestRefused: ``STORE_UNAVAILABLE``: the queue is full, or the database failed.
        """
        return await self.enqueue(write, share=share, brief=brief)

    def enqueue(
        self, write: Write[T], *, share: float = 1.0, brief: bool = False
    ) -> asyncio.Future[T]:
        """The same for a caller that must learn the result even if it is cancelled."""
        if self._closing or self._task.done():
            raise unavailable("the store is closed")
        if len(self._waiting) >= self._max_waiting * share:
            raise unavailable(f"{len(self._waiting)} writes are waiting")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(_Waiting(write, future, brief))
        self._wake.set()
        return future

    async def close(self) -> None:
        """Carry out what waits, then end the thread and the session."""
        self._closing = True
        self._wake.set()
        await self._task

    async def _run(self) -> None:
        try:
            while await self._anything_waits():
                for _ in range(_ROUNDS):
                    await asyncio.sleep(0)
                for waiting in await self._carry_out():
                    waiting.settle()
            await self._thread.run(self._disconnect)
        finally:
            self._thread.close()

    async def _anything_waits(self) -> bool:
        while not self._waiting and not self._closing:
            self._wake.clear()
            await self._wake.wait()
        return bool(self._waiting)

    async def _carry_out(self) -> list[_Waiting]:
        """Make those writes durable that are next, and tell each what became of it."""
        group: list[_Waiting] = []
        try:
            session = self._begun_at_once()
            if session is None:
                self._take(group)
                await self._thread.run(self._write_all, group)
            else:
                self._write_now(session, group)
                await self._thread.run(session.commit)
        except Exception as error:
            await self._give_up(group, error)
        return group

    def _begun_at_once(self) -> Session | None:
        """The session with a transaction, if the next write can be made on the event loop."""
        if self._session is None or not self._waiting[0].brief:
            return None
        session = self._session = self._engine.writer(self._session)
        return session if session.begin_at_once() else None

    def _write_now(self, session: Session, group: list[_Waiting]) -> None:
        end = time.monotonic() + self._max_pause
        while self._waiting and self._waiting[0].brief and len(group) < self._max_group:
            group.append(self._waiting.popleft())
            _write_one(session, group[-1], self._engine)
            if time.monotonic() > end:
                break

    def _take(self, group: list[_Waiting]) -> None:
        while self._waiting and len(group) < self._max_group:
            group.append(self._waiting.popleft())

    async def _give_up(self, group: list[_Waiting], error: Exception) -> None:
        if not self._engine.is_outage(error):
            _log.error("the writer failed", exc_info=error)
        detail = self._engine.describe(error)
        _log.warning("%d writes were not made: %s", len(group), detail)
        for waiting in group:
            waiting.error = unavailable(detail)
        # A session that saw an error of the disk may be of no more use; the next group gets a
        # new one. Closing it rolls back.
        await self._thread.run(self._disconnect)

    # In the thread

    def _write_all(self, group: list[_Waiting]) -> None:
        session = self._session = self._engine.writer(self._session)
        session.begin()
        for waiting in group:
            _write_one(session, waiting, self._engine)
        session.commit()

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except Exception as error:
                _log.warning("closing the store: %s", self._engine.describe(error))


def _write_one(session: Session, waiting: _Waiting, engine: Engine) -> None:
    session.execute("SAVEPOINT one")
    try:
        waiting.result = waiting.write(session)
    except Exception as error:
        if not session.in_transaction:
            # The database rolled everything back by itself, as SQLite does when the disk is
            # full, or the connection is gone.
            raise
        session.execute("ROLLBACK TO one")
        session.journal_head = None
        is_outage = engine.is_outage(error)
        waiting.error = unavailable(engine.describe(error)) if is_outage else error
    session.execute("RELEASE one")
