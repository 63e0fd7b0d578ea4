"""A PostgreSQL database as one of the two stores of a copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

import psycopg

from est_protocol.errors import ConfigurationError, EstError
from est_server.stores.postgresql.address import PostgresqlAddress
from est_server.stores.postgresql.database import prepare
from est_server.stores.postgresql.options import PostgresqlOptions
from est_server.stores.postgresql.session import (
    USE_LOCK,
    Connector,
    PostgresqlSession,
    describe,
)
from est_server.stores.postgresql.watchdog import Watchdog
from est_server.stores.rules.values import Row
from est_server.stores.seals import NO_SEALS, Seals
from est_server.stores.tables import Table
from est_server.stores.transaction import Transaction

_TYPES = {"TEXT": "text", "BLOB": "bytea", "INTEGER": "int8"}


class PostgresqlCopy:
    """A database inside a transaction.

    Implements :class:`~est_server.stores.copying.CopiedStore`.
    """

    def __init__(self, db: PostgresqlSession) -> None:
        self._db = db

    @property
    def transaction(self) -> Transaction:
        """For the rules."""
        return self._db

    def count(self, table: Table) -> int:
        """How many rows there are."""
        return int(self._db.execute(f"SELECT count(*) FROM {table.name}").fetchall()[0][0])

    def rows(self, table: Table) -> Iterator[Row]:
        """All rows."""
        statement = f"COPY ({table.select}) TO STDOUT (FORMAT BINARY)".encode()
        with self._db.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([_TYPES[kind] for kind in table.columns.values()])
            while True:
                with self._db.answering():
                    row = copy.read_row()
                if row is None:
                    return
                yield row

    def insert(self, table: Table, rows: Iterable[Row]) -> None:
        """Add rows as they are."""
        columns = ", ".join(table.columns)
        statement = f"COPY {table.name} ({columns}) FROM STDIN (FORMAT BINARY)".encode()
        with self._db.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([_TYPES[kind] for kind in table.columns.values()])
            for row in rows:
                with self._db.answering():
                    copy.write_row(row)

    def last_number(self, table: Table) -> int:
        """The highest number that a row ever had."""
        [[sequence]] = self._sequence(table)
        [[number, is_used]] = self._db.execute(
            f"SELECT last_value, is_called FROM {sequence}"
        ).fetchall()
        return int(number) if is_used else 0

    def continue_after(self, table: Table, number: int) -> None:
        """Have the next row numbered higher."""
        [[sequence]] = self._sequence(table)
        self._db.execute("SELECT setval(?::regclass, ?, false)", (sequence, number + 1))

    def commit(self) -> None:
        """Make it durable."""
        self._db.commit()

    def _sequence(self, table: Table) -> list[Row]:
        return self._db.execute(
            "SELECT pg_get_serial_sequence(?, ?)", (table.name, table.key[0])
        ).fetchall()


@contextmanager
def open_copy(
    address: PostgresqlAddress, options: PostgresqlOptions, seals: Seals = NO_SEALS
) -> Iterator[PostgresqlCopy]:
    """Open a database for copying; its tables are made if they are not there.

    :raises ConfigurationError: it is no store, or a server has it open.
    :raises EstError: the database failed meanwhile.
    """
    prepare(address, options)
    with closing(Watchdog(options.answer_timeout.total_seconds())) as watchdog:
        connector = Connector(address, options, watchdog, exclusive=True)
        try:
            session = PostgresqlSession(connector.writing, watchdog, seals)
        except psycopg.Error as error:
            raise ConfigurationError(f"{address}: {describe(error)}") from error
        with closing(session) as db:
            try:
                db.begin()
                db.take_longer(options.bulk_timeout)
                yield PostgresqlCopy(db)
                # Else it is held until the database notices that the connection is gone.
                db.execute("SELECT pg_advisory_unlock(?, ?)", USE_LOCK)
            except psycopg.Error as error:
                raise EstError(f"{address}: {describe(error)}") from error
