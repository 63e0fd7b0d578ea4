"""What another process writes between two statements of a read is no tampering."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from est_protocol.errors import RefusalReason
from est_server.device_records import DeviceState, ListRow
from est_server.journal import Chain, Entry
from est_server.ledger_records import IssuanceTicket
from est_server.life_cycle import LifeCycleStep
from est_server.stores.journal_export import Comparison
from est_server.stores.options import StoreOptions
from est_server.stores.rules.journal import Query
from est_server.stores.store import Store
from est_server.stores.transaction import Cursor, Transaction, Value
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    describe,
    first_enrollment,
    listed,
    order,
    refusal,
)
from tests.server.raw_database import RawDatabase, raw

__all__ = ["raw"]

#: Statements after which somebody else writes; no read that is tested here has more.
PLACES = (1, 2, 3)

Step = Callable[[Store], Awaitable[object]]


class Interrupted:
    """A transaction after one of whose statements something happens."""

    journal_head: Chain | None = None

    def __init__(self, db: Transaction, step: Callable[[], None], after: int) -> None:
        self.seals = db.seals
        self._db = db
        self._step = step
        self._left = after

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Cursor:
        self._left -= 1
        if self._left == -1:
            self._step()
        return self._db.execute(sql, parameters)

    def insert(self, sql: str, parameters: Sequence[Value], /, *, numbered: str) -> int:
        raise AssertionError("a read does not write")


def interrupt(
    store: Store,
    raw: RawDatabase,
    clock: FakeClock,
    step: Step,
    after: int,
    options: StoreOptions | None = None,
) -> None:
    """Have another process take ``step`` in the middle of each read of ``store``."""

    async def take_step() -> None:
        async with raw.open(clock, options=options) as other:
            await step(other)

    def elsewhere() -> None:
        thread = threading.Thread(target=lambda: asyncio.run(take_step()))
        thread.start()
        thread.join()

    read = store._engine.read

    async def interrupted(query: Callable[[Transaction], Any]) -> Any:
        return await read(lambda db: query(Interrupted(db, elsewhere, after)))

    store._engine.read = interrupted  # type: ignore[method-assign]


async def enroll(store: Store, clock: FakeClock) -> bytes:
    ticket = await store.begin(first_enrollment())
    assert isinstance(ticket, IssuanceTicket)
    return (await store.complete(ticket, certificate(), now=clock.now())).sha256


@pytest.mark.parametrize("after", PLACES)
async def test_a_certificate_is_revoked(raw: RawDatabase, clock: FakeClock, after: int) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        sha256 = await enroll(store, clock)

        async def revoke(other: Store) -> None:
            await other.revoke_certificate(sha256, actor="op", reason="test", now=clock.now())

        interrupt(store, raw, clock, revoke, after)
        standing = store.check_standing(certificate=sha256, keys=())
        [refused] = await asyncio.gather(standing, return_exceptions=True)
        assert getattr(refused, "reason", None) in (None, RefusalReason.CERTIFICATE_REVOKED)


@pytest.mark.parametrize("after", PLACES)
async def test_a_device_is_registered(raw: RawDatabase, clock: FakeClock, after: int) -> None:
    async with raw.open(clock) as store:
        sha256 = await enroll(store, clock)

        async def register(other: Store) -> None:
            await other.add_devices([listed(1)], now=clock.now())

        interrupt(store, raw, clock, register, after)
        await store.check_standing(certificate=sha256, keys=())


@pytest.mark.parametrize("after", PLACES)
async def test_a_device_changes(raw: RawDatabase, clock: FakeClock, after: int) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())

        async def suspend(other: Store) -> None:
            await other.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())

        interrupt(store, raw, clock, suspend, after)
        device = await store.find_by_udid("device-1")
        assert device is not None
        assert device.state is DeviceState.LISTED


@pytest.mark.parametrize("after", PLACES)
async def test_a_list_is_imported(raw: RawDatabase, clock: FakeClock, after: int) -> None:
    rows = [ListRow.of(number, listed(number)) for number in range(1, 5)]
    async with raw.open(clock) as store:
        await store.import_devices(rows[:1], describe, now=clock.now())

        async def import_more(other: Store) -> None:
            await other.import_devices(rows, describe, now=clock.now())

        interrupt(store, raw, clock, import_more, after)
        [imported] = await store.lists()
        assert imported.devices in (1, 4)


async def test_old_entries_of_the_journal_go_while_it_is_exported_or_compared(
    raw: RawDatabase, clock: FakeClock
) -> None:
    entries: list[Entry] = []

    async def refuse_many() -> None:
        async with raw.open(clock, options=StoreOptions(journal_kept=1)) as other:
            for _ in range(64):
                await other.record_refusal(refusal())

    async with raw.open(clock) as store:
        for _ in range(3):
            await store.record_refusal(refusal())
        beginning = await store.journal_beginning()
        await store.export_journal(begin=lambda _: asyncio.run(refuse_many()), tell=entries.append)
        assert [entry.number for entry in entries] == [1, 2, 3, 4]
        comparison = Comparison(beginning)
        for entry in entries:
            await comparison.compare(store, entry)
        assert comparison.count == 4
        assert await store.journal_page(Query(), 0) != entries


@pytest.mark.parametrize("after", PLACES)
async def test_old_entries_of_the_journal_go(
    raw: RawDatabase, clock: FakeClock, after: int
) -> None:
    kept = StoreOptions(journal_kept=1)
    async with raw.open(clock) as store:
        await store.record_refusal(refusal())

        async def refuse_many(other: Store) -> None:
            for _ in range(64):
                await other.record_refusal(refusal())

        interrupt(store, raw, clock, refuse_many, after, kept)
        for last in (0, 3):
            page = await store.journal_page(Query(), last)
            assert not page or page[0].number > last
