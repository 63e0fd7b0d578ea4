"""The one writer of a store: many writes, one transaction, one flush to the disk.

A flush takes a thousand times longer than a write. While one group is being flushed the next one
gathers; nobody waits for company, and nobody is answered before the flush is done.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from est_protocol.errors import RefusalReason, RequestRefused

_log = logging.getLogger(__name__)

T = TypeVar("T")
Write = Callable[[sqlite3.Connection], T]

#: Seconds after which a client may ask again when the store did not answer.
_RETRY_AFTER = 5


def unavailable(detail: str) -> RequestRefused:
    """The refusal for a store that cannot do what it should."""
    return RequestRefused(
        RefusalReason.STORE_UNAVAILABLE,
        "the server cannot reach its records; try again",
        detail=detail,
        retry_after=_RETRY_AFTER,
    )


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
    """A thread that owns a connection and runs the writes that are submitted to it.

    :param connect: makes a connection; called again after an error that one may not survive.
    :param path: the database file. A file that was moved away or replaced is noticed before the
        next transaction, which would otherwise be committed to where nobody finds it.
    :param max_waiting: writes that may wait.
    :param max_group: writes in one transaction.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        path: Path,
        *,
        max_waiting: int,
        max_group: int,
    ) -> None:
        self._connect = connect
        self._path = path
        self._inode = -1
        self._max_waiting = max_waiting
        self._max_group = max_group
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._db: sqlite3.Connection | None = None
        # A daemon, so that a program that ends without closing the store does end; what was not
        # committed was not answered either.
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def submit(self, write: Write[T], *, share: float = 1.0) -> T:
        """Run ``write`` in a transaction of the writer; returns when its effect is durable.

        If ``write`` raises, its own effect is undone and the exception raised here. Once
        accepted, a write is carried out even if the caller is cancelled.

        :param share: the part of the queue, 0 to 1, that writes of this kind may fill.
        :raises RequestRefused: ``STORE_UNAVAILABLE``: the queue is full, or SQLite failed.
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
        """Carry out what waits, then end the thread and its connection."""
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
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")
            for waiting in group:
                _run_one(db, waiting)
            db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._give_up(group, error)
        except Exception as error:
            _log.exception("the writer failed")
            self._give_up(group, error)

    def _connected(self) -> sqlite3.Connection:
        inode = self._path.stat().st_ino
        if self._db is not None and inode != self._inode:
            self._disconnect()
        if self._db is None:
            self._db, self._inode = self._connect(), inode
        return self._db

    def _give_up(self, group: list[_Waiting], error: Exception) -> None:
        _log.warning("%d writes were not made: %s", len(group), error)
        for waiting in group:
            waiting.error = unavailable(_describe(error))
        # A connection that saw an error of the disk may be of no more use; the next group gets a
        # new one. Closing it rolls back.
        self._disconnect()

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close()
            except sqlite3.Error as error:
                _log.warning("closing the store: %s", error)


def _run_one(db: sqlite3.Connection, waiting: _Waiting) -> None:
    db.execute("SAVEPOINT one")
    try:
        waiting.result = waiting.write(db)
    except Exception as error:
        if not db.in_transaction:
            # SQLite rolled everything back by itself, as it does when the disk is full.
            raise
        db.execute("ROLLBACK TO one")
        waiting.error = _outward(error)
    db.execute("RELEASE one")


def _outward(error: Exception) -> Exception:
    # A violated constraint is a bug, not a store that is out of reach.
    if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
        return unavailable(_describe(error))
    return error


def _describe(error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return f"{error} ({name})"


def _settle_all(group: list[_Waiting]) -> None:
    for waiting in group:
        waiting.settle()
