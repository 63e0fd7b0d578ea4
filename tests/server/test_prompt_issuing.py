"""Issuing in one transaction: what every ledger must do, whatever keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from cryptography import x509

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Pending
from est_server.approvals import ApprovalTerms
from est_server.device_records import DeviceState
from est_server.journal import Entry, Event
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate
from est_server.life_cycle import LifeCycleStep
from est_server.quotas import Quota
from est_server.stores.rules.journal import Query
from est_server.stores.store import Store as AnyStore
from tests.server.conftest import OpenStore, Store
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    first_enrollment,
    listed,
    order,
    renewal,
)


@pytest.fixture
async def store(open_store: OpenStore, clock: FakeClock) -> AsyncIterator[Store]:
    async with open_store(clock) as store:
        yield store


@dataclass
class Authority:
    """Makes certificates for one key, and counts them."""

    key: str = "a"
    made: list[x509.Certificate] = field(default_factory=list)

    def __call__(self) -> x509.Certificate:
        self.made.append(certificate(self.key))
        return self.made[-1]


def fails() -> x509.Certificate:
    raise OSError("the key is gone")


async def issue(
    store: Store,
    clock: FakeClock,
    intent: EnrollmentIntent,
    certify: Callable[[], x509.Certificate] | None = None,
) -> IssuedCertificate:
    issued = await store.issue(intent, certify or Authority(), now=clock.now())
    assert isinstance(issued, IssuedCertificate)
    return issued


async def entries(store: Store) -> list[Entry]:
    assert isinstance(store, AnyStore)
    return [entry async for entry in store.journal(Query()) if entry.event != Event.SEALED]


async def test_it_comes_to_the_same_as_two_transactions(store: Store, clock: FakeClock) -> None:
    await store.add_devices([listed(1), listed(2)], now=clock.now())
    one = await issue(store, clock, first_enrollment("device-1"))
    ticket = await store.begin(first_enrollment("device-2"))
    assert isinstance(ticket, IssuanceTicket)
    two = await store.complete(ticket, certificate(), now=clock.now())
    assert replace(one, certificate=two.certificate, sha256=two.sha256, device="device-2") == two
    for issued in (one, two):
        assert await store.find_certificate(issued.sha256) == issued
        assert await store.find_claim(issued.device, None) is not None
        device = await store.find_by_udid(issued.device)
        assert device is not None
        assert device.state is DeviceState.ENROLLED
    told = [
        [
            (entry.event, entry.label, sorted(entry.known))
            for entry in await entries(store)
            if entry.device == device
        ]
        for device in ("device-1", "device-2")
    ]
    assert told[0] == told[1]
    assert [event for event, *_ in told[0]] == ["listed", "claimed", "issued", "device-changed"]


async def test_a_retry_gets_the_same_certificate(store: Store, clock: FakeClock) -> None:
    authority = Authority()
    first = await issue(store, clock, first_enrollment(), authority)
    assert await issue(store, clock, first_enrollment(), authority) == first
    assert await store.begin(first_enrollment()) == first
    assert len(authority.made) == 1


async def test_nothing_is_made_for_who_has_no_right_to_it(store: Store, clock: FakeClock) -> None:
    await issue(store, clock, first_enrollment())
    authority = Authority("b")
    with pytest.raises(RequestRefused) as caught:
        await store.issue(first_enrollment(key="b"), authority, now=clock.now())
    assert caught.value.reason is RefusalReason.ALREADY_CLAIMED
    await store.add_devices([listed(2)], now=clock.now())
    await store.change_device(order(LifeCycleStep.SUSPEND, "device-2"), now=clock.now())
    with pytest.raises(RequestRefused) as caught:
        await store.issue(first_enrollment("device-2", key="b"), authority, now=clock.now())
    assert caught.value.reason is RefusalReason.DEVICE_NOT_ACTIVE
    assert not authority.made


async def test_a_renewal_supersedes(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment())
    second = await issue(store, clock, renewal(first.sha256), Authority("b"))
    before = await store.find_certificate(first.sha256)
    assert before is not None
    assert (before.state, second.state) == ("superseded", "active")
    assert [entry.event for entry in await entries(store)][-2:] == ["begun", "issued"]


async def test_an_authority_that_fails_is_recorded_and_takes_nothing(
    store: Store, clock: FakeClock
) -> None:
    intent = replace(first_enrollment(), quotas=(Quota("one", 1),))
    with pytest.raises(OSError, match="the key is gone"):
        await store.issue(intent, fails, now=clock.now())
    *_, begun, abandoned = await entries(store)
    assert (begun.event, abandoned.event) == ("claimed", "abandoned")
    assert begun.reference == abandoned.reference
    assert "the key is gone" in str(abandoned.known["reason"])
    assert await store.find_claim("device-1", None) is None
    await issue(store, clock, intent)


async def test_a_certificate_for_another_key_is_not_recorded(
    store: Store, clock: FakeClock
) -> None:
    with pytest.raises(RequestRefused) as caught:
        await store.issue(first_enrollment(key="a"), Authority("b"), now=clock.now())
    assert caught.value.reason is RefusalReason.INTERNAL_ERROR
    assert await store.find_claim("device-1", None) is None
    assert (await entries(store))[-1].event == "abandoned"


async def test_of_many_at_once_over_two_stores_one_makes_a_certificate(
    open_store: OpenStore, clock: FakeClock
) -> None:
    authority = Authority()
    async with open_store(clock) as one, open_store(clock) as two:
        issued = await asyncio.gather(
            *(issue(store, clock, first_enrollment(), authority) for store in (one, two) * 10)
        )
    assert len(authority.made) == 1
    assert {each.sha256 for each in issued} == {issued[0].sha256}


async def test_of_many_keys_at_once_one_gets_the_claim(
    open_store: OpenStore, clock: FakeClock
) -> None:
    keys = "abcdefgh"
    async with open_store(clock) as one, open_store(clock) as two:
        results = await asyncio.gather(
            *(
                issue((one, two)[number % 2], clock, first_enrollment(key=key), Authority(key))
                for number, key in enumerate(keys)
            ),
            return_exceptions=True,
        )
    refused = [result for result in results if isinstance(result, RequestRefused)]
    assert len(refused) == len(keys) - 1
    assert {error.reason for error in refused} == {RefusalReason.ALREADY_CLAIMED}


async def test_it_waits_for_an_attempt_that_is_under_way_and_takes_over_from_a_dead_one(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as one, open_store(clock) as two:
        ticket = await one.begin(first_enrollment())
        assert isinstance(ticket, IssuanceTicket)
        with pytest.raises(RequestRefused) as caught:
            await two.issue(first_enrollment(), Authority(), now=clock.now())
        assert caught.value.reason is RefusalReason.TRY_LATER
        clock.advance(minutes=1)
        await issue(two, clock, first_enrollment())
        with pytest.raises(RequestRefused) as caught:
            await one.complete(ticket, certificate(), now=clock.now())
        assert caught.value.reason is RefusalReason.TRY_LATER


async def test_what_needs_approval_waits_for_it(store: Store, clock: FakeClock) -> None:
    terms = ApprovalTerms(retry_after=timedelta(seconds=30))
    intent = replace(first_enrollment(), approval=terms)
    authority = Authority()
    assert await store.issue(intent, authority, now=clock.now()) == Pending(30)
    assert not authority.made
    (waiting,) = [approval async for approval in store.approvals()]
    await store.decide_approval(
        waiting.number, approve=True, actor="operator", reason="known", now=clock.now()
    )
    await issue(store, clock, intent, authority)
    assert [approval.state async for approval in store.approvals(decided=True)] == ["used"]


async def test_a_caller_that_is_cancelled_finds_its_certificate_later(
    store: Store, clock: FakeClock
) -> None:
    authority = Authority()
    asked = asyncio.create_task(store.issue(first_enrollment(), authority, now=clock.now()))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await issue(store, clock, first_enrollment(), authority)
    assert len(authority.made) == 1
