"""Stores that earlier versions sealed: they are sealed anew, and nothing is let in by that."""

from __future__ import annotations

from pathlib import Path

import pytest

from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_server.ledger_records import IssuanceTicket
from est_server.life_cycle import LifeCycleStep
from est_server.stores.copying import open_alone
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.postgresql import PostgresqlOptions
from est_server.stores.schema import MIGRATIONS
from est_server.stores.sealing import seal_store
from est_server.stores.seals import Seals
from est_server.stores.sqlite import SqliteOptions
from est_server.stores.store import Store
from tests.pki import PRESENT
from tests.server.ledger_values import (
    INTEGRITY_KEY,
    FakeClock,
    certificate,
    first_enrollment,
    listed,
    order,
    renewal,
)
from tests.server.old_stores import MADE, make_old_store
from tests.server.raw_database import RawDatabase, RawPostgresql, RawSqlite
from tests.server.tampering import begin, findings
from tests.server.test_tampered_counts import QUOTA, with_quota

OTHER_KEY = IntegrityKey(bytes(32))

#: Those that sealed anything, but recorded not what.
OLD = range(7, 14)


@pytest.fixture(params=["sqlite", "postgresql"])
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> RawDatabase:
    """A database without any tables."""
    if request.param == "sqlite":
        return RawSqlite(tmp_path / "store.db")
    return RawPostgresql(request.getfixturevalue("postgresql_server").make_database())


def seal(
    raw: RawDatabase, previous: IntegrityKey | None, key: IntegrityKey = INTEGRITY_KEY
) -> None:
    with open_alone(raw.location, SqliteOptions(), PostgresqlOptions(), Seals(key)) as store:
        seal_store(store.transaction, Seals(previous), PRESENT)
        store.commit()


async def assert_in_use(store: Store, clock: FakeClock) -> None:
    """What is in an old store is believed."""
    assert await findings(store) == []
    assert [secret.name for secret in await store.secrets()] == ["batch"]
    assert (await store.device_history("device-1"))[0].reason == "a certificate was issued"
    with pytest.raises(RequestRefused) as refused:
        await store.begin(first_enrollment(key="b"))
    assert refused.value.reason is RefusalReason.ALREADY_CLAIMED
    ticket = await begin(store, renewal(MADE.sha256))
    await store.complete(ticket, certificate("b"), now=clock.now())
    await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
    assert await store.find_claim("device-1", None) is None
    assert isinstance(await store.begin(first_enrollment(key="c")), IssuanceTicket)
    assert await findings(store) == []


@pytest.mark.parametrize("version", OLD)
async def test_what_an_earlier_version_sealed_is_sealed_anew(
    raw: RawDatabase, clock: FakeClock, version: int
) -> None:
    make_old_store(raw, version)
    with pytest.raises(ConfigurationError, match="devices seal --previous-key FILE"):
        async with raw.open(clock):
            pass
    seal(raw, INTEGRITY_KEY)
    async with raw.open(clock) as store:
        await assert_in_use(store, clock)


@pytest.mark.parametrize("version", OLD)
async def test_what_nobody_sealed_is_sealed(
    raw: RawDatabase, clock: FakeClock, version: int
) -> None:
    make_old_store(raw, version, is_sealed=False)
    seal(raw, None)
    async with raw.open(clock) as store:
        await assert_in_use(store, clock)


#: What is sealed since which version.
SEALED_SINCE = {
    "a device's row without a seal": (7, "UPDATE devices SET mac = NULL"),
    "another device": (7, 'UPDATE devices SET attributes = \'{"owner":"me"}\''),
    "another count of devices": (7, "UPDATE list_seals SET devices = 2"),
    "no journal": (9, "DELETE FROM journal"),
    "an entry without a seal": (9, "UPDATE journal SET mac = NULL WHERE number = 2"),
    "a secret without a seal": (10, "UPDATE secrets SET mac = NULL"),
    "another secret": (10, "UPDATE secrets SET max_uses = 9"),
    "no chains": (11, "DELETE FROM chained"),
    "no chain of counts": (11, "DELETE FROM chained WHERE chain = 'quota_counts'"),
}


