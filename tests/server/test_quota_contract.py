"""What every ledger must do about quotas, whatever keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket
from est_server.life_cycle import LifeCycleStep
from est_server.quotas import DeviceQuotas, Quota, QuotaBound, merged, quota_name
from tests.server.conftest import OpenStore, Store
from tests.server.ledger_values import FakeClock, certificate, first_enrollment, listed, order

TWO = Quota("two", 2)
TWO_A_DAY = Quota("two", 2, timedelta(days=1))


@pytest.fixture
async def store(open_store: OpenStore, clock: FakeClock) -> AsyncIterator[Store]:
    async with open_store(clock) as store:
        yield store


def counted(device: str, *quotas: Quota, label: str | None = None) -> EnrollmentIntent:
    return replace(first_enrollment(device, label=label), quotas=quotas)


async def begin(store: Store, intent: EnrollmentIntent) -> IssuanceTicket:
    begun = await store.begin(intent)
    assert isinstance(begun, IssuanceTicket)
    return begun


async def exceeded(store: Store, intent: EnrollmentIntent) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        await store.begin(intent)
    assert caught.value.reason is RefusalReason.QUOTA_EXCEEDED
    return caught.value


async def test_no_more_than_the_limit(store: Store, clock: FakeClock) -> None:
    for device in ("a", "b"):
        ticket = await begin(store, counted(device, TWO))
        await store.complete(ticket, certificate(), now=clock.now())
    refused = await exceeded(store, counted("c", TWO))
    assert refused.retry_after is None
    assert refused.status == (403, (4, 3))
    assert "two" in refused.detail
    assert "two" not in refused.sentence
    # Who has a certificate finds it again, and whatever else is counted is not touched.
    await store.begin(counted("a", TWO))
    await begin(store, counted("c", Quota("other", 1)))


async def test_what_is_refused_takes_nothing(store: Store) -> None:
    both = (Quota("full", 1), Quota("free", 1))
    await begin(store, counted("a", both[0]))
    await exceeded(store, counted("b", *both))
    await exceeded(store, counted("b", *reversed(both)))
    await begin(store, counted("b", both[1]))


async def test_an_attempt_that_is_abandoned_gives_back(store: Store, clock: FakeClock) -> None:
    one = Quota("one", 1)
    for _ in range(3):
        ticket = await begin(store, counted("a", one))
        await exceeded(store, counted("b", one))
        await store.abandon(ticket, reason="test", now=clock.now())
        await store.abandon(ticket, reason="again", now=clock.now())
    await begin(store, counted("b", one))
    await exceeded(store, counted("a", one))


async def test_an_attempt_whose_lease_ran_out_gives_back(store: Store, clock: FakeClock) -> None:
    one = Quota("one", 1)
    await begin(store, counted("a", one))
    clock.advance(hours=1)
    # Nobody knows yet that it is dead.
    await exceeded(store, counted("b", one))
    ticket = await begin(store, counted("a", one))
    await store.abandon(ticket, reason="test", now=clock.now())
    await begin(store, counted("b", one))


@pytest.mark.parametrize("step", [LifeCycleStep.RESET, LifeCycleStep.TRANSFER])
async def test_a_device_that_starts_anew_gives_back(
    store: Store, clock: FakeClock, step: LifeCycleStep
) -> None:
    one = Quota("one", 1)
    await store.add_devices([listed(1)], now=clock.now())
    ticket = await begin(store, counted("device-1", one))
    await store.complete(ticket, certificate(), now=clock.now())
    await store.change_device(order(step), now=clock.now())
    await begin(store, counted("b", one))
    await exceeded(store, replace(counted("device-1", one), request_key=bytes(32)))


async def test_a_device_that_was_reset_counts_again(store: Store, clock: FakeClock) -> None:
    one = Quota("one", 1)
    await store.add_devices([listed(1)], now=clock.now())
    for _ in range(2):
        ticket = await begin(store, counted("device-1", one))
        issued = await store.complete(ticket, certificate(), now=clock.now())
        assert await store.begin(counted("device-1", one)) == issued
        await exceeded(store, counted("b", one))
        await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
    # Its place may be taken by somebody else, and then it waits like others.
    await begin(store, counted("b", one))
    await exceeded(store, counted("device-1", one))


async def test_a_released_claim_gives_back(store: Store, clock: FakeClock) -> None:
    one = Quota("one", 1)
    ticket = await begin(store, counted("a", one))
    await store.complete(ticket, certificate(), now=clock.now())
    assert await store.release_claim("a", None, actor="me", reason="test", now=clock.now())
    await begin(store, counted("b", one))


async def test_a_window_ends(store: Store, clock: FakeClock) -> None:
    for day in range(3):
        for device in ("a", "b"):
            await begin(store, counted(f"{device}-{day}", TWO_A_DAY))
        refused = await exceeded(store, counted(f"c-{day}", TWO_A_DAY))
        assert refused.status == (429, (4, 29))
        assert refused.retry_after is not None
        # What it says is when the next window begins, not a second earlier.
        clock.advance(seconds=refused.retry_after - 2)
        await exceeded(store, counted(f"c-{day}", TWO_A_DAY))
        clock.advance(seconds=2)


async def test_what_an_earlier_window_counted_is_not_given_back_to_this_one(
    store: Store, clock: FakeClock
) -> None:
    early = await begin(store, counted("a", TWO_A_DAY))
    clock.advance(days=1)
    await begin(store, counted("b", TWO_A_DAY))
    await begin(store, counted("c", TWO_A_DAY))
    await store.abandon(early, reason="test", now=clock.now())
    await exceeded(store, counted("d", TWO_A_DAY))
    clock.advance(days=2)
    await begin(store, counted("d", TWO_A_DAY))


async def test_the_same_name_with_another_window_counts_for_itself(store: Store) -> None:
    await begin(store, counted("a", TWO, TWO_A_DAY))
    await begin(store, counted("b", TWO))
    await exceeded(store, counted("c", TWO))
    await begin(store, counted("c", TWO_A_DAY))
    await exceeded(store, counted("d", TWO_A_DAY))


async def test_a_lower_limit_holds_at_once(store: Store) -> None:
    await begin(store, counted("a", TWO))
    await exceeded(store, counted("b", replace(TWO, limit=1)))
    await begin(store, counted("b", TWO, TWO))


async def test_many_at_one_time_get_no_more_than_the_limit(store: Store) -> None:
    ten = Quota("ten", 10)
    outcomes = await asyncio.gather(
        *(store.begin(counted(f"device-{number}", ten)) for number in range(50)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, IssuanceTicket) for outcome in outcomes) == 10


# -- Values ---------------------------------------------------------------------------------------


def test_the_strictest_of_two_with_one_name_holds() -> None:
    assert merged((TWO, replace(TWO, limit=1), TWO_A_DAY)) == (replace(TWO, limit=1), TWO_A_DAY)


@given(st.text(), st.text(), st.none() | st.text(min_size=1), st.none() | st.text(min_size=1))
def test_no_two_share_a_name(one: str, other: str, label: str | None, second: str | None) -> None:
    same = quota_name("owner", one, label) == quota_name("owner", other, second)
    assert same == ((one, label) == (other, second))


def test_who_is_not_named_counts_for_himself() -> None:
    one, two = QuotaBound(1), QuotaBound(2, timedelta(hours=1))
    quotas = DeviceQuotas(owners={"acme": one, "*": two}, lists={"batch": one})
    assert quotas.of_device(None, "acme", None) == (Quota("owner:acme@", 1),)
    assert quotas.of_device("vpn", "else", "batch") == (
        Quota("owner:else@vpn", 2, timedelta(hours=1)),
        Quota("list:batch@vpn", 1),
    )
    assert quotas.of_device(None, None, "other") == (Quota("owner:@", 2, timedelta(hours=1)),)


@pytest.mark.parametrize(("limit", "window"), [(0, None), (-1, None), (1, timedelta())])
def test_what_is_no_bound(limit: int, window: timedelta | None) -> None:
    with pytest.raises(ValueError, match="quota"):
        Quota("x", limit, window)
    with pytest.raises(ValueError, match="quota"):
        QuotaBound(limit, window)
