"""What is particular to the SQLite store: its file, its queue, and how it meets trouble."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_server.device_records import DeviceState
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate
from est_server.life_cycle import LifeCycleStep
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.options import StoreOptions
from est_server.stores.rules import registry
from est_server.stores.schema import MIGRATIONS, Migration
from est_server.stores.sqlite import SqliteOptions, SqliteStore, database
from est_server.stores.sqlite.database import APPLICATION_ID, prepare
from est_server.stores.sqlite.engine import LOOK_EVERY
from est_server.stores.transaction import Transaction
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    describe,
    first_enrollment,
    listed,
    order,
    refusal,
    renewal,
)

#: A step that is not in the program yet.
_COLOURS = Migration("colours", ("ALTER TABLE devices ADD COLUMN colour TEXT",))

KEY = IntegrityKey(bytes(range(32)))

#: Reads one row, from the end of the table.
LATEST = {"SELECT number, hash, mac FROM journal ORDER BY number DESC LIMIT 1"}
#: A subquery of one row.
SHORT_SCANS = {"SCAN c"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process is in the middle of a transaction."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield


# The file


async def test_its_files_are_private(path: Path, clock: FakeClock) -> None:
    mask = os.umask(0)
    try:
        async with SqliteStore.open(path, clock=clock) as store:
            await store.add_devices([listed(1)], now=clock.now())
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(mask)
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    prepare(path, SqliteOptions())
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        prepare(path, SqliteOptions())


async def test_no_statement_of_an_enrollment_goes_through_a_table(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: set[str] = set()
    connect = database.connect

    def watched(*arguments: Any, **options: Any) -> database.Connection:
        db = connect(*arguments, **options)
        db.set_trace_callback(statements.add)
        return db

    monkeypatch.setattr(database, "connect", watched)
    async with SqliteStore.open(path, clock=clock, integrity_key=KEY) as store:
        await store.add_devices([listed(1)], now=clock.now())
        statements.clear()
        await store.find_by_key(listed(1).spki_sha256)
        first = await issue(store, first_enrollment(listed(1).udid), "a")
        await store.check_standing(certificate=first.sha256, keys=[first.spki_sha256])
        await issue(store, renewal(first.sha256, listed(1).udid), "b")
    plans = [
        step
        for sql in sorted(statements)
        if sql.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")) and sql not in LATEST
        for *_, step in query(path, f"EXPLAIN QUERY PLAN {sql}")
    ]
    assert any("issuances USING" in step for step in plans)
    assert [step for step in plans if step.startswith("SCAN") and step not in SHORT_SCANS] == []
    of_device = [step for step in plans if "INDEX journal_of_device" in step]
    assert of_device
    assert all("(device=? AND event=?" in step for step in of_device)


async def issue(store: SqliteStore, intent: EnrollmentIntent, key: str) -> IssuedCertificate:
    issued = await store.issue(intent, lambda: certificate(key), now=intent.requested_at)
    assert isinstance(issued, IssuedCertificate)
    return issued


async def test_every_connection_flushes_before_it_answers(path: Path, clock: FakeClock) -> None:
    async with SqliteStore.open(path, clock=clock) as store:
        pragmas = await store._writer.submit(
            lambda db: [
                db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        )
    assert pragmas == ["wal", 2, 1]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("PRAGMA application_id = 1", "another program"),
        ("PRAGMA user_version = 1", "another program"),
        ("CREATE TABLE t (x)", "another program"),
        (f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 99", "version 99"),
    ],
)
def test_a_database_that_is_foreign_or_newer_is_refused_and_left_alone(
    path: Path, setting: str, words: str
) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(setting)
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=words):
        prepare(path, SqliteOptions())
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"udid,public_key\n" * 100)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="damaged or no store"):
        prepare(path, SqliteOptions())


def test_a_damaged_database_is_refused(path: Path) -> None:
    prepare(path, SqliteOptions())
    ((page,),) = query(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'refusals'")
    octets = bytearray(path.read_bytes())
    octets[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    path.write_bytes(octets)
    with pytest.raises(ConfigurationError, match="damaged"):
        prepare(path, SqliteOptions())
    prepare(path, SqliteOptions(integrity_check=False))


@pytest.mark.parametrize("name", ["missing/store.db", "."])
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigurationError, match="cannot open the store"):
        prepare(tmp_path / name, SqliteOptions())


async def test_opening_says_what_is_wrong(path: Path, clock: FakeClock) -> None:
    prepare(path, SqliteOptions(), (*MIGRATIONS, _COLOURS))
    with pytest.raises(ConfigurationError, match="run the newer program"):
        async with SqliteStore.open(path, clock=clock):
            pass


async def test_two_processes_may_make_the_file_at_once(path: Path) -> None:
    await asyncio.gather(*(asyncio.to_thread(prepare, path, SqliteOptions()) for _ in range(8)))
    assert query(path, "SELECT version FROM migrations") == [
        (number,) for number in range(1, len(MIGRATIONS) + 1)
    ]


# Migrations


@pytest.mark.parametrize("version", range(len(MIGRATIONS) + 1))
async def test_every_older_version_becomes_the_newest(
    path: Path, clock: FakeClock, version: int
) -> None:
    prepare(path, SqliteOptions(), MIGRATIONS[:version])
    async with SqliteStore.open(path, clock=clock) as store:
        assert isinstance(await store.begin(first_enrollment()), IssuanceTicket)
    assert query(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]


async def test_a_migration_keeps_what_is_there(path: Path, clock: FakeClock) -> None:
    async with SqliteStore.open(path, clock=clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
    prepare(path, SqliteOptions(), (*MIGRATIONS, _COLOURS))
    assert query(path, "SELECT udid, colour FROM devices") == [("device-1", None)]


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    prepare(path, SqliteOptions())
    before = query(path, "SELECT sql FROM sqlite_schema")
    step = Migration("broken", ("CREATE TABLE fine (x)", "CREATE TABLE devices (x)"))
    with pytest.raises(ConfigurationError, match="devices already exists"):
        prepare(path, SqliteOptions(), (*MIGRATIONS, step))
    assert query(path, "SELECT sql FROM sqlite_schema") == before
    prepare(path, SqliteOptions())


# The queue

on_loop_or_in_thread = pytest.mark.parametrize("brief", [True, False])


async def test_writes_beyond_the_queue_are_refused(path: Path, clock: FakeClock) -> None:
    options = StoreOptions(max_waiting_writes=10)
    patient = SqliteOptions(busy_timeout=timedelta(seconds=30))
    async with SqliteStore.open(path, clock=clock, options=options, sqlite=patient) as store:
        with locked(path):
            # The writer may have taken the first few out of the queue before it meets the lock.
            flood = [
                asyncio.create_task(store.begin(first_enrollment(f"d-{number}")))
                for number in range(40)
            ]
            _, waiting = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
            refused = [task for task in flood if task not in waiting]
            assert len(waiting) >= 10
        for task in refused:
            error = task.exception()
            assert isinstance(error, RequestRefused)
            assert error.reason is RefusalReason.STORE_UNAVAILABLE
            assert error.retry_after
        results = await asyncio.gather(*waiting)
        assert all(isinstance(result, IssuanceTicket) for result in results)


async def test_a_flood_of_refusals_leaves_room_for_enrollments(
    path: Path, clock: FakeClock
) -> None:
    options = StoreOptions(max_waiting_writes=20)
    patient = SqliteOptions(busy_timeout=timedelta(seconds=30))
    async with SqliteStore.open(path, clock=clock, options=options, sqlite=patient) as store:
        with locked(path):
            flood = [asyncio.create_task(store.record_refusal(refusal())) for _ in range(60)]
            await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
            begun = asyncio.create_task(store.begin(first_enrollment()))
            await asyncio.sleep(0)
            assert not begun.done()
        assert isinstance(await begun, IssuanceTicket)
        await asyncio.gather(*flood, return_exceptions=True)


async def test_closing_carries_out_what_waits(path: Path, clock: FakeClock) -> None:
    async with SqliteStore.open(path, clock=clock) as store:
        with locked(path):
            waiting = [
                asyncio.create_task(store.begin(first_enrollment(f"d-{number}")))
                for number in range(30)
            ]
            await asyncio.sleep(0)
    results = await asyncio.gather(*waiting)
    assert all(isinstance(result, IssuanceTicket) for result in results)
    assert query(path, "SELECT count(*) FROM claims") == [(30,)]
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


async def test_a_closed_store_refuses_writes(path: Path, clock: FakeClock) -> None:
    async with SqliteStore.open(path, clock=clock) as store:
        pass
    with pytest.raises(RequestRefused) as caught:
        await store.begin(first_enrollment())
    assert caught.value.reason is RefusalReason.STORE_UNAVAILABLE


@on_loop_or_in_thread
async def test_a_write_that_fails_does_not_spoil_its_group(
    path: Path, clock: FakeClock, brief: bool
) -> None:
    def add(number: int) -> Callable[[Transaction], object]:
        return lambda db: registry.add_devices(db, [listed(number)], clock.now())

    def broken(db: Transaction) -> None:
        db.execute("DELETE FROM devices")
        raise ZeroDivisionError

    async with SqliteStore.open(path, clock=clock) as store:
        await store.add_devices([listed(0)], now=clock.now())
        outcomes = await asyncio.gather(
            *(store._writer.submit(write, brief=brief) for write in (add(1), broken, add(2))),
            return_exceptions=True,
        )
        assert isinstance(outcomes[1], ZeroDivisionError)
        devices = [device.udid async for device in store.devices()]
        assert devices == ["device-0", "device-1", "device-2"]


async def test_only_brief_writes_run_on_the_event_loop(path: Path, clock: FakeClock) -> None:
    def where(db: Transaction) -> str:
        return threading.current_thread().name

    here = threading.current_thread().name
    async with SqliteStore.open(path, clock=clock) as store:
        # The very first one connects.
        assert await store._writer.submit(where, brief=True) == "store-writer"
        assert await store._writer.submit(where, brief=True) == here
        assert await store._writer.submit(where) == "store-writer"
        with locked(path):
            waiting = asyncio.create_task(store._writer.submit(where, brief=True))
            await asyncio.sleep(0.01)
            assert not waiting.done()
        assert await waiting == "store-writer"
        assert await store._writer.submit(where, brief=True) == here


async def test_writes_do_not_keep_the_event_loop_for_long(path: Path, clock: FakeClock) -> None:
    def slow(db: Transaction) -> None:
        time.sleep(0.002)

    options = StoreOptions(max_pause=timedelta(milliseconds=3))
    async with SqliteStore.open(path, clock=clock, options=options) as store:
        await store.add_devices([listed(0)], now=clock.now())
        writes = [asyncio.create_task(store._writer.submit(slow, brief=True)) for _ in range(10)]
        await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        assert 1 <= sum(write.done() for write in writes) <= 2
        await asyncio.gather(*writes)


async def test_a_caller_that_is_cancelled_gets_its_write_carried_out(
    path: Path, clock: FakeClock
) -> None:
    async with SqliteStore.open(path, clock=clock) as store:
        with locked(path):
            adding = asyncio.create_task(store.add_devices([listed(1)], now=clock.now()))
            await asyncio.sleep(0)
            adding.cancel()
        await store.add_devices([listed(2)], now=clock.now())
        assert adding.cancelled()
        assert await store.find_by_udid("device-1") is not None


# Trouble


@on_loop_or_in_thread
async def test_nothing_is_answered_that_was_not_committed(
    path: Path, clock: FakeClock, brief: bool
) -> None:
    def orphan(db: Transaction) -> None:
        db.execute("PRAGMA defer_foreign_keys = ON")
        db.execute("INSERT INTO claims (device, label, issuance) VALUES ('x', '', 999)")

    started, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(db: Transaction) -> None:
        loop.call_soon_threadsafe(started.set)
        assert go_on.wait(timeout=60)

    async with SqliteStore.open(path, clock=clock) as store:
        first = asyncio.create_task(store._writer.submit(slow))
        await started.wait()
        # The writer is busy with the first write, so the next two share a transaction.
        group = asyncio.gather(
            store._writer.submit(orphan, brief=brief),
            store.begin(first_enrollment()),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
        go_on.set()
        await first
        for result in await group:
            assert isinstance(result, RequestRefused)
            assert result.reason is RefusalReason.STORE_UNAVAILABLE
            assert "FOREIGN KEY" in result.detail
        assert isinstance(await store.begin(first_enrollment()), IssuanceTicket)


async def test_a_store_that_another_process_locks_is_unavailable_until_it_lets_go(
    path: Path, clock: FakeClock
) -> None:
    hasty = SqliteOptions(busy_timeout=timedelta(milliseconds=20))
    async with SqliteStore.open(path, clock=clock, sqlite=hasty) as store:
        with locked(path):
            with pytest.raises(RequestRefused) as caught:
                await store.begin(first_enrollment())
            with pytest.raises(RequestRefused) as importing:
                await store.import_devices([], describe, now=clock.now())
            assert await store.find_by_udid("device-1") is None
        for refused in (caught.value, importing.value):
            assert refused.reason is RefusalReason.STORE_UNAVAILABLE
            assert "locked" in refused.detail
            assert "locked" not in refused.sentence
        assert isinstance(await store.begin(first_enrollment()), IssuanceTicket)


async def test_a_full_database_refuses_and_keeps_what_it_has(path: Path, clock: FakeClock) -> None:
    small = SqliteOptions(max_octets=100 * 4096)
    async with SqliteStore.open(path, clock=clock, sqlite=small) as store:
        results = await asyncio.gather(
            *(
                store.add_devices([listed(number, note="x" * 2000)], now=clock.now())
                for number in range(1000)
            ),
            return_exceptions=True,
        )
    refused = [result for result in results if isinstance(result, RequestRefused)]
    assert {error.reason for error in refused} == {RefusalReason.STORE_UNAVAILABLE}
    assert "full" in refused[0].detail
    answered = len(results) - len(refused)
    assert query(path, "SELECT count(*) FROM devices") == [(answered,)]
    async with SqliteStore.open(path, clock=clock) as store:
        await store.begin(first_enrollment())


async def test_a_disk_that_takes_no_more_is_survived(path: Path, clock: FakeClock) -> None:
    # The kernel refuses to let any file of this process grow, as a full disk would.
    async with SqliteStore.open(path, clock=clock) as store:
        ticket = await store.begin(first_enrollment())
        assert isinstance(ticket, IssuanceTicket)
        leaf = certificate()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(RequestRefused) as caught:
                await store.complete(ticket, leaf, now=clock.now())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.reason is RefusalReason.STORE_UNAVAILABLE
        issued = await store.complete(ticket, leaf, now=clock.now())
        assert await store.find_certificate(issued.sha256) == issued


async def test_what_did_not_become_durable_was_not_issued(path: Path, clock: FakeClock) -> None:
    made = []

    def certify() -> x509.Certificate:
        made.append(certificate())
        return made[-1]

    async with SqliteStore.open(path, clock=clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(RequestRefused) as caught:
                await store.issue(first_enrollment(), certify, now=clock.now())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.reason is RefusalReason.STORE_UNAVAILABLE
        assert await store.find_claim("device-1", None) is None
        issued = await store.issue(first_enrollment(), certify, now=clock.now())
        assert isinstance(issued, IssuedCertificate)
        assert made.index(issued.certificate) == 1


async def test_a_file_that_vanished_is_not_made_anew(path: Path, clock: FakeClock) -> None:
    async with SqliteStore.open(path, clock=clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        os.rename(path, f"{path}.aside")
        with pytest.raises(RequestRefused) as caught:
            await store.find_by_udid("device-1")
        assert caught.value.reason is RefusalReason.STORE_UNAVAILABLE
        with pytest.raises(RequestRefused) as caught:
            await store.begin(first_enrollment())
        assert caught.value.reason is RefusalReason.STORE_UNAVAILABLE
        os.rename(f"{path}.aside", path)
        assert await store.find_by_udid("device-1") is not None
        await store.begin(first_enrollment())


async def test_a_file_that_was_replaced_is_read_from_then_on(path: Path, clock: FakeClock) -> None:
    async with SqliteStore.open(path, clock=clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        backup = back_up(path)
        await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
        assert await state_of(store) is DeviceState.SUSPENDED
        put_in_place(backup, path)
        await asyncio.sleep(LOOK_EVERY)
        assert await state_of(store) is DeviceState.LISTED
        # And what is written is read at once.
        backup = back_up(path)
        put_in_place(backup, path)
        await store.change_device(order(LifeCycleStep.REVOKE), now=clock.now())
        assert await state_of(store) is DeviceState.REVOKED


def back_up(path: Path) -> Path:
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(backup)) as copy:
        live.backup(copy)
    backup.chmod(0o600)
    return backup


def put_in_place(backup: Path, path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    backup.replace(path)


async def state_of(store: SqliteStore) -> DeviceState | None:
    device = await store.find_by_udid("device-1")
    return device.state if device else None


# The audit trail


async def test_the_oldest_refusals_go(path: Path, clock: FakeClock) -> None:
    options = StoreOptions(refusals_kept=10)
    async with SqliteStore.open(path, clock=clock, options=options) as store:
        await asyncio.gather(*(store.record_refusal(refusal(str(n))) for n in range(35)))
    assert query(path, "SELECT detail FROM refusals ORDER BY id") == [
        (str(number),) for number in range(25, 35)
    ]


async def test_a_refusal_of_any_size_and_any_characters_fits(path: Path, clock: FakeClock) -> None:
    async with SqliteStore.open(path, clock=clock) as store:
        await store.record_refusal(refusal("\udcff" + "x" * 100_000))
    ((detail,),) = query(path, "SELECT detail FROM refusals")
    assert detail.startswith("\\udcffxxx")
    assert len(detail) < 600


async def test_the_oldest_abandoned_attempts_go(path: Path, clock: FakeClock) -> None:
    options = StoreOptions(abandoned_kept=10)
    async with SqliteStore.open(path, clock=clock, options=options) as store:
        for _ in range(200):
            ticket = await store.begin(first_enrollment())
            assert isinstance(ticket, IssuanceTicket)
            await store.abandon(ticket, reason="pending", now=clock.now())
    ((count, newest),) = query(path, "SELECT count(*), max(number) FROM issuances")
    assert 10 <= count < 10 + 2 * 64
    assert newest == 200


async def test_changes_of_state_are_audited(path: Path, clock: FakeClock) -> None:
    async with SqliteStore.open(path, clock=clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        ticket = await store.begin(first_enrollment())
        assert isinstance(ticket, IssuanceTicket)
        issued = await store.complete(ticket, certificate(), now=clock.now())
        await store.revoke_certificate(
            issued.sha256, actor="operator", reason="stolen", now=clock.now()
        )
        await store.release_claim(
            "device-1", None, actor="operator", reason="found", now=clock.now()
        )
    assert query(path, "SELECT udid, from_state, to_state, actor FROM device_history") == [
        ("device-1", "listed", "enrolled", "enrollment")
    ]
    assert query(path, "SELECT action, device, label, actor, reason FROM ledger_history") == [
        ("revoke", "device-1", "", "operator", "stolen"),
        ("release-claim", "device-1", "", "operator", "found"),
    ]
