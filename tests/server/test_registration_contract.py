"""What every store must do about devices that are registered with their first enrollment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Pending
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.approvals import ApprovalTerms
from est_server.device_records import DeviceState, ListedDevice, Registration
from est_server.ledger_records import CertificateState, EnrollmentIntent, IssuanceTicket
from est_server.life_cycle import LifeCycleStep, StepNotPossible
from est_server.quotas import Quota
from tests.server.conftest import OpenStore, Store
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    digest,
    first_enrollment,
    listed,
    order,
    renewal,
)

TWO = Quota("manufacturer", 2)


@pytest.fixture
async def store(open_store: OpenStore, clock: FakeClock) -> AsyncIterator[Store]:
    async with open_store(clock) as store:
        yield store


def registering(
    device: str = "device-1",
    *,
    birth_key: str | None = None,
    state: DeviceState = DeviceState.LISTED,
    served: bool = False,
    label: str | None = None,
    quota: Quota = TWO,
) -> EnrollmentIntent:
    new = ListedDevice(device, digest(f"birth {birth_key or device}"), {"owner": "acme"})
    return replace(
        first_enrollment(device, label=label),
        registration=Registration(new, state, (quota,)),
        serve_quarantined=served,
    )


async def begin(store: Store, intent: EnrollmentIntent) -> IssuanceTicket:
    begun = await store.begin(intent)
    assert isinstance(begun, IssuanceTicket)
    return begun


async def refused(store: Store, intent: EnrollmentIntent) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        await store.begin(intent)
    return caught.value


async def state(store: Store, udid: str = "device-1") -> DeviceState | None:
    device = await store.find_by_udid(udid)
    return device.state if device else None


async def take(store: Store, clock: FakeClock, step: LifeCycleStep) -> DeviceState:
    return (await store.change_device(order(step), now=clock.now())).device.state


async def test_registered_with_the_claim(store: Store, clock: FakeClock) -> None:
    ticket = await begin(store, registering())
    device = await store.find_by_key(digest("birth device-1"))
    assert device is not None
    assert (device.udid, device.owner, device.list_number) == ("device-1", "acme", None)
    await store.complete(ticket, certificate(), now=clock.now())
    assert await state(store) is DeviceState.ENROLLED
    first, second = await store.device_history("device-1")
    assert first.reason == "registered by its birth certificate"
    assert second.after is DeviceState.ENROLLED


async def test_nothing_is_registered_for_a_request_that_is_refused(store: Store) -> None:
    for intent in (
        replace(registering(), secret=4711),
        replace(registering(), owners=frozenset({"other"})),
        replace(registering(), quotas=(Quota("used", 1),)),
    ):
        if intent.quotas:
            await begin(store, replace(first_enrollment("other"), quotas=intent.quotas))
        await refused(store, intent)
        assert await state(store) is None
    # Nor was anything counted.
    await begin(store, registering("a"))
    await begin(store, registering("b"))
    assert (await refused(store, registering("c"))).reason is RefusalReason.QUOTA_EXCEEDED
    assert await state(store, "c") is None


async def test_a_preview_registers_nothing(store: Store) -> None:
    assert await store.preview(registering()) is None
    held = registering(state=DeviceState.QUARANTINED)
    with pytest.raises(RequestRefused, match="quarantine"):
        await store.preview(held)
    assert await state(store) is None


async def test_nothing_is_registered_while_an_operator_is_asked(store: Store) -> None:
    waits = replace(registering(), approval=ApprovalTerms(retry_after=timedelta(seconds=9)))
    assert await store.begin(waits) == Pending(9)
    assert await state(store) is None


async def test_an_attempt_that_is_abandoned_counts_once(store: Store, clock: FakeClock) -> None:
    for _ in range(3):
        ticket = await begin(store, registering("a"))
        await store.abandon(ticket, reason="test", now=clock.now())
    await begin(store, registering("b"))
    assert (await refused(store, registering("c"))).reason is RefusalReason.QUOTA_EXCEEDED


async def test_under_another_label_it_counts_no_second_time(store: Store) -> None:
    for label in (None, "one", "two"):
        await begin(store, registering(label=label))
    await begin(store, registering("b"))


async def test_an_identifier_with_another_key(store: Store) -> None:
    await begin(store, registering())
    clone = replace(registering(birth_key="another"), request_key=digest("clone"))
    with pytest.raises(AlarmingRefusal) as caught:
        await store.begin(clone)
    assert caught.value.reason is RefusalReason.IDENTITY_MISMATCH
    assert caught.value.alarm is AlarmKind.SECOND_KEY


async def test_a_key_with_another_identifier(store: Store) -> None:
    await begin(store, registering())
    intent = registering("device-2", birth_key="device-1")
    assert (await refused(store, intent)).reason is RefusalReason.IDENTITY_MISMATCH
    assert await state(store, "device-2") is None


async def test_a_listed_device_is_not_changed(store: Store, clock: FakeClock) -> None:
    await store.add_devices([listed(1)], now=clock.now())
    assert (await refused(store, registering())).reason is RefusalReason.IDENTITY_MISMATCH
    device = await store.find_by_udid("device-1")
    assert device is not None
    assert device.listed == listed(1)


async def test_a_quota_is_exact_for_many_at_one_time(store: Store) -> None:
    quota = Quota("ten", 10)
    outcomes = await asyncio.gather(
        *(store.begin(registering(f"device-{n}", quota=quota)) for n in range(30)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, IssuanceTicket) for outcome in outcomes) == 10
    assert len([device async for device in store.devices()]) == 10


# -- Let in by a secret, a user or an operator -----------------------------------------------------


def letting_in(device: str = "device-1", *, key: str = "a") -> EnrollmentIntent:
    intent = first_enrollment(device, key=key)
    assert intent.spki_sha256 is not None
    new = ListedDevice(device, intent.spki_sha256, {"unlisted": "one-time-secret"})
    return replace(intent, registration=Registration(new, DeviceState.LISTED))


async def test_who_is_let_in_is_registered(store: Store, clock: FakeClock) -> None:
    await store.complete(await begin(store, letting_in()), certificate(), now=clock.now())
    device = await store.find_by_udid("device-1")
    assert device is not None
    assert (device.state, device.owner, device.list_number) == (DeviceState.ENROLLED, None, None)
    assert device.is_provisioned
    registered, _ = await store.device_history("device-1")
    assert registered.reason == "registered by one-time-secret"


@pytest.mark.parametrize(
    "step", [LifeCycleStep.SUSPEND, LifeCycleStep.REVOKE, LifeCycleStep.DECOMMISSION]
)
async def test_who_is_let_in_can_be_shut_out(
    store: Store, clock: FakeClock, step: LifeCycleStep
) -> None:
    ticket = await begin(store, letting_in())
    issued = await store.complete(ticket, certificate(), now=clock.now())
    await take(store, clock, step)
    for intent in (letting_in(), letting_in(key="b"), renewal(issued.sha256)):
        assert (await refused(store, intent)).reason is RefusalReason.DEVICE_NOT_ACTIVE
    for shown in (issued.sha256, None):
        with pytest.raises(RequestRefused):
            await store.check_standing(certificate=shown, keys=[issued.spki_sha256])


async def test_who_is_let_in_may_come_with_another_key_after_a_reset(
    store: Store, clock: FakeClock
) -> None:
    one = Quota("owner", 1)
    first = replace(letting_in(), quotas=(one,))
    issued = await store.complete(await begin(store, first), certificate(), now=clock.now())
    second = replace(letting_in(key="b"), quotas=(one,))
    assert (await refused(store, second)).reason is RefusalReason.ALREADY_CLAIMED
    assert await take(store, clock, LifeCycleStep.RESET) is DeviceState.LISTED
    again = await store.complete(await begin(store, second), certificate("b"), now=clock.now())
    assert await store.begin(second) == again
    found = await store.find_certificate(issued.sha256)
    assert found is not None
    assert found.state is CertificateState.SUPERSEDED
    # It is the same device, known by the key that it came with first.
    assert await store.find_by_key(issued.spki_sha256) is not None
    assert await state(store) is DeviceState.ENROLLED
    other = replace(letting_in("device-2", key="c"), quotas=(one,))
    assert (await refused(store, other)).reason is RefusalReason.QUOTA_EXCEEDED
    assert await state(store, "device-2") is None


async def test_who_is_let_in_may_come_with_two_keys_at_one_time(store: Store) -> None:
    elsewhere = replace(letting_in(key="b"), label="vpn", request_key=digest("vpn"))
    await begin(store, letting_in())
    await begin(store, elsewhere)
    # But with nobody else's.
    taken = replace(letting_in("device-2"), label="vpn", request_key=digest("taken"))
    assert (await refused(store, taken)).reason is RefusalReason.IDENTITY_MISMATCH


async def test_who_was_let_in_before_there_were_records_renews_without_one(
    store: Store, clock: FakeClock
) -> None:
    ticket = await begin(store, first_enrollment())
    issued = await store.complete(ticket, certificate(), now=clock.now())
    renewed = await begin(store, renewal(issued.sha256))
    await store.complete(renewed, certificate("b"), now=clock.now())
    assert await state(store) is None


# -- Quarantine ------------------------------------------------------------------------------------


async def test_registered_but_refused_until_it_is_released(store: Store, clock: FakeClock) -> None:
    intent = registering(state=DeviceState.QUARANTINED)
    for _ in range(2):
        assert (await refused(store, intent)).reason is RefusalReason.DEVICE_QUARANTINED
        assert await state(store) is DeviceState.QUARANTINED
    assert await take(store, clock, LifeCycleStep.RELEASE) is DeviceState.LISTED
    await store.complete(await begin(store, intent), certificate(), now=clock.now())
    assert await state(store) is DeviceState.ENROLLED
    # Refused or not, it was counted once.
    await begin(store, registering("b"))
    assert (await refused(store, registering("c"))).reason is RefusalReason.QUOTA_EXCEEDED


async def test_served_in_quarantine_where_the_label_says_so(store: Store, clock: FakeClock) -> None:
    served = registering(state=DeviceState.QUARANTINED, served=True)
    ticket = await begin(store, served)
    issued = await store.complete(ticket, certificate(), now=clock.now())
    assert await state(store) is DeviceState.QUARANTINED
    elsewhere = registering(label="other")
    assert (await refused(store, elsewhere)).reason is RefusalReason.DEVICE_QUARANTINED
    renewed = renewal(issued.sha256)
    assert (await refused(store, renewed)).reason is RefusalReason.DEVICE_QUARANTINED
    assert await take(store, clock, LifeCycleStep.RELEASE) is DeviceState.ENROLLED
    await begin(store, renewed)
    await begin(store, elsewhere)


async def test_what_was_put_into_quarantine_meanwhile_is_not_issued(
    store: Store, clock: FakeClock
) -> None:
    ticket = await begin(store, registering(state=DeviceState.QUARANTINED, served=True))
    unserved = IssuanceTicket(ticket.number, replace(ticket.intent, serve_quarantined=False))
    with pytest.raises(RequestRefused, match="quarantine"):
        await store.complete(unserved, certificate(), now=clock.now())


async def test_only_a_release_ends_it(store: Store, clock: FakeClock) -> None:
    await refused(store, registering(state=DeviceState.QUARANTINED))
    for step in (LifeCycleStep.RESET, LifeCycleStep.TRANSFER, LifeCycleStep.RESUME):
        with pytest.raises(StepNotPossible):
            await take(store, clock, step)
    await take(store, clock, LifeCycleStep.SUSPEND)
    assert await take(store, clock, LifeCycleStep.RESUME) is DeviceState.QUARANTINED
    await take(store, clock, LifeCycleStep.SUSPEND)
    await take(store, clock, LifeCycleStep.REVOKE)
    assert await take(store, clock, LifeCycleStep.RESET) is DeviceState.QUARANTINED
    await take(store, clock, LifeCycleStep.RELEASE)
    await take(store, clock, LifeCycleStep.REVOKE)
    assert await take(store, clock, LifeCycleStep.RESET) is DeviceState.LISTED
    with pytest.raises(StepNotPossible):
        await take(store, clock, LifeCycleStep.RELEASE)
