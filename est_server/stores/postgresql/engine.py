"""PostgreSQL as the database of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import TypeVar

import psycopg

from est_server.device_records import ListDescription, ListImport, ListRow
from est_server.stores.engine import Session, unavailable
from est_server.stores.postgresql import list_import
from est_server.stores.postgresql.address import PostgresqlAddress
from est_server.stores.postgresql.options import PostgresqlOptions
from est_server.stores.postgresql.readers import Readers
from est_server.stores.postgresql.session import Connector, PostgresqlSession, describe
from est_server.stores.postgresql.watchdog import Watchdog
from est_server.stores.seals import NO_SEALS, Seals
from est_server.stores.transaction import Transaction

T = TypeVar("T")


class PostgresqlEngine:
    """One PostgreSQL database, which ``prepare`` made ready.

    Implements :class:`~est_server.stores.engine.Engine`.

    :param address: the database.
    :param options: bounds and times.
    :param seals: what its rows are sealed with.
    """

    def __init__(
        self, address: PostgresqlAddress, options: PostgresqlOptions, seals: Seals = NO_SEALS
    ) -> None:
        self._seals = seals
        self._options = options
        self._watchdog = Watchdog(options.answer_timeout.total_seconds())
        self._connector = Connector(address, options, self._watchdog)
        self._readers = Readers(
            lambda: PostgresqlSession(self._connector.reading, self._watchdog, seals),
            size=options.readers,
            max_waiting=options.max_waiting_reads,
        )

    def is_outage(self, error: Exception) -> bool:
        """Whether the database or the way to it failed."""
        if isinstance(error, psycopg.IntegrityError):
            return False
        return isinstance(error, (psycopg.Error, OSError))

    def describe(self, error: Exception) -> str:
        """The error with its SQLSTATE."""
        return describe(error)

    def writer(self, current: Session | None) -> Session:
        """A session that finds a new connection by itself."""
        return current or self._writing()

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run a query that only reads, in a thread."""
        try:
            return await self._readers.run(query)
        except psycopg.Error as error:
            raise unavailable(describe(error)) from error

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """A reading transaction over a connection of its own."""
        try:
            reading = PostgresqlSession(self._connector.reading, self._watchdog, self._seals)
            with closing(reading) as db:
                # Comparing a page takes time in which the database hears nothing.
                db.execute("SET idle_in_transaction_session_timeout = 0")
                db.take_longer(self._options.bulk_timeout)
                db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield db
        except psycopg.Error as error:
            raise unavailable(self.describe(error)) from error

    def import_rows(
        self,
        rows: Iterable[ListRow],
        describe: Callable[[], ListDescription],
        now: datetime,
        *,
        reported: int,
    ) -> ListImport:
        """Add a whole list over a connection of its own."""
        try:
            with closing(self._writing()) as db:
                return list_import.import_rows(
                    db, rows, describe, now, reported=reported, time_out=self._options.bulk_timeout
                )
        except psycopg.Error as error:
            raise unavailable(self.describe(error)) from error

    def _writing(self) -> PostgresqlSession:
        return PostgresqlSession(self._connector.writing, self._watchdog, self._seals)

    async def close(self) -> None:
        """Close the connections of reads."""
        await self._readers.close()
        self._watchdog.close()
