"""Everything of one store in another, of either kind."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from est_protocol.errors import ConfigurationError, EstError, RequestRefused
from est_server.cli import main
from est_server.ledger_records import IssuanceTicket
from est_server.stores.copying import copy_store
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.opening import Location, open_store
from est_server.stores.postgresql import PostgresqlAddress, PostgresqlOptions
from est_server.stores.postgresql.database import prepare
from est_server.stores.schema import MIGRATIONS
from est_server.stores.sqlite import SqliteOptions
from est_server.stores.store import Store
from est_server.stores.tables import tables
from est_server.user_credentials import EnrollmentSecret
from tests.server.ledger_values import (
    INTEGRITY_KEY,
    FakeClock,
    certificate,
    first_enrollment,
    listed,
    refusal,
)

OTHER = {"sqlite": "postgresql", "postgresql": "sqlite"}

MakeLocation = Callable[[str], Location]


@pytest.fixture
def location(request: pytest.FixtureRequest, tmp_path: Path) -> MakeLocation:
    """Where a store of each kind may be; nothing is there yet."""

    def make(kind: str) -> Location:
        if kind == "sqlite":
            return tmp_path / "store.db"
        address: PostgresqlAddress = request.getfixturevalue("postgresql_database")
        return address

    return make


def copy(source: Location, target: Location) -> dict[str, int]:
    return copy_store(
        source,
        target,
        sqlite=SqliteOptions(),
        postgresql=PostgresqlOptions(lock_timeout=timedelta(milliseconds=300)),
        progress=lambda table, count: None,
    )


def contents(location: Location) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, past the store."""
    if isinstance(location, Path):
        with closing(sqlite3.connect(location)) as file:
            return {table.name: file.execute(table.select).fetchall() for table in tables()}
    with psycopg.connect(location.url) as db:
        return {table.name: db.execute(table.select.encode()).fetchall() for table in tables()}


async def fill(store: Store, clock: FakeClock) -> None:
    """Something of everything."""
    await store.add_devices([listed(1, model="x"), listed(2), listed(3)], now=clock.now())
    await store.record_refusal(refusal("\0 and \udcff"))
    secret = await store.add_secret(EnrollmentSecret("s", "hash", max_uses=2), now=clock.now())
    used = await store.begin(replace(first_enrollment("device-2"), secret=secret.number))
    assert isinstance(used, IssuanceTicket)
    issued = await store.complete(used, certificate(), now=clock.now())
    await store.revoke_certificate(issued.sha256, actor="a", reason="b", now=clock.now())
    open_attempt = await store.begin(first_enrollment("device-1", label="vpn"))
    assert isinstance(open_attempt, IssuanceTicket)
    given_up = await store.begin(first_enrollment("device-3"))
    assert isinstance(given_up, IssuanceTicket)
    await store.abandon(given_up, reason="test", now=clock.now())


@pytest.mark.parametrize("kind", OTHER)
async def test_seals_arrive(kind: str, location: MakeLocation, clock: FakeClock) -> None:
    source, target = location(kind), location(OTHER[kind])
    async with open_store(source, clock=clock, integrity_key=INTEGRITY_KEY) as store:
        await fill(store, clock)
    copy(source, target)
    async with open_store(target, clock=clock, integrity_key=INTEGRITY_KEY) as store:
        findings: list[str] = []
        assert await store.verify(report=findings.append) == 0, findings
        assert await store.device_history("device-2") != []
        with pytest.raises(RequestRefused, match="already-claimed"):
            await store.begin(first_enrollment("device-2", key="b"))


@pytest.mark.parametrize("kind", OTHER)
async def test_everything_arrives(kind: str, location: MakeLocation, clock: FakeClock) -> None:
    source, target = location(kind), location(OTHER[kind])
    async with open_store(source, clock=clock) as store:
        await fill(store, clock)
    before = contents(source)
    counts = copy(source, target)
    assert contents(target) == contents(source) == before
    assert counts == {name: len(rows) for name, rows in before.items()}
    assert counts["devices"] == 3
    assert counts["issuances"] == 3
    assert counts["revocations"] == 1
    async with open_store(target, clock=clock) as store:
        begun = await store.begin(first_enrollment("device-3"))
        assert isinstance(begun, IssuanceTicket)
        assert begun.number == 4
        # The numbers of removed rows do not come back either.
        await store.remove_secret("s")
        added = await store.add_secret(EnrollmentSecret("s", "hash"), now=clock.now())
        assert added.number == 2


async def test_there_and_back_again(
    location: MakeLocation, clock: FakeClock, tmp_path: Path
) -> None:
    first, second, third = location("sqlite"), location("postgresql"), tmp_path / "third.db"
    async with open_store(first, clock=clock) as store:
        await fill(store, clock)
    copy(first, second)
    copy(second, third)
    assert contents(third) == contents(first)


