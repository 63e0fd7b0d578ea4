"""What is particular to the store on PostgreSQL: its tables, its times, how it meets trouble."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_server.approvals import ApprovalTerms
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate
from est_server.stores.postgresql import PostgresqlAddress, PostgresqlOptions
from est_server.stores.postgresql.database import prepare
from est_server.stores.postgresql.session import WRITE_LOCK, PostgresqlSession
from est_server.stores.postgresql.store import PostgresqlStore
from est_server.stores.schema import MIGRATIONS, Migration
from est_server.stores.transaction import Transaction
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    describe,
    first_enrollment,
    listed,
    refusal,
)
from tests.server.postgresql_server import PostgresqlServer, running_server

#: A step that is not in the program yet.
_COLOURS = Migration("colours", ("ALTER TABLE devices ADD COLUMN colour TEXT",))

_RECONNECTS_AT_ONCE = PostgresqlOptions(reconnect_pause=timedelta(milliseconds=20))

#: Times that a test can wait for, and that a busy machine keeps where nothing hangs.
_HASTY = replace(
    _RECONNECTS_AT_ONCE,
    lock_timeout=timedelta(milliseconds=50),
    statement_timeout=timedelta(seconds=1),
    idle_in_transaction_timeout=timedelta(seconds=1),
    answer_timeout=timedelta(seconds=2),
)


@pytest.fixture
def address(postgresql_server: PostgresqlServer) -> PostgresqlAddress:
    """A database without tables."""
    return postgresql_server.make_database()


async def test_a_store_that_is_taken_as_it_is_is_not_made(address: PostgresqlAddress) -> None:
    with pytest.raises(ConfigurationError, match="start the server first"):
        async with PostgresqlStore.open(address, as_it_is=True):
            pass
    with pytest.raises(ConfigurationError, match="start the server first"):
        async with PostgresqlStore.open(address, existing=True):
            pass
    async with PostgresqlStore.open(address):
        pass
    async with PostgresqlStore.open(address, as_it_is=True) as store:
        assert await store.find_by_udid("nobody") is None


@pytest.fixture
def fragile_server() -> Iterator[PostgresqlServer]:
    """A server that a test may stop; what it says is durable is."""
    with running_server(fsync="on") as server:
        yield server


def query(address: PostgresqlAddress, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(address.url, autocommit=True) as db:
        cursor = db.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


@contextmanager
def writing(address: PostgresqlAddress) -> Iterator[None]:
    """Another server is in the middle of a transaction."""
    with psycopg.connect(address.url) as db:
        db.execute("SELECT pg_advisory_xact_lock(%s, %s)", WRITE_LOCK)
        yield


async def begun(store: PostgresqlStore, number: int = 1) -> IssuanceTicket:
    ticket = await store.begin(first_enrollment(f"device-{number}"))
    assert isinstance(ticket, IssuanceTicket)
    return ticket


async def until_available(attempt: Callable[[], Any]) -> Any:
    """The result of the first attempt that is not refused for want of a store."""
    while True:
        try:
            return await attempt()
        except RequestRefused as refused:
            if refused.reason is not RefusalReason.STORE_UNAVAILABLE:
                raise
            await asyncio.sleep(0.01)


# The database


async def test_the_connections_are_as_safe_as_they_have_to_be(
    postgresql_database: PostgresqlAddress,
) -> None:
    names = (
        "synchronous_commit",
        "transaction_isolation",
        "lock_timeout",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
        "transaction_read_only",
    )

    def settings(db: Transaction) -> list[str]:
        return [db.execute(f"SHOW {name}").fetchone()[0] for name in names]

    query(postgresql_database, "ALTER ROLE est SET synchronous_commit = off")
    query(postgresql_database, "ALTER ROLE est SET default_transaction_isolation = serializable")
    try:
        async with PostgresqlStore.open(postgresql_database) as store:
            assert await store._writer.submit(settings) == [
                "on", "read committed", "5s", "10s", "10s", "off",
            ]  # fmt: skip
            assert (await store._engine.read(settings))[-1] == "on"
    finally:
        query(postgresql_database, "ALTER ROLE est RESET ALL")


async def test_requests_for_approval_are_listed_by_the_clock_of_the_database(
    postgresql_database: PostgresqlAddress,
) -> None:
    async with PostgresqlStore.open(postgresql_database) as store:
        terms = ApprovalTerms(timedelta(seconds=1), timedelta(seconds=2))
        await store.begin(replace(first_enrollment(), approval=terms))
        assert [one.device async for one in store.approvals()] == ["device-1"]
        query(postgresql_database, "UPDATE approvals SET expires_at = asked_at")
        assert [one.device async for one in store.approvals()] == []


async def test_nothing_can_be_written_where_it_should_be_read(
    postgresql_database: PostgresqlAddress,
) -> None:
    async with PostgresqlStore.open(postgresql_database) as store:
        with pytest.raises(RequestRefused) as caught:
            await store._engine.read(lambda db: db.execute("DELETE FROM devices"))
    assert "read-only" in caught.value.detail


def test_tables_of_another_program_are_left_alone(address: PostgresqlAddress) -> None:
    query(address, "CREATE TABLE migrations (version bigint)")
    with pytest.raises(ConfigurationError, match="another program"):
        prepare(address, PostgresqlOptions())
    assert query(address, "SELECT count(*) FROM pg_class WHERE relname = 'devices'") == [(0,)]


def test_a_newer_database_is_refused(address: PostgresqlAddress) -> None:
    prepare(address, PostgresqlOptions(), (*MIGRATIONS, _COLOURS))
    with pytest.raises(ConfigurationError, match="run the newer program"):
        prepare(address, PostgresqlOptions())


def test_a_database_with_another_encoding_is_refused(postgresql_server: PostgresqlServer) -> None:
    postgresql_server.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(ConfigurationError, match="encoding is LATIN1"):
        prepare(postgresql_server.address("latin"), PostgresqlOptions())


def test_a_database_that_is_not_there_is_named_without_the_password(
    postgresql_server: PostgresqlServer,
) -> None:
    url = postgresql_server.address("missing").url.replace("est@", "est:hunter2@")
    with pytest.raises(ConfigurationError, match='database "missing" does not exist') as caught:
        prepare(PostgresqlAddress(url), PostgresqlOptions())
    assert "hunter2" not in str(caught.value)


async def test_several_servers_may_make_the_tables_at_once(address: PostgresqlAddress) -> None:
    options = PostgresqlOptions()
    await asyncio.gather(*(asyncio.to_thread(prepare, address, options) for _ in range(4)))
    assert query(address, "SELECT version FROM migrations ORDER BY version") == [
        (number,) for number in range(1, len(MIGRATIONS) + 1)
    ]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_every_older_version_becomes_the_newest(
    address: PostgresqlAddress, version: int
) -> None:
    prepare(address, PostgresqlOptions(), MIGRATIONS[:version])
    async with PostgresqlStore.open(address) as store:
        await begun(store)
    assert query(address, "SELECT max(version) FROM migrations") == [(len(MIGRATIONS),)]


def test_a_migration_that_fails_changes_nothing(address: PostgresqlAddress) -> None:
    step = Migration("broken", ("CREATE TABLE fine (x TEXT)", "CREATE TABLE devices (x TEXT)"))
    with pytest.raises(ConfigurationError, match='"devices" already exists'):
        prepare(address, PostgresqlOptions(), (*MIGRATIONS, step))
    assert query(address, "SELECT relname FROM pg_class WHERE relname IN ('fine', 'claims')") == []
    prepare(address, PostgresqlOptions())


# Clocks


async def test_leases_go_by_the_clock_of_the_database(
    postgresql_database: PostgresqlAddress,
) -> None:
    async with PostgresqlStore.open(postgresql_database) as store:
        before = datetime.now(UTC)
        moment = await store._writer.submit(store._moment)
        assert before <= moment <= datetime.now(UTC)
        await begun(store)
    ((left,),) = query(
        postgresql_database,
        "SELECT lease_until / 1e6 - extract(epoch FROM clock_timestamp()) FROM issuances",
    )
    assert 20 < left <= 30


# Trouble


async def test_while_another_server_writes_too_long_this_one_refuses(
    postgresql_database: PostgresqlAddress,
) -> None:
    impatient = PostgresqlOptions(lock_timeout=timedelta(milliseconds=50))
    async with PostgresqlStore.open(postgresql_database, postgresql=impatient) as store:
        with writing(postgresql_database):
            with pytest.raises(RequestRefused) as caught:
                await store.begin(first_enrollment())
            with pytest.raises(RequestRefused) as importing:
                await store.import_devices([], describe, now=datetime.now(UTC))
            assert await store.find_by_udid("device-1") is None
        for refused in (caught.value, importing.value):
            assert refused.reason is RefusalReason.STORE_UNAVAILABLE
            assert "lock timeout" in refused.detail
            assert "lock" not in refused.sentence
        await begun(store)


async def test_connections_that_were_cut_while_idle_go_unnoticed(
    postgresql_database: PostgresqlAddress, clock: FakeClock
) -> None:
    async with PostgresqlStore.open(postgresql_database) as store:
        await store.add_devices([listed(1)], now=clock.now())
        assert await store.find_by_udid("device-1") is not None
        cut_all(postgresql_database)
        assert await store.find_by_udid("device-1") is not None
        await begun(store)


def cut_all(address: PostgresqlAddress) -> None:
    query(
        address,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'est-server' AND datname = current_database()",
    )


async def test_a_connection_that_is_cut_between_commit_and_answer_is_never_success(
    postgresql_database: PostgresqlAddress,
    monkeypatch: pytest.MonkeyPatch,
    clock: FakeClock,
) -> None:
    commit = PostgresqlSession.commit

    def commit_without_hearing_of_it(session: PostgresqlSession) -> None:
        commit(session)
        cut_all(postgresql_database)
        session.execute("SELECT 1")

    async with PostgresqlStore.open(postgresql_database, clock=clock) as store:
        with monkeypatch.context() as patch:
            patch.setattr(PostgresqlSession, "commit", commit_without_hearing_of_it)
            with pytest.raises(RequestRefused) as caught:
                await store.begin(first_enrollment())
            assert caught.value.reason is RefusalReason.STORE_UNAVAILABLE
        assert query(postgresql_database, "SELECT status FROM issuances") == [("in-progress",)]
        # Nobody got the ticket, so the device need not wait for its lease.
        ticket = await begun(store)
        leaf = certificate()
        with monkeypatch.context() as patch:
            patch.setattr(PostgresqlSession, "commit", commit_without_hearing_of_it)
            with pytest.raises(RequestRefused) as caught:
                await store.complete(ticket, leaf, now=clock.now())
            assert caught.value.reason is RefusalReason.STORE_UNAVAILABLE
        # It was recorded, so the retry gets this very certificate.
        again = await store.begin(first_enrollment())
        assert isinstance(again, IssuedCertificate)
        assert again.certificate == leaf
    assert query(
        postgresql_database, "SELECT status, count(*) FROM issuances GROUP BY 1 ORDER BY 1"
    ) == [("abandoned", 1), ("issued", 1)]


async def test_a_commit_that_was_a_rollback_is_never_success(
    postgresql_database: PostgresqlAddress,
) -> None:
    def fail_in_silence(db: Transaction) -> None:
        with pytest.raises(psycopg.Error):
            db.execute("SELECT 1 / 0")

    async with PostgresqlStore.open(postgresql_database) as store:
        session = store._engine.writer(None)
        session.begin()
        fail_in_silence(session)
        with pytest.raises(psycopg.OperationalError, match="COMMIT answered ROLLBACK"):
            session.commit()
        session.close()


async def test_a_warning_at_commit_is_never_success(
    postgresql_database: PostgresqlAddress,
) -> None:
    async with PostgresqlStore.open(postgresql_database) as store:
        session = store._engine.writer(None)
        # What PostgreSQL says here is that there is no transaction.
        with pytest.raises(psycopg.OperationalError, match="COMMIT answered COMMIT: there is no"):
            session.commit()
        session.close()


async def test_a_write_that_fails_leaves_its_group_alone(
    postgresql_database: PostgresqlAddress,
) -> None:
    started, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(db: Transaction) -> None:
        loop.call_soon_threadsafe(started.set)
        assert go_on.wait(timeout=60)

    def broken(db: Transaction) -> None:
        db.execute("INSERT INTO claims (device, label, issuance) VALUES ('x', '', 999)")

    async with PostgresqlStore.open(postgresql_database) as store:
        first = asyncio.create_task(store._writer.submit(slow))
        await started.wait()
        group = asyncio.gather(
            store.begin(first_enrollment("device-1")),
            store._writer.submit(broken),
            store.begin(first_enrollment("device-2")),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
        go_on.set()
        await first
        one, error, two = await group
    assert isinstance(one, IssuanceTicket)
    assert isinstance(two, IssuanceTicket)
    assert isinstance(error, psycopg.errors.ForeignKeyViolation)
    assert query(postgresql_database, "SELECT count(*) FROM claims") == [(2,)]


async def test_a_server_that_crashes_is_survived(fragile_server: PostgresqlServer) -> None:
    address = fragile_server.make_database()
    async with PostgresqlStore.open(address, postgresql=_RECONNECTS_AT_ONCE) as store:
        ticket = await begun(store)
        leaf = certificate()
        fragile_server.stop("immediate")
        for attempt in (
            store.complete(ticket, leaf, now=datetime.now(UTC)),
            store.begin(first_enrollment("device-2")),
            store.find_by_udid("device-1"),
            store.find_certificate(bytes(32)),
            store.import_devices([], describe, now=datetime.now(UTC)),
        ):
            with pytest.raises(RequestRefused) as caught:
                await attempt
            assert caught.value.reason is RefusalReason.STORE_UNAVAILABLE
            assert caught.value.retry_after
        fragile_server.start()
        now = datetime.now(UTC)
        issued = await until_available(lambda: store.complete(ticket, leaf, now=now))
        assert await until_available(lambda: store.find_certificate(issued.sha256)) == issued


async def test_nothing_that_was_answered_is_lost_when_the_server_crashes(
    fragile_server: PostgresqlServer,
) -> None:
    address = fragile_server.make_database()
    answered: set[bytes] = set()
    well_under_way = asyncio.Event()

    async with PostgresqlStore.open(address, postgresql=_RECONNECTS_AT_ONCE) as store:

        async def enroll(client: int) -> None:
            for number in range(20):
                intent = first_enrollment(f"device-{client}-{number}", key=f"key-{client}")
                answered.add(await until_available(lambda: enrolled(store, intent)))  # noqa: B023
                if len(answered) >= 30:
                    well_under_way.set()

        enrolling = asyncio.gather(*(enroll(client) for client in range(6)))
        await well_under_way.wait()
        await asyncio.to_thread(fragile_server.stop, "immediate")
        await asyncio.to_thread(fragile_server.start)
        await enrolling
    issued = query(address, "SELECT sha256 FROM issuances WHERE status = 'issued'")
    assert {row[0] for row in issued} == answered
    assert len(answered) == 120
    assert query(address, "SELECT count(*) FROM claims") == [(120,)]


async def enrolled(store: PostgresqlStore, intent: EnrollmentIntent) -> bytes:
    """As the service does it; the hash of the certificate."""
    now = datetime.now(UTC)
    begun = await store.begin(intent)
    if isinstance(begun, IssuedCertificate):
        return begun.sha256
    assert isinstance(begun, IssuanceTicket)
    key = intent.device.replace("device", "key").rpartition("-")[0]
    try:
        return (await store.complete(begun, certificate(key), now=now)).sha256
    except RequestRefused:
        await store.abandon(begun, reason="refused", now=now)
        raise


async def test_a_database_that_hangs_is_given_up(
    postgresql_database: PostgresqlAddress,
) -> None:
    async with PostgresqlStore.open(postgresql_database, postgresql=_HASTY) as store:
        await until_available(lambda: store.find_by_udid("device-1"))
        await until_available(lambda: store.record_refusal(refusal()))
        pids = [
            pid
            for (pid,) in query(
                postgresql_database,
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'est-server' "
                "AND datname = current_database()",
            )
        ]
        assert len(pids) == 2
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            for attempt in (store.begin(first_enrollment()), store.find_by_udid("device-1")):
                task = asyncio.ensure_future(attempt)
                # The event loop goes on meanwhile; new connections are made and answer.
                done, _ = await asyncio.wait([task], timeout=60)
                assert done
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        await until_available(lambda: store.find_by_udid("device-1"))
        await until_available(lambda: store.record_refusal(refusal()))


async def test_a_server_that_freezes_in_its_turn_stops_the_others_only_for_a_time(
    postgresql_database: PostgresqlAddress,
) -> None:
    frozen, thaw = threading.Event(), threading.Event()

    def freeze(db: Transaction) -> None:
        frozen.set()
        thaw.wait(timeout=60)

    async with (
        PostgresqlStore.open(postgresql_database, postgresql=_HASTY) as one,
        PostgresqlStore.open(postgresql_database, postgresql=_HASTY) as two,
    ):
        stuck = asyncio.create_task(one._writer.submit(freeze))
        await asyncio.to_thread(frozen.wait, 60)
        await until_available(lambda: two.record_refusal(refusal()))
        thaw.set()
        with pytest.raises(RequestRefused) as caught:
            await stuck
        assert caught.value.reason is RefusalReason.STORE_UNAVAILABLE
        await begun(one)


async def test_reads_beyond_the_queue_are_refused(
    postgresql_database: PostgresqlAddress,
) -> None:
    go_on = threading.Event()

    def slow(db: Transaction) -> None:
        assert go_on.wait(timeout=60)

    options = PostgresqlOptions(readers=2, max_waiting_reads=3)
    async with PostgresqlStore.open(postgresql_database, postgresql=options) as store:
        waiting = [asyncio.create_task(store._engine.read(slow)) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(RequestRefused) as caught:
            await store.find_by_udid("device-1")
        assert "5 reads are waiting" in caught.value.detail
        go_on.set()
        await asyncio.gather(*waiting)
        assert await store.find_by_udid("device-1") is None


async def test_a_database_without_room_refuses_and_keeps_what_it_has(
    postgresql_database: PostgresqlAddress, clock: FakeClock
) -> None:
    query(
        postgresql_database,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$; "
        "CREATE TRIGGER full_disk BEFORE UPDATE ON issuances EXECUTE FUNCTION full_disk()",
    )
    try:
        async with PostgresqlStore.open(postgresql_database, clock=clock) as store:
            ticket = await begun(store)
            with pytest.raises(RequestRefused) as caught:
                await store.complete(ticket, certificate(), now=clock.now())
            assert caught.value.reason is RefusalReason.STORE_UNAVAILABLE
            assert "53100" in caught.value.detail
            query(postgresql_database, "DROP FUNCTION full_disk CASCADE")
            await store.complete(ticket, certificate(), now=clock.now())
    finally:
        query(postgresql_database, "DROP FUNCTION IF EXISTS full_disk CASCADE")
