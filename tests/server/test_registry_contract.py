"""What every device registry must do, whatever keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from est_server.device_records import (
    AddOutcome,
    DeviceState,
    ListDescription,
    ListedDevice,
    ListRow,
    RowConflict,
)
from est_server.life_cycle import LifeCycleStep
from tests.server.conftest import OpenStore, Store
from tests.server.ledger_values import FakeClock, describe, digest, listed, order, refusal


@pytest.fixture
async def store(open_store: OpenStore, clock: FakeClock) -> AsyncIterator[Store]:
    async with open_store(clock) as store:
        yield store


async def test_a_listed_device_is_found_by_key_and_by_udid(store: Store, clock: FakeClock) -> None:
    row = ListedDevice("device-1", digest("key 1"), {"model": "Ü-7", "owner": "x"})
    assert await store.add_devices([row], now=clock.now()) == [AddOutcome.ADDED]
    device = await store.find_by_key(digest("key 1"))
    assert device == await store.find_by_udid("device-1")
    assert device is not None
    assert device.listed == row
    assert (device.state, device.changed_at) == (DeviceState.LISTED, clock.now())


async def test_a_device_that_is_not_listed_is_not_found(store: Store) -> None:
    assert await store.find_by_key(digest("key 1")) is None
    assert await store.find_by_udid("device-1") is None


async def test_each_row_has_its_outcome(store: Store, clock: FakeClock) -> None:
    await store.add_devices([listed(1, model="x")], now=clock.now())
    outcomes = await store.add_devices(
        [
            listed(2),
            listed(1, model="x"),
            ListedDevice("device-1", digest("key 3")),
            ListedDevice("device-3", digest("key 1")),
            listed(1, model="y"),
        ],
        now=clock.now(),
    )
    assert outcomes == [
        AddOutcome.ADDED,
        AddOutcome.UNCHANGED,
        AddOutcome.CONFLICT_UDID,
        AddOutcome.CONFLICT_KEY,
        AddOutcome.CONFLICT_ATTRIBUTES,
    ]
    device = await store.find_by_udid("device-1")
    assert device is not None
    assert device.listed == listed(1, model="x")
    assert await store.find_by_udid("device-3") is None


async def test_a_whole_list_is_imported_with_the_same_rules(store: Store, clock: FakeClock) -> None:
    await store.add_devices([listed(1, model="x"), listed(7)], now=clock.now())
    rows = [
        ListRow.of(2, listed(2)),
        ListRow.of(3, listed(1, model="x")),
        ListRow.of(4, ListedDevice("device-4", digest("key 2"))),
        ListRow.of(5, ListedDevice("device-5", digest("key 7"))),
        ListRow.of(9, listed(2)),
        ListRow.of(11, ListedDevice("device-1", digest("key 11"))),
    ]
    report = await store.import_devices(rows, describe, now=clock.now())
    # Line 11 has the UDID of line 3, so it is a duplicate before it is a conflict.
    assert (report.added, report.unchanged, report.conflicting) == (1, 1, 4)
    assert report.conflicts == (
        RowConflict(4, AddOutcome.DUPLICATE),
        RowConflict(5, AddOutcome.CONFLICT_KEY),
        RowConflict(9, AddOutcome.DUPLICATE),
        RowConflict(11, AddOutcome.DUPLICATE),
    )
    device = await store.find_by_udid("device-2")
    assert device is not None
    assert (device.listed, device.state) == (listed(2), DeviceState.LISTED)


async def test_conflicts_with_what_is_listed_are_told_apart(store: Store, clock: FakeClock) -> None:
    await store.add_devices([listed(1), listed(2)], now=clock.now())
    rows = [
        ListRow.of(2, listed(1, model="other")),
        ListRow.of(3, ListedDevice("device-2", digest("another"))),
    ]
    report = await store.import_devices(rows, describe, now=clock.now())
    assert report.conflicts == (
        RowConflict(2, AddOutcome.CONFLICT_ATTRIBUTES),
        RowConflict(3, AddOutcome.CONFLICT_UDID),
    )


async def test_a_list_that_cannot_be_read_to_its_end_adds_nothing(
    store: Store, clock: FakeClock
) -> None:
    def rows() -> Iterator[ListRow]:
        yield ListRow.of(2, listed(1))
        raise ValueError("the disk was pulled out")

    with pytest.raises(ValueError, match="pulled out"):
        await store.import_devices(rows(), describe, now=clock.now())
    assert await store.find_by_udid("device-1") is None


async def test_the_store_takes_writes_while_a_list_is_read(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as one, open_store(clock) as two:

        def rows() -> Iterator[ListRow]:
            yield ListRow.of(2, listed(1))
            # In the thread that reads the list: another process adds a device meanwhile.
            asyncio.run_coroutine_threadsafe(
                two.add_devices([listed(2)], now=clock.now()), loop
            ).result(timeout=60)
            yield ListRow.of(3, listed(3))

        loop = asyncio.get_running_loop()
        report = await one.import_devices(rows(), describe, now=clock.now())
        assert (report.added, report.conflicting) == (2, 0)
        assert [device.udid async for device in one.devices()] == [
            "device-1",
            "device-2",
            "device-3",
        ]


async def test_rows_are_sealed_for_their_list_when_another_came_before_it(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as one, open_store(clock) as two:
        other = ListDescription("the other list", digest("other"), "acme", None)

        def rows() -> Iterator[ListRow]:
            yield ListRow.of(2, listed(1))
            asyncio.run_coroutine_threadsafe(
                two.import_devices([ListRow.of(2, listed(2))], lambda: other, now=clock.now()), loop
            ).result(timeout=5)
            yield ListRow.of(3, listed(3))

        loop = asyncio.get_running_loop()
        await one.import_devices(rows(), describe, now=clock.now())
        numbers = {device.udid: device.list_number async for device in one.devices()}
        assert numbers == {"device-1": 2, "device-2": 1, "device-3": 2}
        assert [found.devices for found in await one.lists()] == [1, 2]


async def test_an_empty_list_adds_nothing(store: Store, clock: FakeClock) -> None:
    report = await store.import_devices([], describe, now=clock.now())
    assert (report.added, report.unchanged, report.conflicting) == (0, 0, 0)


async def test_devices_come_in_order_of_udid(store: Store, clock: FakeClock) -> None:
    rows = [listed(number) for number in range(1200)]
    await store.add_devices(rows, now=clock.now())
    udids = [device.udid async for device in store.devices()]
    assert udids == sorted(row.udid for row in rows)
    assert [device.udid async for device in store.devices(after=udids[700])] == udids[701:]


async def test_a_change_of_state_is_kept(store: Store, clock: FakeClock) -> None:
    await store.add_devices([listed(1)], now=clock.now())
    clock.advance(hours=1)
    change = await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
    changed = change.device
    assert changed == await store.find_by_udid("device-1")
    assert (changed.state, changed.changed_at) == (DeviceState.SUSPENDED, clock.now())


async def test_changing_the_state_of_a_device_that_is_not_listed_is_a_key_error(
    store: Store, clock: FakeClock
) -> None:
    with pytest.raises(KeyError):
        await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())


@pytest.mark.parametrize("text", ["device\0", "device\udcff", "x" * 100_000])
async def test_a_name_that_cannot_be_stored_is_nobodys(store: Store, text: str) -> None:
    assert await store.find_by_udid(text) is None
    assert await store.find_secret(text) is None


async def test_a_refusal_of_any_size_and_any_characters_fits(store: Store) -> None:
    await store.record_refusal(refusal("\0\udcff" + "x" * 100_000))