@pytest.mark.parametrize("kind", OTHER)
async def test_a_store_that_holds_something_is_left_alone(
    kind: str, location: MakeLocation, clock: FakeClock
) -> None:
    source, target = location(kind), location(OTHER[kind])
    for place, device in ((source, 1), (target, 2)):
        async with open_store(place, clock=clock) as store:
            await store.add_devices([listed(device)], now=clock.now())
    before = contents(target)
    with pytest.raises(ConfigurationError, match="holds something already"):
        copy(source, target)
    assert contents(target) == before


@pytest.mark.parametrize("kind", OTHER)
async def test_a_store_that_is_served_is_not_copied(
    kind: str, location: MakeLocation, clock: FakeClock
) -> None:
    source, target = location(kind), location(OTHER[kind])
    for place in (source, target):
        async with open_store(place, clock=clock, serves=True) as store:
            await store.record_refusal(refusal())
            with pytest.raises(ConfigurationError, match=r"a server has .* open; stop it first"):
                copy(source, target)


async def test_a_store_on_postgresql_is_not_served_while_it_is_copied(
    postgresql_database: PostgresqlAddress, clock: FakeClock, tmp_path: Path
) -> None:
    async with open_store(postgresql_database, clock=clock) as store:
        await store.add_devices([listed(1)], now=clock.now())

    def serve(table: str, count: int) -> None:
        with pytest.raises(ConfigurationError, match="it is being copied"):
            prepare(postgresql_database, PostgresqlOptions())

    copy_store(
        postgresql_database,
        tmp_path / "store.db",
        sqlite=SqliteOptions(),
        postgresql=PostgresqlOptions(),
        progress=serve,
    )
    async with open_store(postgresql_database, clock=clock) as store:
        assert await store.find_by_udid("device-1") is not None


@pytest.mark.parametrize("kind", OTHER)
async def test_a_copy_that_fails_copies_nothing(
    kind: str, location: MakeLocation, clock: FakeClock
) -> None:
    source, target = location(kind), location(OTHER[kind])
    async with open_store(source, clock=clock) as store:
        await fill(store, clock)
    async with open_store(target, clock=clock):
        pass
    # After the devices and before the claims.
    if isinstance(target, Path):
        with closing(sqlite3.connect(target)) as file:
            file.executescript(
                "CREATE TRIGGER no BEFORE INSERT ON claims BEGIN SELECT raise(ABORT, 'no'); END"
            )
    else:
        with psycopg.connect(target.url) as db:
            db.execute("ALTER TABLE claims ADD CONSTRAINT no CHECK (device = 'nobody')")
    try:
        with pytest.raises(EstError, match="no"):
            copy(source, target)
        assert not any(contents(target).values())
    finally:
        if isinstance(target, PostgresqlAddress):
            with psycopg.connect(target.url) as db:
                db.execute("ALTER TABLE claims DROP CONSTRAINT no")


def test_a_store_is_not_copied_onto_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the store itself"):
        copy(tmp_path / "store.db", tmp_path / "store.db")


def test_tables_come_after_those_that_they_refer_to() -> None:
    names = [table.name for table in tables()]
    assert names.index("issuances") < names.index("claims")
    assert names.index("devices") < names.index("device_history")
    assert "migrations" not in names
    created = [text for step in MIGRATIONS for text in step.statements if "CREATE TABLE" in text]
    assert len(names) == len(created) - 1


async def test_the_command(
    tmp_path: Path,
    postgresql_database: PostgresqlAddress,
    clock: FakeClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        await asyncio.to_thread(main, ["init", str(tmp_path / "est"), "--host", "localhost"]) == 0
    )
    config = tmp_path / "est" / "est-server.toml"
    store_file = next((tmp_path / "est").glob("*.sqlite"))
    key = IntegrityKey.read(tmp_path / "est" / "integrity.key")
    async with open_store(store_file, clock=clock, integrity_key=key) as store:
        await store.add_devices([listed(1)], now=clock.now())
    capsys.readouterr()
    arguments = ["store", "copy", "--config", str(config), "--to"]
    assert main([*arguments, postgresql_database.url]) == 0
    said = capsys.readouterr()
    assert "devices: 1\n" in said.err
    assert said.out == f"copied 7 rows from {store_file} to {postgresql_database}\n"
    assert main([*arguments, postgresql_database.url]) == 2
    assert "holds something already" in capsys.readouterr().err
    assert main([*arguments, "mysql://est:hunter2@localhost/est"]) == 2
    assert "hunter2" not in capsys.readouterr().err
