"""A file as one of the two stores of a copy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from est_protocol.errors import ConfigurationError, EstError
from est_server.stores.rules.values import Row
from est_server.stores.seals import NO_SEALS, Seals
from est_server.stores.sqlite import database
from est_server.stores.sqlite.database import SqliteOptions
from est_server.stores.sqlite.owner import no_servers
from est_server.stores.tables import Table
from est_server.stores.transaction import Transaction


class SqliteCopy:
    """A file inside a transaction; implements :class:`~est_server.stores.copying.CopiedStore`."""

    def __init__(self, db: database.Connection) -> None:
        self._db = db

    @property
    def transaction(self) -> Transaction:
        """For the rules."""
        return self._db

    def count(self, table: Table) -> int:
        """How many rows there are."""
        return int(self._db.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])

    def rows(self, table: Table) -> Iterator[Row]:
        """All rows."""
        yield from self._db.execute(table.select)

    def insert(self, table: Table, rows: Iterable[Row]) -> None:
        """Add rows as they are."""
        places = ", ".join("?" * len(table.columns))
        self._db.executemany(
            f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({places})", rows
        )

    def last_number(self, table: Table) -> int:
        """The highest number that a row ever had."""
        row = self._db.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def continue_after(self, table: Table, number: int) -> None:
        """Have the next row numbered higher."""
        self._db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
        self._db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table.name, number))

    def commit(self) -> None:
        """Make it durable."""
        self._db.commit()


@contextmanager
def open_copy(path: Path, options: SqliteOptions, seals: Seals = NO_SEALS) -> Iterator[SqliteCopy]:
    """Open a file for copying; made if it is not there.

    :raises ConfigurationError: it is no store, or a server has it open.
    :raises EstError: the file failed meanwhile.
    """
    with no_servers(path) as alone:
        if not alone:
            raise ConfigurationError(f"a server has {path} open; stop it first")
        database.prepare(path, options)
        with closing(database.connect(path, options, seals=seals)) as db:
            try:
                db.begin()
                yield SqliteCopy(db)
            except sqlite3.Error as error:
                raise EstError(f"{path}: {error}") from error
