"""Everything that is in one store, copied to another: row by row, number by number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from est_protocol.errors import ConfigurationError, EstError
from est_server.stores.opening import Location
from est_server.stores.postgresql import PostgresqlOptions
from est_server.stores.rules.values import Row
from est_server.stores.seals import NO_SEALS, Seals
from est_server.stores.sqlite import SqliteOptions
from est_server.stores.sqlite.copying import open_copy as open_sqlite
from est_server.stores.tables import Table, tables
from est_server.stores.transaction import Transaction

#: Rows between two reports.
_REPORT_EVERY = 100_000

#: Told the name of a table and how many of its rows have been copied.
Progress = Callable[[str, int], None]


class CopiedStore(Protocol):
    """One of the two stores, which nobody else may use meanwhile, inside one transaction."""

    @property
    def transaction(self) -> Transaction:
        """For the rules."""
        ...

    def count(self, table: Table) -> int:
        """How many rows there are."""
        ...

    def rows(self, table: Table) -> Iterator[Row]:
        """All rows, in the order of the table's columns, one after the other."""
        ...

    def insert(self, table: Table, rows: Iterable[Row]) -> None:
        """Add rows as they are."""
        ...

    def last_number(self, table: Table) -> int:
        """The highest number that a row of a numbered table ever had."""
        ...

    def continue_after(self, table: Table, number: int) -> None:
        """Have the next row numbered higher than ``number``."""
        ...

    def commit(self) -> None:
        """Make what was inserted durable, all of it."""
        ...


def copy_store(
    source: Location,
    target: Location,
    *,
    sqlite: SqliteOptions,
    postgresql: PostgresqlOptions,
    progress: Progress,
) -> dict[str, int]:
    """Copy all that is in ``source`` to ``target``, or nothing if anything fails.

    Memory does not grow with the stores. Both are brought to this program's schema first.

    :param sqlite: bounds of a file.
    :param postgresql: bounds of the connections to PostgreSQL.
    :param progress: called for every table, and every 100,000 rows.
    :returns: the number of rows of each table.
    :raises ConfigurationError: one of them cannot be opened or is in use, the target holds
        something, or they are the same.
    :raises EstError: copying failed.
    """
    if source == target:
        raise ConfigurationError(f"{target} is the store itself")
    with (
        open_alone(source, sqlite, postgresql) as old,
        open_alone(target, sqlite, postgresql) as new,
    ):
        every = tables()
        for table in every:
            if new.count(table):
                raise ConfigurationError(f"{target} holds something already ({table.name})")
        counts = {table.name: _copy_table(old, new, table, progress) for table in every}
        new.commit()
    return counts


def open_alone(
    location: Location,
    sqlite: SqliteOptions,
    postgresql: PostgresqlOptions,
    seals: Seals = NO_SEALS,
) -> AbstractContextManager[CopiedStore]:
    """Open a store that nobody else has open, inside one transaction.

    :param seals: what its rows are sealed with.
    :raises ConfigurationError: it cannot be opened, or is in use.
    """
    if isinstance(location, Path):
        return open_sqlite(location, sqlite, seals)
    # Its libraries are needed by nobody else.
    from est_server.stores.postgresql.copying import open_copy as open_postgresql

    return open_postgresql(location, postgresql, seals)


def _copy_table(old: CopiedStore, new: CopiedStore, table: Table, progress: Progress) -> int:
    new.insert(table, _counted(old.rows(table), table, progress))
    if table.is_numbered:
        new.continue_after(table, old.last_number(table))
    count = new.count(table)
    if count != old.count(table):
        raise EstError(f"{table.name}: {count} of {old.count(table)} rows arrived")
    progress(table.name, count)
    return count


def _counted(rows: Iterator[Row], table: Table, progress: Progress) -> Iterator[Row]:
    for count, row in enumerate(rows, start=1):
        yield row
        if count % _REPORT_EVERY == 0:
            progress(table.name, count)
