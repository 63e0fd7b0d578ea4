"""What every ledger must do, whatever keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.keys import spki_sha256
from est_server.device_records import DeviceState
from est_server.ledger_records import (
    CertificateState,
    Claim,
    EnrollmentIntent,
    IssuanceTicket,
    IssuedCertificate,
)
from est_server.life_cycle import LifeCycleStep
from tests.pki import make_key
from tests.server.conftest import OpenStore, Store
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    digest,
    first_enrollment,
    generated_key,
    listed,
    order,
    refusal,
    renewal,
)


@pytest.fixture
async def store(open_store: OpenStore, clock: FakeClock) -> AsyncIterator[Store]:
    async with open_store(clock) as store:
        yield store


async def begin(store: Store, intent: EnrollmentIntent) -> IssuanceTicket:
    begun = await store.begin(intent)
    assert isinstance(begun, IssuanceTicket)
    return begun


async def issue(
    store: Store,
    clock: FakeClock,
    intent: EnrollmentIntent,
    *,
    key: str = "a",
    lifetime: timedelta = timedelta(days=90),
) -> IssuedCertificate:
    ticket = await begin(store, intent)
    return await store.complete(ticket, certificate(key, lifetime=lifetime), now=clock.now())


async def refused(store: Store, intent: EnrollmentIntent) -> RefusalReason:
    with pytest.raises(RequestRefused) as caught:
        await store.begin(intent)
    return caught.value.reason


async def test_a_completed_certificate_is_found(store: Store, clock: FakeClock) -> None:
    leaf = certificate()
    issued = await store.complete(
        await begin(store, first_enrollment(label="vpn")), leaf, now=clock.now()
    )
    assert issued == await store.find_certificate(issued.sha256)
    assert issued.certificate == leaf
    assert (issued.device, issued.label, issued.state) == ("device-1", "vpn", "active")
    assert issued.issued_at == clock.now()


async def test_a_certificate_that_nobody_issued_is_not_found(store: Store) -> None:
    assert await store.find_certificate(digest("nothing")) is None


async def test_a_retry_gets_the_same_certificate(store: Store, clock: FakeClock) -> None:
    issued = await issue(store, clock, first_enrollment())
    assert await store.begin(first_enrollment()) == issued


async def test_a_second_key_is_refused(store: Store, clock: FakeClock) -> None:
    await issue(store, clock, first_enrollment(key="a"))
    assert await refused(store, first_enrollment(key="b")) is RefusalReason.ALREADY_CLAIMED


async def test_a_claim_holds_for_its_label_only(store: Store, clock: FakeClock) -> None:
    await issue(store, clock, first_enrollment(label=None))
    await issue(store, clock, first_enrollment(label="vpn"))
    assert (
        await refused(store, first_enrollment(key="b", label="vpn"))
        is RefusalReason.ALREADY_CLAIMED
    )


async def test_a_certificate_that_expired_is_not_replayed_and_keeps_its_claim(
    store: Store, clock: FakeClock
) -> None:
    await issue(store, clock, first_enrollment(), lifetime=timedelta(hours=1))
    clock.advance(hours=2)
    assert await refused(store, first_enrollment()) is RefusalReason.ALREADY_CLAIMED


async def test_a_superseded_certificate_is_not_replayed(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment())
    await issue(store, clock, renewal(first.sha256), key="b")
    assert await refused(store, first_enrollment()) is RefusalReason.ALREADY_CLAIMED


async def test_a_revoked_certificate_is_not_replayed(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment())
    revoked = await store.revoke_certificate(
        first.sha256, actor="operator", reason="lost", now=clock.now()
    )
    assert revoked.state is CertificateState.REVOKED
    assert await refused(store, first_enrollment()) is RefusalReason.ALREADY_CLAIMED


async def test_revoking_what_was_not_issued_is_a_key_error(store: Store, clock: FakeClock) -> None:
    with pytest.raises(KeyError):
        await store.revoke_certificate(digest("x"), actor="a", reason="r", now=clock.now())


async def test_a_request_that_is_being_worked_on_is_told_to_wait(store: Store) -> None:
    await begin(store, first_enrollment())
    assert await refused(store, first_enrollment()) is RefusalReason.TRY_LATER


async def test_another_key_is_refused_while_the_first_is_being_worked_on(store: Store) -> None:
    await begin(store, first_enrollment(key="a"))
    assert await refused(store, first_enrollment(key="b")) is RefusalReason.ALREADY_CLAIMED


async def test_abandoning_gives_the_claim_back(store: Store, clock: FakeClock) -> None:
    ticket = await begin(store, first_enrollment(key="a"))
    await store.abandon(ticket, reason="the authority is slow", now=clock.now())
    await issue(store, clock, first_enrollment(key="b"), key="b")


async def test_abandoning_twice_leaves_the_next_attempt_alone(
    store: Store, clock: FakeClock
) -> None:
    ticket = await begin(store, first_enrollment())
    await store.abandon(ticket, reason="once", now=clock.now())
    await begin(store, first_enrollment())
    await store.abandon(ticket, reason="twice", now=clock.now())
    assert await refused(store, first_enrollment()) is RefusalReason.TRY_LATER


async def test_abandoning_what_was_issued_changes_nothing(store: Store, clock: FakeClock) -> None:
    ticket = await begin(store, first_enrollment())
    issued = await store.complete(ticket, certificate(), now=clock.now())
    await store.abandon(ticket, reason="too late", now=clock.now())
    assert await store.begin(first_enrollment()) == issued


async def test_completing_twice_with_one_certificate_gives_one_record(
    store: Store, clock: FakeClock
) -> None:
    ticket = await begin(store, first_enrollment())
    leaf = certificate()
    issued = await store.complete(ticket, leaf, now=clock.now())
    assert await store.complete(ticket, leaf, now=clock.now()) == issued


async def test_a_second_certificate_for_one_ticket_is_refused(
    store: Store, clock: FakeClock
) -> None:
    ticket = await begin(store, first_enrollment())
    issued = await store.complete(ticket, certificate(), now=clock.now())
    second = certificate()
    with pytest.raises(RequestRefused) as caught:
        await store.complete(ticket, second, now=clock.now())
    assert caught.value.reason is RefusalReason.TRY_LATER
    assert f"{second.serial_number:x}" in caught.value.detail
    assert await store.begin(first_enrollment()) == issued


async def test_completing_what_was_abandoned_is_refused(store: Store, clock: FakeClock) -> None:
    ticket = await begin(store, first_enrollment())
    await store.abandon(ticket, reason="slow", now=clock.now())
    with pytest.raises(RequestRefused) as caught:
        await store.complete(ticket, certificate(), now=clock.now())
    assert caught.value.reason is RefusalReason.TRY_LATER


async def test_a_certificate_for_another_key_is_not_recorded(
    store: Store, clock: FakeClock
) -> None:
    ticket = await begin(store, first_enrollment(key="a"))
    with pytest.raises(RequestRefused) as caught:
        await store.complete(ticket, certificate("b"), now=clock.now())
    assert caught.value.reason is RefusalReason.INTERNAL_ERROR
    await store.complete(ticket, certificate("a"), now=clock.now())


# Devices


async def test_a_device_that_is_not_active_gets_no_ticket(store: Store, clock: FakeClock) -> None:
    await store.add_devices([listed(1)], now=clock.now())
    for step in (LifeCycleStep.SUSPEND, LifeCycleStep.REVOKE, LifeCycleStep.DECOMMISSION):
        await store.change_device(order(step), now=clock.now())
        assert await refused(store, first_enrollment()) is RefusalReason.DEVICE_NOT_ACTIVE


async def test_a_device_that_is_suspended_gets_no_replay(store: Store, clock: FakeClock) -> None:
    await store.add_devices([listed(1)], now=clock.now())
    await issue(store, clock, first_enrollment())
    await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
    assert await refused(store, first_enrollment()) is RefusalReason.DEVICE_NOT_ACTIVE


async def test_a_device_that_is_suspended_meanwhile_gets_no_certificate(
    store: Store, clock: FakeClock
) -> None:
    await store.add_devices([listed(1)], now=clock.now())
    ticket = await begin(store, first_enrollment())
    await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
    leaf = certificate()
    with pytest.raises(RequestRefused) as caught:
        await store.complete(ticket, leaf, now=clock.now())
    assert caught.value.reason is RefusalReason.DEVICE_NOT_ACTIVE
    issued = await store.find_certificate(digest("x"))
    assert issued is None


async def test_the_first_certificate_makes_a_listed_device_an_enrolled_one(
    store: Store, clock: FakeClock
) -> None:
    await store.add_devices([listed(1)], now=clock.now())
    clock.advance(seconds=1)
    await issue(store, clock, first_enrollment())
    device = await store.find_by_udid("device-1")
    assert device is not None
    assert (device.state, device.changed_at) == (DeviceState.ENROLLED, clock.now())


# Renewal


async def test_a_renewal_supersedes_its_predecessor(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment())
    second = await issue(store, clock, renewal(first.sha256), key="b")
    found = await store.find_certificate(first.sha256)
    assert found is not None
    assert found.state is CertificateState.SUPERSEDED
    assert second.state is CertificateState.ACTIVE


async def test_a_renewal_whose_answer_was_lost_gets_the_same_certificate(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment())
    second = await issue(store, clock, renewal(first.sha256), key="b")
    assert await store.begin(renewal(first.sha256)) == second


async def test_a_predecessor_that_was_superseded_is_refused(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment())
    second = await issue(store, clock, renewal(first.sha256), key="b")
    superseded = RefusalReason.CERTIFICATE_SUPERSEDED
    assert await refused(store, renewal(first.sha256, key="c")) is superseded
    await issue(store, clock, renewal(second.sha256, key="d"), key="d")
    assert await refused(store, renewal(first.sha256, key="b")) is superseded


async def test_a_predecessor_that_was_revoked_is_refused(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment())
    await store.revoke_certificate(first.sha256, actor="operator", reason="", now=clock.now())
    assert await refused(store, renewal(first.sha256)) is RefusalReason.CERTIFICATE_REVOKED


async def test_a_predecessor_that_is_revoked_meanwhile_is_not_renewed(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment())
    ticket = await begin(store, renewal(first.sha256))
    await store.revoke_certificate(first.sha256, actor="operator", reason="", now=clock.now())
    with pytest.raises(RequestRefused) as caught:
        await store.complete(ticket, certificate("b"), now=clock.now())
    assert caught.value.reason is RefusalReason.CERTIFICATE_REVOKED


async def test_a_predecessor_of_another_device_or_label_is_refused(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment())
    mismatch = RefusalReason.IDENTITY_MISMATCH
    assert await refused(store, renewal(first.sha256, "device-2")) is mismatch
    assert await refused(store, renewal(first.sha256, label="vpn")) is mismatch


async def test_a_predecessor_that_nobody_issued_is_refused(store: Store) -> None:
    assert await refused(store, renewal(digest("x"))) is RefusalReason.CERTIFICATE_UNKNOWN


async def test_two_renewals_at_once_wait_for_one_another(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment())
    await begin(store, renewal(first.sha256, key="b"))
    assert await refused(store, renewal(first.sha256, key="c")) is RefusalReason.TRY_LATER


async def test_what_a_key_renews_is_its_one_active_certificate(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment(key="a"))
    key = first.spki_sha256
    assert await store.find_renewable(key, None, lost_since=clock.now()) == first
    assert await store.find_renewable(key, "label", lost_since=clock.now()) is None
    assert await store.find_renewable(digest("x"), None, lost_since=clock.now()) is None
    await issue(store, clock, first_enrollment("device-2", key="a"))
    assert await store.find_renewable(key, None, lost_since=clock.now()) is None


async def test_a_lost_renewal_is_found_again_for_a_while(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment(key="a"))
    intent = renewal(first.sha256, key="a")
    second = await issue(store, clock, intent)
    renewed_at = clock.now()
    lost = await store.find_renewable(first.spki_sha256, None, lost_since=renewed_at)
    assert lost is not None
    assert lost.sha256 == first.sha256
    assert await store.begin(intent) == second
    later = renewed_at + timedelta(microseconds=1)
    assert await store.find_renewable(first.spki_sha256, None, lost_since=later) == second


# An operator gives a claim back


async def test_a_released_claim_can_be_taken_with_another_key(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment(key="a"))
    assert await store.release_claim(
        "device-1", None, actor="operator", reason="repaired", now=clock.now()
    )
    await issue(store, clock, first_enrollment(key="b"), key="b")
    found = await store.find_certificate(first.sha256)
    assert found is not None
    assert found.state is CertificateState.SUPERSEDED


async def test_a_released_claim_can_be_taken_with_the_same_request(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment())
    await store.release_claim("device-1", None, actor="operator", reason="", now=clock.now())
    second = await issue(store, clock, first_enrollment())
    found = await store.find_certificate(first.sha256)
    assert found is not None
    assert found.state is CertificateState.SUPERSEDED
    claim = await store.find_claim("device-1", None)
    assert claim is not None
    assert claim.serial == f"{second.certificate.serial_number:x}"
    assert await store.begin(first_enrollment()) == second


async def test_releasing_a_claim_ends_the_attempt_that_holds_it(
    store: Store, clock: FakeClock
) -> None:
    ticket = await begin(store, first_enrollment())
    await store.release_claim("device-1", None, actor="operator", reason="", now=clock.now())
    with pytest.raises(RequestRefused) as caught:
        await store.complete(ticket, certificate(), now=clock.now())
    assert caught.value.reason is RefusalReason.TRY_LATER


async def test_releasing_a_claim_that_is_free_says_so(store: Store, clock: FakeClock) -> None:
    assert not await store.release_claim("device-1", None, actor="a", reason="", now=clock.now())


# Attempts that die


async def test_a_dead_attempt_is_taken_over_after_its_lease(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as slow, open_store(clock) as quick:
        late = await begin(slow, first_enrollment())
        clock.advance(seconds=29)
        assert await refused(quick, first_enrollment()) is RefusalReason.TRY_LATER
        clock.advance(seconds=1)
        issued = await issue(quick, clock, first_enrollment())
        with pytest.raises(RequestRefused) as caught:
            await slow.complete(late, certificate(), now=clock.now())
        assert caught.value.reason is RefusalReason.TRY_LATER
        await slow.abandon(late, reason="refused", now=clock.now())
        assert await slow.begin(first_enrollment()) == issued


async def test_the_claim_of_a_dead_attempt_is_free_for_another_key(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as slow, open_store(clock) as quick:
        await begin(slow, first_enrollment(key="a"))
        clock.advance(seconds=31)
        await issue(quick, clock, first_enrollment(key="b"), key="b")


async def test_an_attempt_that_was_late_but_not_taken_over_completes(
    store: Store, clock: FakeClock
) -> None:
    ticket = await begin(store, first_enrollment())
    clock.advance(minutes=5)
    await store.complete(ticket, certificate(), now=clock.now())


async def test_a_process_that_restarts_with_its_identity_takes_over_at_once(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock, owner="worker-1") as store:
        await begin(store, first_enrollment())
    async with open_store(clock, owner="worker-1") as store:
        await issue(store, clock, first_enrollment())


async def test_a_ticket_that_its_caller_never_got_is_taken_over_at_once(
    store: Store, clock: FakeClock
) -> None:
    caller = asyncio.create_task(store.begin(first_enrollment()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    # When this has been written, so has what the caller no longer waits for.
    await store.record_refusal(refusal())
    await issue(store, clock, first_enrollment())


# Concurrency


async def test_of_fifty_first_enrollments_exactly_one_gets_a_ticket(store: Store) -> None:
    intents = [first_enrollment(key=f"key-{number % 5}") for number in range(50)]
    results = await asyncio.gather(
        *(store.begin(intent) for intent in intents), return_exceptions=True
    )
    tickets = [result for result in results if isinstance(result, IssuanceTicket)]
    refusals = [result for result in results if isinstance(result, RequestRefused)]
    assert (len(tickets), len(refusals)) == (1, 49)
    winner = tickets[0].intent.request_key
    for intent, result in zip(intents, results, strict=True):
        if isinstance(result, RequestRefused):
            same = intent.request_key == winner
            expected = RefusalReason.TRY_LATER if same else RefusalReason.ALREADY_CLAIMED
            assert result.reason is expected


async def test_of_fifty_first_enrollments_over_two_stores_exactly_one_gets_a_ticket(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as one, open_store(clock) as two:
        results = await asyncio.gather(
            *((one, two)[number % 2].begin(first_enrollment()) for number in range(50)),
            return_exceptions=True,
        )
    assert sum(isinstance(result, IssuanceTicket) for result in results) == 1
    assert sum(isinstance(result, RequestRefused) for result in results) == 49


async def test_many_devices_enroll_at_once(store: Store, clock: FakeClock) -> None:
    intents = [first_enrollment(f"device-{number}") for number in range(40)]
    issued = await asyncio.gather(*(issue(store, clock, intent) for intent in intents))
    assert [one.device for one in issued] == [intent.device for intent in intents]
    assert len({one.sha256 for one in issued}) == 40


async def test_what_one_store_issued_the_other_knows(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as one, open_store(clock) as two:
        issued = await issue(one, clock, first_enrollment())
        assert await two.find_certificate(issued.sha256) == issued
        assert await two.begin(first_enrollment()) == issued


async def test_everything_survives_closing(open_store: OpenStore, clock: FakeClock) -> None:
    async with open_store(clock) as store:
        await store.add_devices([listed(1, model="x")], now=clock.now())
        issued = await issue(store, clock, first_enrollment())
    async with open_store(clock) as store:
        assert await store.begin(first_enrollment()) == issued
        assert await refused(store, first_enrollment(key="b")) is RefusalReason.ALREADY_CLAIMED


# -- Generated keys ----------------------------------------------------------------------------


async def test_a_generated_key_takes_the_claim(store: Store, clock: FakeClock) -> None:
    issued = await issue(store, clock, generated_key(), key="made here")
    assert issued.spki_sha256 == spki_sha256(make_key("made here").public_key())
    assert await refused(store, first_enrollment()) is RefusalReason.ALREADY_CLAIMED
    assert await refused(store, generated_key(client="b")) is RefusalReason.ALREADY_CLAIMED
    await issue(store, clock, generated_key("device-2"))
    await issue(store, clock, generated_key(label="vpn"))


async def test_an_enrolled_device_gets_no_generated_key(store: Store, clock: FakeClock) -> None:
    await issue(store, clock, first_enrollment())
    assert await refused(store, generated_key()) is RefusalReason.ALREADY_CLAIMED


async def test_what_gets_no_certificate_gives_the_claim_back(
    store: Store, clock: FakeClock
) -> None:
    ticket = await begin(store, generated_key())
    await store.abandon(ticket, reason="no entropy", now=clock.now())
    await begin(store, first_enrollment())


async def test_a_lost_generated_key_is_replaced(store: Store, clock: FakeClock) -> None:
    lost = await issue(store, clock, generated_key(), key="lost")
    clock.advance(minutes=1)
    found = await issue(store, clock, generated_key(), key="found")
    assert found.spki_sha256 != lost.spki_sha256
    was = await store.find_certificate(lost.sha256)
    assert was is not None
    assert (was.state, found.state) == (CertificateState.SUPERSEDED, CertificateState.ACTIVE)
    # The claim is the first one's still: nobody else comes in by the retry.
    assert await refused(store, generated_key(client="b")) is RefusalReason.ALREADY_CLAIMED


async def test_the_time_to_retry_begins_with_the_first_certificate(
    store: Store, clock: FakeClock
) -> None:
    await issue(store, clock, generated_key(), key="first")
    clock.advance(minutes=4)
    await issue(store, clock, generated_key(lost_since=clock.now() - timedelta(minutes=5)))
    clock.advance(minutes=4)
    late = generated_key(lost_since=clock.now() - timedelta(minutes=5))
    assert await refused(store, late) is RefusalReason.ALREADY_CLAIMED


async def test_without_a_time_to_retry_nothing_is_replaced(store: Store, clock: FakeClock) -> None:
    await issue(store, clock, generated_key())
    assert await refused(store, generated_key(lost_since=None)) is RefusalReason.ALREADY_CLAIMED


async def test_a_generated_key_that_was_used_is_not_replaced(
    store: Store, clock: FakeClock
) -> None:
    issued = await issue(store, clock, generated_key())
    await issue(store, clock, renewal(issued.sha256), key="b")
    assert await refused(store, generated_key()) is RefusalReason.ALREADY_CLAIMED


async def test_a_revoked_generated_key_is_not_replaced(store: Store, clock: FakeClock) -> None:
    issued = await issue(store, clock, generated_key())
    await store.revoke_certificate(issued.sha256, actor="test", reason="test", now=clock.now())
    assert await refused(store, generated_key()) is RefusalReason.ALREADY_CLAIMED


async def test_a_key_that_is_revoked_while_it_is_replaced(store: Store, clock: FakeClock) -> None:
    issued = await issue(store, clock, generated_key())
    ticket = await begin(store, generated_key())
    await store.revoke_certificate(issued.sha256, actor="test", reason="test", now=clock.now())
    with pytest.raises(RequestRefused):
        await store.complete(ticket, certificate("late"), now=clock.now())


async def test_giving_up_a_retry_keeps_the_claim(store: Store, clock: FakeClock) -> None:
    await issue(store, clock, generated_key())
    ticket = await begin(store, generated_key())
    await store.abandon(ticket, reason="gave up", now=clock.now())
    assert await refused(store, first_enrollment()) is RefusalReason.ALREADY_CLAIMED


async def test_a_released_claim_is_taken_anew(store: Store, clock: FakeClock) -> None:
    await issue(store, clock, generated_key(), key="first")
    await store.release_claim("device-1", None, actor="test", reason="test", now=clock.now())
    await issue(store, clock, generated_key(), key="second")
    assert await refused(store, first_enrollment()) is RefusalReason.ALREADY_CLAIMED


async def test_a_generated_key_succeeds_a_certificate(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment())
    intent = generated_key(predecessor=first.sha256)
    lost = await issue(store, clock, intent, key="lost")
    found = await issue(store, clock, intent, key="found")
    states = [await store.find_certificate(sha256) for sha256 in (first.sha256, lost.sha256)]
    assert [was and was.state for was in states] == [CertificateState.SUPERSEDED] * 2
    assert found.state is CertificateState.ACTIVE
    other = generated_key(predecessor=first.sha256, client="b")
    assert await refused(store, other) is RefusalReason.CERTIFICATE_SUPERSEDED
    late = generated_key(predecessor=first.sha256, lost_since=clock.now() + timedelta(minutes=1))
    assert await refused(store, late) is RefusalReason.CERTIFICATE_SUPERSEDED


async def test_two_requests_for_one_generated_key_at_once(store: Store) -> None:
    await begin(store, generated_key())
    assert await refused(store, generated_key()) is RefusalReason.TRY_LATER


# -- Previews ---------------------------------------------------------------------------------


async def test_a_preview_takes_nothing(store: Store, clock: FakeClock) -> None:
    for _ in range(2):
        assert await store.preview(first_enrollment()) is None
    assert await store.find_claim("device-1", None) is None
    assert isinstance(await store.begin(first_enrollment()), IssuanceTicket)


async def test_a_preview_says_what_is_repeated_and_what_is_refused(
    store: Store, clock: FakeClock
) -> None:
    ticket = await store.begin(first_enrollment())
    assert isinstance(ticket, IssuanceTicket)
    with pytest.raises(RequestRefused) as refused:
        await store.preview(first_enrollment())
    assert refused.value.reason is RefusalReason.TRY_LATER
    issued = await store.complete(ticket, certificate(), now=clock.now())
    assert await store.preview(first_enrollment()) == issued
    with pytest.raises(RequestRefused) as refused:
        await store.preview(first_enrollment(key="b"))
    assert refused.value.reason is RefusalReason.ALREADY_CLAIMED


async def test_a_preview_leaves_dead_attempts_to_those_who_take_over(
    store: Store, clock: FakeClock
) -> None:
    ticket = await store.begin(first_enrollment())
    assert isinstance(ticket, IssuanceTicket)
    clock.advance(hours=1)
    assert await store.preview(first_enrollment(key="b")) is None
    assert await store.complete(ticket, certificate(), now=clock.now())


async def test_a_claim_is_found_with_what_it_was_used_for(store: Store, clock: FakeClock) -> None:
    ticket = await store.begin(first_enrollment())
    assert isinstance(ticket, IssuanceTicket)
    begun = await store.find_claim("device-1", None)
    assert begun == Claim(ticket.number, ticket.intent.requested_at, None)
    issued = await store.complete(ticket, certificate(), now=clock.now())
    claim = await store.find_claim("device-1", None)
    assert claim is not None
    assert claim.serial == f"{issued.certificate.serial_number:x}"
    assert await store.find_claim("device-1", "other") is None
    assert await store.find_claim("device-2", None) is None
