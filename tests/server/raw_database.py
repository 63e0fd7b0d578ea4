"""The database under a store, as somebody sees and changes it who goes past the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from est_server.interfaces import Clock
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.opening import Location
from est_server.stores.options import StoreOptions
from est_server.stores.postgresql import PostgresqlAddress
from est_server.stores.postgresql.store import PostgresqlStore
from est_server.stores.sqlite import SqliteStore
from est_server.stores.store import Store
from tests.server.ledger_values import INTEGRITY_KEY


class RawDatabase(Protocol):
    """One database."""

    @property
    def location(self) -> Location:
        """Where it is."""
        ...

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, with ``?`` for values; nothing holds it back."""
        ...

    def open(
        self,
        clock: Clock,
        key: IntegrityKey | None = INTEGRITY_KEY,
        options: StoreOptions | None = None,
    ) -> AbstractAsyncContextManager[Store]:
        """The store on it."""
        ...


class RawSqlite:
    """An SQLite file."""

    def __init__(self, path: Path) -> None:
        self.location = path

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, without minding references."""
        with closing(sqlite3.connect(self.location, isolation_level=None)) as db:
            db.execute("PRAGMA foreign_keys = OFF")
            return db.execute(sql, parameters).fetchall()

    def open(
        self,
        clock: Clock,
        key: IntegrityKey | None = INTEGRITY_KEY,
        options: StoreOptions | None = None,
    ) -> AbstractAsyncContextManager[Store]:
        """The store on it."""
        return SqliteStore.open(self.location, clock=clock, integrity_key=key, options=options)


class RawPostgresql:
    """A PostgreSQL database."""

    def __init__(self, address: PostgresqlAddress) -> None:
        self.location = address

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, without minding references."""
        with psycopg.connect(self.location.url, autocommit=True) as db:
            db.execute("SET session_replication_role = replica")
            cursor = db.execute(sql.replace("?", "%s").encode(), parameters)
            return [] if cursor.description is None else cursor.fetchall()

    def open(
        self,
        clock: Clock,
        key: IntegrityKey | None = INTEGRITY_KEY,
        options: StoreOptions | None = None,
    ) -> AbstractAsyncContextManager[Store]:
        """The store on it."""
        return PostgresqlStore.open(self.location, clock=clock, integrity_key=key, options=options)


@pytest.fixture(params=["sqlite", "postgresql"])
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> RawDatabase:
    """Every kind of database in turn."""
    if request.param == "sqlite":
        return RawSqlite(tmp_path / "store.db")
    return RawPostgresql(request.getfixturevalue("postgresql_database"))
