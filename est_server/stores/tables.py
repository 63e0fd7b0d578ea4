"""What tables the schema has, for those who handle all of them alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from graphlib import TopologicalSorter

from est_server.stores.schema import MIGRATIONS, Dialect, Migration

#: Says of a database what it is, so it is no part of what is in it.
_BOOKKEEPING = "migrations"


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    :param columns: names and types of its columns; a type is TEXT, BLOB or INTEGER.
    :param key: its primary key.
    :param is_numbered: whether the database numbers its rows, and never gives a number twice.
    """

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]
    is_numbered: bool

    @property
    def select(self) -> str:
        """A query of all rows, in the order of the key."""
        return f"SELECT {', '.join(self.columns)} FROM {self.name} ORDER BY {', '.join(self.key)}"


def tables(migrations: Sequence[Migration] = MIGRATIONS) -> list[Table]:
    """All tables, each after those that its rows refer to."""
    with closing(sqlite3.connect(":memory:")) as db:
        for migration in migrations:
            for statement in migration.for_dialect(Dialect.SQLITE):
                db.execute(statement)
        found = db.execute(
            "SELECT name, sql LIKE '%AUTOINCREMENT%' FROM sqlite_schema "
            "WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY rowid"
        ).fetchall()
        every = {
            name: _table(db, name, bool(numbered))
            for name, numbered in found
            if name != _BOOKKEEPING
        }
        referred = {name: _referred(db, name) - {name} for name in every}
    return [every[name] for name in TopologicalSorter(referred).static_order()]


def _table(db: sqlite3.Connection, name: str, is_numbered: bool) -> Table:
    info = db.execute(f"PRAGMA table_info({name})").fetchall()
    keyed = sorted((place, column) for _, column, _, _, _, place in info if place)
    return Table(
        name,
        {column: kind for _, column, kind, _, _, _ in info},
        tuple(column for _, column in keyed),
        is_numbered,
    )


def _referred(db: sqlite3.Connection, name: str) -> set[str]:
    return {row[2] for row in db.execute(f"PRAGMA foreign_key_list({name})")}
