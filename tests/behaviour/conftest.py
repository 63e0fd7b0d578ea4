"""One world for each test, and every road to it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from est_protocol.secure_channel.policy import TlsVersion
from est_server.service import SystemClock
from est_server.stores.sqlite import SqliteStore
from tests.behaviour.roads import Road, coaps, https, in_process
from tests.behaviour.world import AuditRecords, World
from tests.lossy import LossyNetwork


@pytest.fixture
def audit() -> Iterator[AuditRecords]:
    """The audit trail, as far as the test has come."""
    logger, handler = logging.getLogger("est_server.audit"), AuditRecords()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
async def world(tmp_path: Path, audit: AuditRecords) -> AsyncIterator[World]:
    """A server without a transport."""
    database = tmp_path / "store.sqlite"
    async with SqliteStore.open(database, clock=SystemClock()) as store:
        world = World(store, database, audit)
        yield world
        await world.service.close()


ROADS: dict[str, Callable[[World], AbstractAsyncContextManager[Road]]] = {
    "in-process": in_process,
    "https-tls1.2": lambda world: https(world, TlsVersion.TLS1_2),
    "https-tls1.3": lambda world: https(world, TlsVersion.TLS1_3),
    "coaps-64": lambda world: coaps(world, block_size=64),
    "coaps-256": lambda world: coaps(world, block_size=256),
    "coaps-1024": lambda world: coaps(world, block_size=1024),
    "coaps-256-lossy": lambda world: coaps(
        world, block_size=256, network=LossyNetwork(0.2, seed=9148, from_handshake=False)
    ),
}


@pytest.fixture(params=ROADS)
async def road(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Road]:
    """Every road to the service."""
    async with ROADS[request.param](world) as road:
        yield road
