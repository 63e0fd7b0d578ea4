"""The one writer of a store: many writes, one transaction, one flush to the disk.

A flush takes a thousand times longer than a write. While one group is being flushed the next one
gathers; nobody waits for company, and nobody is answered before the flush is done.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from est_server.stores.engine import Engine, Session, unavailable
from est_server.stores.transaction import Transaction

_log = logging.getLogger(__name__)

T = TypeVar("T")
Write = Callable[[Transaction], T]


@dataclass(slots=True)
class _Waiting:
    """A write and what became of it."""

    write: Write[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        # The future of a caller whose event loop was torn down may be cancelled already.
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class GroupWriter:
    """A thread that owns a session and runs the writes that are submitted to it.

    :param engine: the database; asked for a session before each transaction.
    :param max_waiting: writes that may wait.
    :param max_group: writes in one transaction.
    """

    def __init__(self, engine: Engine, *, max_waiting: int, max_group: int) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._max_group = max_group
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._session: Session | None = None
        # A daemon, so that a program that ends without closing the store does end; what was not
        # committed was not answered either.
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def submit(self, write: Write[T], *, share: float = 1.0) -> T:
        """Run ``write`` in a transaction of the writer; returns when its effect is durable.

        If ``write`` raises, its own effect is undone and the exception raised here. Once
        accepted, a write is carried out even if the caller is cancelled.

        :param share: the part of the queue, 0 to 1, that writes of this kind may fill.
        :raises RequestRefused: ``STORE_UNAVAILABLE``: the queue is full, or the database failed.
        """
        return await asyncio.shield(self.enqueue(write, share=share))

    def enqueue(self, write: Write[T], *, share: float = 1.0) -> asyncio.Future[T]:
        """The same for a caller that must learn the result even if it is cancelled."""
        future: asyncio.Future[T] = self._loop.create_future()
        with self._wake:
            if self._closing:
                raise unavailable("the store is closed")
            if len(self._waiting) >= self._max_waiting * share:
                raise unavailable(f"{len(self._waiting)} writes are waiting")
            self._waiting.append(_Waiting(write, future))
            self._wake.notify()
        return future

    async def close(self) -> None:
        """Carry out what waits, then end the thread and its session."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    # Everything below runs in the writer's thread.

    def _run(self) -> None:
        while group := self._next_group():
            self._commit(group)
            try:
                self._loop.call_soon_threadsafe(_settle_all, group)
            except RuntimeError:
                # The event loop was closed without closing the store: nobody can be told.
                _log.warning("the event loop ended before %d writes were answered", len(group))
                break
        self._disconnect()

    def _next_group(self) -> list[_Waiting]:
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            size = min(len(self._waiting), self._max_group)
            return [self._waiting.popleft() for _ in range(size)]

    def _commit(self, group: list[_Waiting]) -> None:
        try:
            session = self._session = self._engine.writer(self._session)
            session.begin()
            for waiting in group:
                self._run_one(session, waiting)
            session.commit()
        except Exception as error:
            if not self._engine.is_outage(error):
                _log.exception("the writer failed")
            self._give_up(group, error)

    def _run_one(self, session: Session, waiting: _Waiting) -> None:
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
            waiting.error = (
                unavailable(self._engine.describe(error))
                if self._engine.is_outage(error)
                else error
            )
        session.execute("RELEASE one")

    def _give_up(self, group: list[_Waiting], error: Exception) -> None:
        detail = self._engine.describe(error)
        _log.warning("%d writes were not made: %s", len(group), detail)
        for waiting in group:
            waiting.error = unavailable(detail)
        # A session that saw an error of the disk may be of no more use; the next group gets a
        # new one. Closing it rolls back.
        self._disconnect()

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except Exception as error:
                _log.warning("closing the store: %s", self._engine.describe(error))


def _settle_all(group: list[_Waiting]) -> None:
    for waiting in group:
        waiting.settle()
