"""The stores that must keep the contract of registry and ledger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest

from est_server.interfaces import Clock, DeviceRegistry, EnrollmentLedger, LedgerAdministration
from est_server.revocations import RevocationRegistry
from est_server.stores.sqlite import SqliteStore
from tests.server.ledger_values import FakeClock


class Store(DeviceRegistry, EnrollmentLedger, LedgerAdministration, RevocationRegistry, Protocol):
    """All that a store does."""


class OpenStore(Protocol):
    """Opens the one database of a test; again for another process's view of it."""

    def __call__(
        self, clock: Clock, *, owner: str | None = None
    ) -> AbstractAsyncContextManager[Store]: ...


def _sqlite(directory: Path) -> OpenStore:
    def open_store(clock: Clock, *, owner: str | None = None) -> AbstractAsyncContextManager[Store]:
        return SqliteStore.open(directory / "store.db", clock=clock, owner=owner)

    return open_store


_STORES: dict[str, Callable[[Path], OpenStore]] = {"sqlite": _sqlite}


@pytest.fixture(params=sorted(_STORES))
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Every kind of store in turn."""
    return _STORES[request.param](tmp_path)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()
