"""The stores that must keep the contract of registry and ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest

from est_server.approvals import ApprovalQueue
from est_server.interfaces import (
    Clock,
    DeviceRegistry,
    EnrollmentLedger,
)
from est_server.ledger_administration import LedgerAdministration
from est_server.revocations import RevocationRegistry
from est_server.stores.postgresql import PostgresqlAddress, PostgresqlOptions
from est_server.stores.postgresql.database import prepare
from est_server.stores.postgresql.store import PostgresqlStore
from est_server.stores.sqlite import SqliteStore
from est_server.user_credentials import SecretRegistry
from tests.server.ledger_values import INTEGRITY_KEY, FakeClock
from tests.server.postgresql_server import PostgresqlServer, empty, running_server


class Store(
    ApprovalQueue,
    DeviceRegistry,
    EnrollmentLedger,
    LedgerAdministration,
    RevocationRegistry,
    SecretRegistry,
    Protocol,
):
    """All that a store does."""


class OpenStore(Protocol):
    """Opens the one database of a test; again for another process's view of it."""

    def __call__(
        self, clock: Clock, *, owner: str | None = None
    ) -> AbstractAsyncContextManager[Store]: ...


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One server for the whole run."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def _migrated_database(postgresql_server: PostgresqlServer) -> PostgresqlAddress:
    address = postgresql_server.make_database()
    prepare(address, PostgresqlOptions())
    return address


@pytest.fixture
def postgresql_database(_migrated_database: PostgresqlAddress) -> PostgresqlAddress:
    """A database with empty tables."""
    empty(_migrated_database)
    return _migrated_database


@pytest.fixture
def sqlite_store(tmp_path: Path) -> OpenStore:
    """A file of this test's own."""

    def open_store(clock: Clock, *, owner: str | None = None) -> AbstractAsyncContextManager[Store]:
        return SqliteStore.open(
            tmp_path / "store.db", clock=clock, owner=owner, integrity_key=INTEGRITY_KEY
        )

    return open_store


@pytest.fixture
def postgresql_store(postgresql_database: PostgresqlAddress) -> OpenStore:
    """A database of this test's own."""

    def open_store(clock: Clock, *, owner: str | None = None) -> AbstractAsyncContextManager[Store]:
        return PostgresqlStore.open(
            postgresql_database, clock=clock, owner=owner, integrity_key=INTEGRITY_KEY
        )

    return open_store


_STORES = ("sqlite_store", "postgresql_store")


@pytest.fixture(params=_STORES, ids=[name.removesuffix("_store") for name in _STORES])
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    """Every kind of store in turn."""
    store: OpenStore = request.getfixturevalue(request.param)
    return store


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()
