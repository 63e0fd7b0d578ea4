"""Somebody writes the database past the server: what is noticed where it is read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.device_records import DeviceState, ListRow
from est_server.ledger_records import IssuanceTicket
from est_server.life_cycle import LifeCycleStep
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.schema import MIGRATIONS
from est_server.stores.sqlite import SqliteOptions
from est_server.stores.sqlite.database import prepare
from est_server.stores.store import Store
from tests.server.ledger_values import (
    INTEGRITY_KEY,
    FakeClock,
    certificate,
    describe,
    digest,
    first_enrollment,
    listed,
    order,
    refusal,
    renewal,
)
from tests.server.raw_database import RawDatabase, RawSqlite, raw
from tests.server.tampering import seal

__all__ = ["raw"]

OTHER_KEY = IntegrityKey(bytes(32))


async def fill(store: Store, clock: FakeClock) -> None:
    """Two devices with a list, one without."""
    rows = [ListRow.of(n, listed(n, model="x", owner="acme")) for n in (1, 2)]
    await store.import_devices(rows, describe, now=clock.now())
    await store.add_devices([listed(3)], now=clock.now())


async def enroll(store: Store, clock: FakeClock, device: str = "device-1") -> bytes:
    ticket = await store.begin(first_enrollment(device))
    assert isinstance(ticket, IssuanceTicket)
    return (await store.complete(ticket, certificate(), now=clock.now())).sha256


async def assert_noticed(store: Store, clock: FakeClock, device: str = "device-1") -> None:
    """A tampered device is refused wherever it is read."""
    number = int(device.removeprefix("device-"))
    attempts = (
        lambda: store.find_by_key(digest(f"key {number}")),
        lambda: store.find_by_udid(device),
        lambda: store.begin(first_enrollment(device)),
        lambda: store.check_standing(certificate=None, keys=[digest(f"key {number}")]),
        lambda: store.change_device(order(LifeCycleStep.SUSPEND, device), now=clock.now()),
        lambda: store.add_devices([listed(number)], now=clock.now()),
    )
    for attempt in attempts:
        with pytest.raises(AlarmingRefusal) as refused:
            await attempt()
        assert refused.value.reason is RefusalReason.RECORD_TAMPERED
        assert refused.value.alarm is AlarmKind.RECORD_TAMPERED
        assert refused.value.device == device


EDITS = {
    "another key": "UPDATE devices SET spki_sha256 = ? WHERE udid = 'device-2'",
    "other attributes": "UPDATE devices SET attributes = '{}' WHERE udid = 'device-1'",
    "another state": "UPDATE devices SET state = 'enrolled' WHERE udid = 'device-1'",
    "another owner": "UPDATE devices SET owner = 'me' WHERE udid = 'device-1'",
    "another list": "UPDATE devices SET list = NULL WHERE udid = 'device-1'",
    "another time": "UPDATE devices SET changed_at = changed_at + 1 WHERE udid = 'device-1'",
    "another place in the history": "UPDATE devices SET history = 7 WHERE udid = 'device-1'",
    "no seal": "UPDATE devices SET mac = NULL WHERE udid = 'device-1'",
    "half a seal": "UPDATE devices SET mac = substr(mac, 1, 16) WHERE udid = 'device-1'",
    "a made-up history": "INSERT INTO device_history "
    "(udid, from_state, to_state, actor, reason, changed_at) "
    "VALUES ('device-1', 'listed', 'enrolled', 'me', '', 0)",
}


@pytest.mark.parametrize("sql", EDITS.values(), ids=EDITS)
async def test_an_edited_row_is_noticed(raw: RawDatabase, clock: FakeClock, sql: str) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        device = "device-1"
        if "?" in sql:
            raw.execute(sql, (digest("key 8"),))
            with pytest.raises(AlarmingRefusal):
                await store.find_by_key(digest("key 8"))
            return
        raw.execute(sql)
        await assert_noticed(store, clock, device)
        # Others are served.
        assert await store.find_by_udid("device-2") is not None


async def test_an_added_row_is_noticed(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        raw.execute(
            "INSERT INTO devices (udid, spki_sha256, attributes, state, changed_at, list, mac) "
            "SELECT 'device-9', ?, attributes, state, changed_at, list, mac FROM devices "
            "WHERE udid = 'device-1'",
            (digest("key 9"),),
        )
        await assert_noticed(store, clock, "device-9")


async def test_swapped_seals_and_swapped_names_are_noticed(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        [(one,), (two,)] = raw.execute("SELECT mac FROM devices WHERE list = 1 ORDER BY udid")
        raw.execute("UPDATE devices SET mac = ? WHERE udid = 'device-1'", (two,))
        raw.execute("UPDATE devices SET mac = ? WHERE udid = 'device-2'", (one,))
        await assert_noticed(store, clock, "device-1")
        await assert_noticed(store, clock, "device-2")


async def test_an_old_row_is_noticed(raw: RawDatabase, clock: FakeClock) -> None:
    columns = "attributes, state, changed_at, list, owner, history, mac"
    async with raw.open(clock) as store:
        await fill(store, clock)
        [old] = raw.execute(f"SELECT {columns} FROM devices WHERE udid = 'device-1'")
        await store.change_device(order(LifeCycleStep.REVOKE), now=clock.now())
        places = ", ".join(f"{column} = ?" for column in columns.split(", "))
        raw.execute(f"UPDATE devices SET {places} WHERE udid = 'device-1'", old)
        await assert_noticed(store, clock)
        # Nor does it help to take the history away in part.
        await store.change_device(order(LifeCycleStep.SUSPEND, "device-2"), now=clock.now())
        await store.change_device(order(LifeCycleStep.REVOKE, "device-2"), now=clock.now())
        raw.execute(
            "DELETE FROM device_history WHERE id = "
            "(SELECT max(id) FROM device_history WHERE udid = 'device-2')"
        )
        await assert_noticed(store, clock, "device-2")


async def test_a_row_that_was_deleted_and_imported_again_is_noticed(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        await store.change_device(order(LifeCycleStep.REVOKE), now=clock.now())
        raw.execute("DELETE FROM devices WHERE udid = 'device-1'")
        rows = [ListRow.of(1, listed(1, model="x", owner="acme"))]
        await store.import_devices(rows, describe, now=clock.now())
        await assert_noticed(store, clock)


@pytest.mark.parametrize("covered", ["", "device_history", "journal"])
async def test_a_device_that_was_shut_out_and_deleted_is_no_unlisted_one(
    raw: RawDatabase, clock: FakeClock, covered: str
) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        sha256 = await enroll(store, clock)
        unlisted = await enroll(store, clock, "nobody's")
        await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
        await store.record_refusal(refusal())
        raw.execute("DELETE FROM devices WHERE udid = 'device-1'")
        if covered:
            column = "device" if covered == "journal" else "udid"
            raw.execute(f"DELETE FROM {covered} WHERE {column} = 'device-1'")
        attempts = (
            lambda: store.check_standing(certificate=sha256, keys=[]),
            lambda: store.begin(renewal(sha256)),
            lambda: store.begin(first_enrollment(label="vpn")),
            lambda: store.begin(replace(first_enrollment("new"), client_certificate=sha256)),
        )
        for attempt in attempts:
            with pytest.raises(AlarmingRefusal) as refused:
                await attempt()
            assert refused.value.alarm is AlarmKind.RECORD_TAMPERED
            assert refused.value.device == "device-1"
        # Who never was in the registry is served.
        await store.check_standing(certificate=unlisted, keys=[])
        assert isinstance(await store.begin(renewal(unlisted, "nobody's")), IssuanceTicket)


async def test_a_claim_that_was_made_free_is_noticed(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        for device in ("device-1", "nobody's"):
            await enroll(store, clock, device)
            raw.execute("DELETE FROM claims WHERE device = ?", (device,))
            with pytest.raises(AlarmingRefusal) as refused:
                await store.begin(first_enrollment(device, key="b"))
            assert refused.value.alarm is AlarmKind.RECORD_TAMPERED
            assert refused.value.device == device


async def test_a_revocation_that_was_undone_is_noticed(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        sha256 = await enroll(store, clock)
        await store.check_standing(certificate=sha256, keys=[])
        await store.revoke_certificate(sha256, actor="ann", reason="lost", now=clock.now())
        raw.execute("UPDATE issuances SET state = 'active'")
        raw.execute("DELETE FROM revocations")
        with pytest.raises(AlarmingRefusal) as refused:
            await store.check_standing(certificate=sha256, keys=[])
        assert refused.value.alarm is AlarmKind.RECORD_TAMPERED


LIST_EDITS = {
    "count": "UPDATE lists SET devices = devices + 1",
    "signer": "UPDATE lists SET signer = 'me'",
    "octets": "UPDATE lists SET sha256 = zeroblob(32)",
    "time": "UPDATE lists SET imported_at = 0",
    "sealed count": "UPDATE list_seals SET devices = 9 WHERE list = 1",
    "sealed sum": "UPDATE list_seals SET total = (SELECT total FROM list_seals WHERE list = 0) "
    "WHERE list = 1",
    "no seal": "DELETE FROM list_seals WHERE list = 1",
}


@pytest.mark.parametrize("sql", LIST_EDITS.values(), ids=LIST_EDITS)
async def test_an_edited_list_is_noticed(raw: RawDatabase, clock: FakeClock, sql: str) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        assert [known.devices for known in await store.lists()] == [2]
        raw.execute(sql.replace("zeroblob(32)", "?"), (bytes(32),) if "zeroblob" in sql else ())
        with pytest.raises(RequestRefused, match="record-tampered"):
            await store.lists()


async def test_a_store_opens_with_its_own_key_only(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
    with pytest.raises(ConfigurationError, match="another integrity key"):
        async with raw.open(clock, OTHER_KEY):
            pass
    with pytest.raises(ConfigurationError, match="no integrity key is configured"):
        async with raw.open(clock, None):
            pass
    # Whoever takes the mark away does not make the rows anybody's.
    raw.execute("DELETE FROM sealing")
    for key in (INTEGRITY_KEY, OTHER_KEY):
        with pytest.raises(ConfigurationError, match="is gone, which no server removes"):
            async with raw.open(clock, key):
                pass
    with pytest.raises(ConfigurationError, match="is gone, which no server removes"):
        seal(raw, OTHER_KEY, None)
    # Unless the configuration, which whoever writes the database cannot, does without.
    async with raw.open(clock, None) as store:
        assert await store.find_by_udid("device-1") is not None


async def test_rows_are_sealed_when_asked_and_not_before(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock, None) as store:
        await fill(store, clock)
        await enroll(store, clock)
    with pytest.raises(ConfigurationError, match="est-server devices seal"):
        async with raw.open(clock):
            pass
    assert seal(raw, INTEGRITY_KEY, None) == 3
    async with raw.open(clock) as store:
        device = await store.find_by_udid("device-1")
        assert device is not None
        assert device.state is DeviceState.ENROLLED
        assert [known.devices for known in await store.lists()] == [2]
        await store.change_device(order(LifeCycleStep.REVOKE), now=clock.now())
    with pytest.raises(ConfigurationError, match="sealed with another key"):
        seal(raw, OTHER_KEY, None)


async def test_a_key_is_exchanged_for_another(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        await enroll(store, clock)
    assert seal(raw, OTHER_KEY, INTEGRITY_KEY) == 3
    with pytest.raises(ConfigurationError):
        async with raw.open(clock):
            pass
    async with raw.open(clock, OTHER_KEY) as store:
        assert len([device async for device in store.devices()]) == 3
        assert [known.devices for known in await store.lists()] == [2]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE devices SET state = 'listed' WHERE udid = 'device-1'",
        "DELETE FROM devices WHERE udid = 'device-2'",
        "UPDATE lists SET signer = 'me'",
    ],
)
async def test_a_key_is_not_exchanged_where_a_row_is_wrong(
    raw: RawDatabase, clock: FakeClock, sql: str
) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        await enroll(store, clock)
    raw.execute(sql)
    with pytest.raises(RequestRefused, match="record-tampered"):
        seal(raw, OTHER_KEY, INTEGRITY_KEY)
    assert raw.execute("SELECT key_fingerprint FROM sealing") == [(INTEGRITY_KEY.fingerprint,)]


def test_a_key_file_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "integrity.key"
    key = IntegrityKey.generate()
    key.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert IntegrityKey.read(path) == key
    assert key.octets.hex() not in repr(key)
    with pytest.raises(FileExistsError):
        key.write(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="0640"):
        IntegrityKey.read(path)
    for content in (b"", b"00" * 31, b"00" * 33, b"zz" * 32, b"\xff"):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
            IntegrityKey.read(path)
    with pytest.raises(ConfigurationError, match="No such file"):
        IntegrityKey.read(tmp_path / "nowhere")


async def test_a_store_of_an_earlier_schema_is_migrated_and_sealed(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "old.db"
    prepare(path, SqliteOptions(), MIGRATIONS[:5])
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany(
            "INSERT INTO devices (udid, spki_sha256, attributes, state, changed_at, list) "
            "VALUES (?, ?, '{}', ?, 0, 1)",
            [(f"device-{n}", digest(f"key {n}"), state) for n, state in STATES.items()],
        )
        db.execute(
            "INSERT INTO lists (list_id, sha256, signer, imported_at, devices) "
            "VALUES ('list-1', ?, 'acme', 0, 2)",
            (digest("octets of list-1"),),
        )
        db.execute(
            "INSERT INTO device_history (udid, from_state, to_state, actor, reason, changed_at) "
            "VALUES ('device-2', 'listed', 'suspended', 'ann', 'lost', 0)"
        )
    database = RawSqlite(path)
    with pytest.raises(ConfigurationError, match="est-server devices seal"):
        async with database.open(clock):
            pass
    assert seal(database, INTEGRITY_KEY, None) == 2
    async with database.open(clock) as store:
        findings: list[str] = []
        assert await store.verify(report=findings.append) == 0, findings
        await store.change_device(order(LifeCycleStep.RESUME, "device-2"), now=clock.now())
        await enroll(store, clock, "device-1")
        assert await store.verify(report=findings.append) == 0, findings


STATES = {1: "listed", 2: "suspended"}