@pytest.mark.parametrize(
    ("version", "edit"),
    [
        (version, edit)
        for version in OLD
        for edit in SEALED_SINCE
        if version >= SEALED_SINCE[edit][0]
    ],
)
async def test_what_that_version_sealed_has_to_have_its_seals(
    raw: RawDatabase, clock: FakeClock, version: int, edit: str
) -> None:
    make_old_store(raw, version)
    raw.execute(SEALED_SINCE[edit][1])
    with pytest.raises(RequestRefused) as refused:
        seal(raw, INTEGRITY_KEY)
    assert refused.value.reason is RefusalReason.RECORD_TAMPERED


async def test_a_seal_that_was_there_before_it_had_to_be_is_a_good_one(
    raw: RawDatabase, clock: FakeClock
) -> None:
    """A newer version may have written rows into a store that an older one sealed."""
    make_old_store(raw, 9)
    seal_of_nothing = bytes(32)
    with open_alone(raw.location, SqliteOptions(), PostgresqlOptions()) as store:
        store.commit()
    raw.execute("UPDATE secrets SET mac = ?", (seal_of_nothing,))
    with pytest.raises(RequestRefused, match="record-tampered"):
        seal(raw, INTEGRITY_KEY)


#: Tables that have been sealed since the version is on record, and what to take a seal off.
UNSEALED = {
    "issuances": "UPDATE issuances SET mac = NULL",
    "claims": "UPDATE claims SET mac = NULL",
    "revocations": "UPDATE revocations SET mac = NULL",
    "device_history": "UPDATE device_history SET mac = NULL",
    "a claim": "DELETE FROM claims",
}


@pytest.mark.parametrize("sql", UNSEALED.values(), ids=UNSEALED)
@pytest.mark.parametrize("key", [INTEGRITY_KEY, OTHER_KEY], ids=["same key", "other key"])
@pytest.mark.parametrize(
    "record",
    ["version = version", "version = NULL, mac = NULL", "version = 9", "version = 13"],
    ids=["on record", "record gone", "record of 9", "record of 13"],
)
async def test_nobody_takes_seals_off(
    raw: RawDatabase, clock: FakeClock, sql: str, record: str, key: IntegrityKey
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        ticket = await begin(store, first_enrollment())
        issued = await store.complete(ticket, certificate(), now=clock.now())
        await store.revoke_certificate(issued.sha256, actor="a", reason="b", now=clock.now())
    assert raw.execute("SELECT version FROM sealing") == [(len(MIGRATIONS),)]
    raw.execute(sql)
    raw.execute(f"UPDATE sealing SET {record}")
    if record != "version = version":
        with pytest.raises(ConfigurationError):
            async with raw.open(clock):
                pass
    with pytest.raises(RequestRefused, match="record-tampered"):
        seal(raw, INTEGRITY_KEY, key)


async def test_a_store_is_not_made_older_than_it_is(raw: RawDatabase, clock: FakeClock) -> None:
    """Whatever of the younger tables is stripped: the devices have seals of this version."""
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
    for sql in (
        "DELETE FROM journal",
        "DELETE FROM chained",
        "UPDATE sealing SET version = NULL, mac = NULL, sealed_at = 0",
        "INSERT INTO secrets (name, hash, max_uses, added_at) VALUES ('mine', 'x', 9, 0)",
    ):
        raw.execute(sql)
    with pytest.raises(RequestRefused) as refused:
        seal(raw, INTEGRITY_KEY)
    assert refused.value.detail == "device device-1: the row is not what a server wrote"


async def test_many_rows_are_sealed_page_by_page(
    raw: RawDatabase, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("est_server.stores.sealing._PAGE", 2)
    async with raw.open(clock, OTHER_KEY) as store:
        await store.add_devices([listed(n) for n in range(5)], now=clock.now())
        for number in range(5):
            quota = type(QUOTA)(f"list:{number}", 1)
            ticket = await begin(store, with_quota(number, quota))
            await store.complete(ticket, certificate(), now=clock.now())
    seal(raw, OTHER_KEY)
    async with raw.open(clock) as store:
        assert await findings(store) == []
    assert raw.execute("SELECT count(*) FROM issuances WHERE mac IS NULL") == [(0,)]
