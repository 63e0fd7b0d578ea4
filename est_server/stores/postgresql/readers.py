"""Reads, in threads, over connections that are kept."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg

from est_server.stores.engine import unavailable
from est_server.stores.postgresql.session import PostgresqlSession
from est_server.stores.transaction import Transaction

T = TypeVar("T")


class Readers:
    """Runs queries that only read.

    :param connect: makes a session for reading.
    :param size: how many run at one time, each over a connection of its own.
    :param max_waiting: how many more may wait.
    """

    def __init__(
        self, connect: Callable[[], PostgresqlSession], *, size: int, max_waiting: int
    ) -> None:
        self._connect = connect
        self._limit = size + max_waiting
        self._begun = 0
        self._idle: deque[PostgresqlSession] = deque()
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="store-reader")

    async def run(self, query: Callable[[Transaction], T]) -> T:
        """Run ``query`` in a thread.

        :raises RequestRefused: ``STORE_UNAVAILABLE``: too many wait already.
        """
        if self._begun >= self._limit:
            raise unavailable(f"{self._begun} reads are waiting")
        self._begun += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._read, query
            )
        finally:
            self._begun -= 1

    async def close(self) -> None:
        """Close the connections, once those that are busy have finished."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    # Everything below runs in the threads.

    def _read(self, query: Callable[[Transaction], T]) -> T:
        try:
            session = self._idle.pop()
        except IndexError:
            return self._read_over(self._connect(), query)
        try:
            return self._read_over(session, query)
        except psycopg.OperationalError:
            if not session.is_lost:
                raise
            # It may have been lost while nobody used it, and reading twice does no harm.
            return self._read_over(self._connect(), query)

    def _read_over(self, session: PostgresqlSession, query: Callable[[Transaction], T]) -> T:
        try:
            return query(session)
        finally:
            if not session.is_lost:
                self._idle.append(session)
