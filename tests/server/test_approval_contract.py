"""What every store must do about requests that need approval, whatever keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Pending
from est_server.approvals import Approval, ApprovalState, ApprovalTerms, NotWaiting
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate
from est_server.life_cycle import LifeCycleStep
from est_server.quotas import Quota
from tests.server.conftest import OpenStore, Store
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    digest,
    first_enrollment,
    generated_key,
    listed,
    order,
)

TERMS = ApprovalTerms(retry_after=timedelta(seconds=60), lifetime=timedelta(days=1), max_waiting=3)


@pytest.fixture
async def store(open_store: OpenStore, clock: FakeClock) -> AsyncIterator[Store]:
    async with open_store(clock) as store:
        yield store


def asking(
    device: str = "device-1", *, key: str = "a", label: str | None = None
) -> EnrollmentIntent:
    return replace(first_enrollment(device, key=key, label=label), approval=TERMS)


async def queue(store: Store, *, decided: bool = False) -> list[Approval]:
    return [approval async for approval in store.approvals(decided=decided)]


async def decide(store: Store, clock: FakeClock, *, approve: bool = True) -> Approval:
    """Decide about the one request that waits."""
    (waiting,) = await queue(store)
    return await store.decide_approval(
        waiting.number, approve=approve, actor="op", reason="seen", now=clock.now()
    )


async def approved(store: Store, clock: FakeClock, intent: EnrollmentIntent) -> IssuanceTicket:
    assert await store.begin(intent) == Pending(60)
    await decide(store, clock)
    begun = await store.begin(intent)
    assert isinstance(begun, IssuanceTicket)
    return begun


async def refused(store: Store, intent: EnrollmentIntent) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        await store.begin(intent)
    return caught.value


async def test_one_sender_does_not_keep_all_others_out(store: Store) -> None:
    few = replace(TERMS, max_waiting=100, max_waiting_per_address=2)

    def from_peer(device: int, peer: str) -> EnrollmentIntent:
        return replace(asking(f"device-{device}"), peer=peer, approval=few)

    for number, peer in enumerate(["192.0.2.1:1000", "192.0.2.1:1001"]):
        assert await store.begin(from_peer(number, peer)) == Pending(60)
    refusal = await refused(store, from_peer(2, "192.0.2.1:1002"))
    assert refusal.reason is RefusalReason.TRY_LATER
    assert refusal.detail == "2 requests from 192.0.2.1 are waiting"
    assert refusal.retry_after == 60
    # Who waits already is not refused, nor is anybody else.
    assert await store.begin(from_peer(1, "192.0.2.1:1003")) == Pending(60)
    assert await store.begin(from_peer(3, "192.0.2.2:1000")) == Pending(60)
    # All addresses of one subscriber of IPv6 are one sender.
    for number, peer in enumerate(["[2001:db8::1]:1", "[2001:db8::2]:1"], start=4):
        assert await store.begin(from_peer(number, peer)) == Pending(60)
    refusal = await refused(store, from_peer(6, "2001:db8::3"))
    assert refusal.detail == "2 requests from 2001:db8::/64 are waiting"


async def test_one_device_does_not_fill_the_queue(store: Store) -> None:
    few = replace(TERMS, max_waiting=100, max_waiting_per_device=2)
    for key in "ab":
        assert await store.begin(replace(asking(key=key), approval=few)) == Pending(60)
    refusal = await refused(store, replace(asking(key="c"), approval=few))
    assert refusal.detail == "2 requests of this device are waiting"
    assert await store.begin(replace(asking("device-2"), approval=few)) == Pending(60)


async def test_a_request_waits_once(store: Store, clock: FakeClock) -> None:
    intent = asking(label="vpn")
    for _ in range(3):
        assert await store.begin(intent) == Pending(60)
        clock.advance(minutes=1)
    (waiting,) = await queue(store)
    assert waiting == Approval(
        number=waiting.number,
        operation=intent.operation,
        device="device-1",
        label="vpn",
        spki_sha256=intent.spki_sha256,
        client_key=intent.spki_sha256,
        transport=intent.transport,
        peer=intent.peer,
        reasons=("listed",),
        asked_at=clock.now() - timedelta(minutes=3),
        expires_at=clock.now() - timedelta(minutes=3) + TERMS.lifetime,
        state=ApprovalState.WAITING,
    )


async def test_approved_once_and_not_again(store: Store, clock: FakeClock) -> None:
    await store.add_devices([listed(1)], now=clock.now())
    ticket = await approved(store, clock, asking())
    issued = await store.complete(ticket, certificate(), now=clock.now())
    assert await store.begin(asking()) == issued
    (used,) = await queue(store, decided=True)
    assert (used.state, used.actor, used.reason) == (ApprovalState.USED, "op", "seen")
    assert await queue(store) == []
    # After a factory reset somebody has to look again.
    await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
    assert await store.begin(asking()) == Pending(60)


async def test_approved_for_one_key_only(store: Store, clock: FakeClock) -> None:
    await store.begin(asking(key="a"))
    await decide(store, clock)
    assert await store.begin(asking(key="b")) == Pending(60)
    assert await store.begin(asking(key="a", label="vpn")) == Pending(60)
    assert await store.begin(asking("device-2", key="a")) == Pending(60)
    # A request key that is not worth its name changes nothing.
    weak = replace(asking(key="c"), request_key=asking(key="a").request_key)
    with pytest.raises(RequestRefused):
        await store.begin(weak)


async def test_denied_until_it_is_forgotten(store: Store, clock: FakeClock) -> None:
    await store.begin(asking())
    denied = await decide(store, clock, approve=False)
    assert denied.state is ApprovalState.DENIED
    refusal = await refused(store, asking())
    assert refusal.reason is RefusalReason.APPROVAL_DENIED
    assert "op: seen" in refusal.detail
    assert "seen" not in refusal.sentence
    clock.advance(days=1)
    assert await store.begin(asking()) == Pending(60)


async def test_an_attempt_that_is_abandoned_gives_the_approval_back(
    store: Store, clock: FakeClock
) -> None:
    ticket = await approved(store, clock, asking())
    await store.abandon(ticket, reason="test", now=clock.now())
    assert isinstance(await store.begin(asking()), IssuanceTicket)


async def test_it_is_there_after_a_restart(open_store: OpenStore, clock: FakeClock) -> None:
    async with open_store(clock) as store:
        await store.begin(asking())
    async with open_store(clock) as store:
        await decide(store, clock)
    async with open_store(clock) as store:
        assert isinstance(await store.begin(asking()), IssuanceTicket)


async def test_what_is_old_is_forgotten(store: Store, clock: FakeClock) -> None:
    await store.begin(asking())
    (old,) = await queue(store)
    clock.advance(days=1)
    assert await queue(store, decided=True) == []
    with pytest.raises(NotWaiting, match="expired"):
        await store.decide_approval(
            old.number, approve=True, actor="op", reason="late", now=clock.now()
        )
    assert await store.begin(asking()) == Pending(60)
    (new,) = await queue(store)
    assert new.number > old.number


async def test_an_approval_that_nobody_uses_ends(store: Store, clock: FakeClock) -> None:
    await store.begin(asking())
    await decide(store, clock)
    clock.advance(days=1)
    assert await store.begin(asking()) == Pending(60)


async def test_the_queue_is_bounded(store: Store, clock: FakeClock) -> None:
    for number in range(3):
        await store.begin(asking(f"device-{number}"))
    refusal = await refused(store, asking("device-3"))
    assert refusal.reason is RefusalReason.TRY_LATER
    assert refusal.retry_after == 60
    assert await store.begin(asking("device-0")) == Pending(60)
    clock.advance(days=1)
    assert await store.begin(asking("device-3")) == Pending(60)


async def test_nothing_is_decided_twice(store: Store, clock: FakeClock) -> None:
    await store.begin(asking())
    decided = await decide(store, clock, approve=False)
    with pytest.raises(NotWaiting, match="denied already"):
        await store.decide_approval(
            decided.number, approve=True, actor="op", reason="no", now=clock.now()
        )
    with pytest.raises(KeyError):
        await store.decide_approval(4711, approve=True, actor="op", reason="no", now=clock.now())


async def test_nobody_waits_for_what_cannot_be(store: Store, clock: FakeClock) -> None:
    ticket = await approved(store, clock, asking())
    await store.complete(ticket, certificate(), now=clock.now())
    assert (await refused(store, asking(key="b"))).reason is RefusalReason.ALREADY_CLAIMED
    full = (Quota("full", 1),)
    await store.begin(replace(first_enrollment("device-2"), quotas=full))
    refusal = await refused(store, replace(asking("device-3"), quotas=full))
    assert refusal.reason is RefusalReason.QUOTA_EXCEEDED
    assert await queue(store) == []


async def test_who_waits_takes_nothing(store: Store, clock: FakeClock) -> None:
    one = (Quota("one", 1),)
    await store.begin(replace(asking("device-1"), quotas=one))
    other = await store.begin(replace(first_enrollment("device-2"), quotas=one))
    assert isinstance(other, IssuanceTicket)
    await decide(store, clock)
    # What was approved waits for its turn like anybody.
    refusal = await refused(store, replace(asking("device-1"), quotas=one))
    assert refusal.reason is RefusalReason.QUOTA_EXCEEDED
    await store.abandon(other, reason="test", now=clock.now())
    begun = await store.begin(replace(asking("device-1"), quotas=one))
    assert isinstance(begun, IssuanceTicket)


async def test_a_generated_key_is_approved_for_its_client(store: Store, clock: FakeClock) -> None:
    client = digest("client")
    intent = replace(generated_key(), approval=TERMS, client_keys=frozenset({client}))
    await store.begin(intent)
    (waiting,) = await queue(store)
    assert (waiting.spki_sha256, waiting.client_key) == (None, client)
    await decide(store, clock)
    assert await store.begin(replace(generated_key(client="b"), approval=TERMS)) == Pending(60)
    assert isinstance(await store.begin(intent), IssuanceTicket)


async def test_an_approval_is_used_once_by_many_at_one_time(store: Store, clock: FakeClock) -> None:
    await store.begin(asking())
    await decide(store, clock)
    outcomes = await asyncio.gather(
        *(store.begin(asking()) for _ in range(10)), return_exceptions=True
    )
    tickets = [outcome for outcome in outcomes if isinstance(outcome, IssuanceTicket)]
    assert len(tickets) == 1
    issued = await store.complete(tickets[0], certificate(), now=clock.now())
    assert isinstance(issued, IssuedCertificate)


@pytest.mark.parametrize(
    "terms",
    [
        {"retry_after": timedelta(milliseconds=10)},
        {"retry_after": timedelta(days=7), "lifetime": timedelta(days=7)},
    ],
)
def test_terms_that_make_no_sense(terms: dict[str, timedelta]) -> None:
    with pytest.raises(ValueError, match=r"retry_after"):
        ApprovalTerms(**terms)  # type: ignore[arg-type]


async def test_a_preview_puts_nothing_into_the_queue(store: Store) -> None:
    assert await store.preview(asking()) == Pending(60)
    assert await queue(store) == []
