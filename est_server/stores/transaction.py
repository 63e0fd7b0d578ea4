"""What the rules ask of a database: one transaction, in which SQL runs and gives rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from est_server.journal import Chain
from est_server.stores.seals import Seals

#: A value in a row: text, octets, a whole number or nothing.
Value = str | bytes | int | None


class Cursor(Protocol):
    """The rows of one statement; read them before the next one is executed."""

    @property
    def rowcount(self) -> int:
        """Rows that the statement changed."""
        ...

    def fetchone(self) -> Any:
        """The next row as a tuple, or ``None``."""
        ...

    def fetchall(self) -> list[Any]:
        """All the rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Transaction(Protocol):
    """A transaction that somebody else began and will end; see :mod:`est_server.stores.rules`."""

    @property
    def seals(self) -> Seals:
        """What its rows are sealed with, and checked by."""
        ...

    #: The latest entry of the journal, if it is known: whatever undoes a write, or begins a
    #: transaction, forgets it.
    journal_head: Chain | None

    def execute(self, sql: str, parameters: Sequence[Value] = ..., /) -> Cursor:
        """Run one statement, with one value for each ``?``."""
        ...

    def insert(self, sql: str, parameters: Sequence[Value], /, *, numbered: str) -> int:
        """Insert one row; the number that the database gave it.

        :param numbered: the column that gets the number.
        """
        ...
