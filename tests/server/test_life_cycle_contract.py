"""What every store must do when an operator takes a step in the life of a device."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.keys import spki_sha256
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.device_records import DeviceState, ListedDevice
from est_server.ledger_records import (
    CertificateState,
    EnrollmentIntent,
    IssuanceTicket,
    IssuedCertificate,
)
from est_server.life_cycle import DeviceOrder, LifeCycleStep, StepNotPossible, state_after
from est_server.revocations import RevocationReason, RevokedCertificate, issuer_of
from tests.pki import make_key
from tests.server.conftest import OpenStore, Store
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    first_enrollment,
    generated_key,
    listed,
    order,
    renewal,
)

ISSUER = issuer_of(certificate())
LISTED_KEY = spki_sha256(make_key("a").public_key())


@pytest.fixture
async def store(open_store: OpenStore, clock: FakeClock) -> AsyncIterator[Store]:
    async with open_store(clock) as store:
        await store.add_devices(
            [ListedDevice("device-1", LISTED_KEY, {"owner": "acme"}), listed(2)], now=clock.now()
        )
        yield store


async def issue(
    store: Store,
    clock: FakeClock,
    intent: EnrollmentIntent,
    *,
    key: str = "a",
    lifetime: timedelta = timedelta(days=90),
) -> IssuedCertificate:
    begun = await store.begin(intent)
    assert isinstance(begun, IssuanceTicket)
    leaf = certificate(key, lifetime=lifetime)
    return await store.complete(begun, leaf, now=clock.now())


async def refused(store: Store, intent: EnrollmentIntent) -> RefusalReason:
    with pytest.raises(RequestRefused) as caught:
        await store.begin(intent)
    return caught.value.reason


async def alarmed(store: Store, intent: EnrollmentIntent) -> AlarmKind:
    with pytest.raises(AlarmingRefusal) as caught:
        await store.begin(intent)
    return caught.value.alarm


async def refused_to_complete(
    store: Store, clock: FakeClock, ticket: IssuanceTicket, leaf: x509.Certificate
) -> RefusalReason:
    with pytest.raises(RequestRefused) as caught:
        await store.complete(ticket, leaf, now=clock.now())
    assert [issued async for issued in store.certificates(device=ticket.intent.device)] == []
    return caught.value.reason


async def state_of(store: Store, issued: IssuedCertificate) -> CertificateState:
    found = await store.find_certificate(issued.sha256)
    assert found is not None
    return found.state


async def entries(store: Store, clock: FakeClock) -> list[RevokedCertificate]:
    found = store.revoked_certificates(ISSUER, valid_at=clock.now())
    return [entry async for entry in found]


# -- Steps -------------------------------------------------------------------------------------


def test_every_step_is_possible_or_refused_in_every_state() -> None:
    possible = {
        (step, state)
        for step, state in itertools.product(LifeCycleStep, DeviceState)
        if _is_possible(step, state)
    }
    assert {state for _, state in possible} == set(DeviceState) - {DeviceState.DECOMMISSIONED}
    assert {state for step, state in possible if step is LifeCycleStep.RESUME} == {
        DeviceState.SUSPENDED
    }
    assert {step for step, state in possible if state is DeviceState.REVOKED} == {
        LifeCycleStep.RESET,
        LifeCycleStep.DECOMMISSION,
    }


def _is_possible(step: LifeCycleStep, state: DeviceState) -> bool:
    try:
        state_after(step, state, DeviceState.ENROLLED)
    except StepNotPossible:
        return False
    return True


@pytest.mark.parametrize(
    ("step", "code", "owner"),
    [
        (LifeCycleStep.TRANSFER, None, None),
        (LifeCycleStep.SUSPEND, None, "b"),
        (LifeCycleStep.SUSPEND, RevocationReason.SUPERSEDED, None),
        (LifeCycleStep.REVOKE, RevocationReason.CERTIFICATE_HOLD, None),
    ],
)
def test_an_order_that_makes_no_sense_is_none(
    step: LifeCycleStep, code: RevocationReason | None, owner: str | None
) -> None:
    with pytest.raises(ValueError, match=r"."):
        DeviceOrder("device-1", step, "a", "r", code, owner)


async def test_a_step_that_is_not_possible_changes_nothing(store: Store, clock: FakeClock) -> None:
    issued = await issue(store, clock, first_enrollment())
    await store.change_device(order(LifeCycleStep.DECOMMISSION), now=clock.now())
    before = await store.device_history("device-1")
    for step in LifeCycleStep:
        with pytest.raises(StepNotPossible):
            await store.change_device(order(step), now=clock.now())
    device = await store.find_by_udid("device-1")
    assert device is not None
    assert device.state is DeviceState.DECOMMISSIONED
    assert await store.device_history("device-1") == before
    assert await refused(store, renewal(issued.sha256)) is RefusalReason.DEVICE_NOT_ACTIVE


async def test_every_step_is_in_the_history(store: Store, clock: FakeClock) -> None:
    await issue(store, clock, first_enrollment())
    steps = [
        LifeCycleStep.SUSPEND,
        LifeCycleStep.RESUME,
        LifeCycleStep.TRANSFER,
        LifeCycleStep.REVOKE,
        LifeCycleStep.RESET,
        LifeCycleStep.DECOMMISSION,
    ]
    for step in steps:
        clock.advance(hours=1)
        await store.change_device(order(step), now=clock.now())
    first, *others = await store.device_history("device-1")
    assert (first.step, first.before, first.after, first.actor) == (
        None,
        DeviceState.LISTED,
        DeviceState.ENROLLED,
        "enrollment",
    )
    assert [entry.step for entry in others] == steps
    assert {(entry.actor, entry.reason) for entry in others} == {("operator", "because")}
    assert [entry.owner for entry in others] == ["acme", "acme", *["somebody"] * 4]
    states = [entry.after for entry in others]
    assert states == ["suspended", "enrolled", "listed", "revoked", "listed", "decommissioned"]
    assert others[-1].when == clock.now()
    assert await store.device_history("device-2") == []


async def test_a_device_that_never_enrolled_resumes_as_listed(
    store: Store, clock: FakeClock
) -> None:
    await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
    change = await store.change_device(order(LifeCycleStep.RESUME), now=clock.now())
    assert change.device.state is DeviceState.LISTED
    await issue(store, clock, first_enrollment())


# -- What becomes of certificates --------------------------------------------------------------


async def test_suspension_puts_certificates_on_hold(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment())
    second = await issue(store, clock, renewal(first.sha256), key="b")
    changes = await store.count_changes(ISSUER)
    change = await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
    assert change.certificates == 2, "the superseded one verifies like any other"
    assert {(entry.serial, entry.reason) for entry in await entries(store, clock)} == {
        (issued.certificate.serial_number, RevocationReason.CERTIFICATE_HOLD)
        for issued in (first, second)
    }
    assert await store.count_changes(ISSUER) > changes
    changes = await store.count_changes(ISSUER)
    await store.change_device(order(LifeCycleStep.RESUME), now=clock.now())
    assert await entries(store, clock) == []
    assert await store.count_changes(ISSUER) > changes
    await issue(store, clock, renewal(second.sha256, key="c"), key="c")


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (LifeCycleStep.REVOKE, RevocationReason.UNSPECIFIED),
        (LifeCycleStep.DECOMMISSION, RevocationReason.CESSATION_OF_OPERATION),
        (LifeCycleStep.TRANSFER, RevocationReason.CESSATION_OF_OPERATION),
    ],
)
async def test_every_good_certificate_is_revoked(
    store: Store, clock: FakeClock, step: LifeCycleStep, code: RevocationReason
) -> None:
    short = await issue(store, clock, first_enrollment(), lifetime=timedelta(hours=1))
    long = await issue(store, clock, first_enrollment(label="vpn"))
    other = await issue(store, clock, first_enrollment("device-2", key="b"), key="b")
    clock.advance(hours=2)
    change = await store.change_device(order(step), now=clock.now())
    assert change.certificates == 1
    assert await state_of(store, short) is CertificateState.ACTIVE, "it had ended by itself"
    assert await state_of(store, long) is CertificateState.REVOKED
    assert await state_of(store, other) is CertificateState.ACTIVE
    [entry] = await entries(store, clock)
    assert (entry.serial, entry.reason) == (long.certificate.serial_number, code)
    assert entry.revoked_at == clock.now()


async def test_what_was_on_hold_can_be_revoked(store: Store, clock: FakeClock) -> None:
    issued = await issue(store, clock, first_enrollment())
    await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
    clock.advance(hours=1)
    await store.change_device(
        order(LifeCycleStep.REVOKE, code=RevocationReason.PRIVILEGE_WITHDRAWN), now=clock.now()
    )
    [entry] = await entries(store, clock)
    assert entry.reason is RevocationReason.PRIVILEGE_WITHDRAWN
    assert entry.revoked_at == clock.now()
    assert await state_of(store, issued) is CertificateState.REVOKED


async def test_a_revocation_outlasts_suspension(store: Store, clock: FakeClock) -> None:
    issued = await issue(store, clock, first_enrollment())
    await store.revoke_certificate(issued.sha256, actor="a", reason="r", now=clock.now())
    await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
    await store.change_device(order(LifeCycleStep.RESUME), now=clock.now())
    [entry] = await entries(store, clock)
    assert entry.reason is RevocationReason.UNSPECIFIED


async def test_a_revocation_may_turn_into_a_compromise_and_not_back(
    store: Store, clock: FakeClock
) -> None:
    issued = await issue(store, clock, first_enrollment())
    since = clock.now()
    codes = [
        RevocationReason.SUPERSEDED,
        RevocationReason.KEY_COMPROMISE,
        RevocationReason.UNSPECIFIED,
    ]
    for code in codes:
        await store.revoke_certificate(
            issued.sha256, actor="a", reason="r", code=code, now=clock.now()
        )
        clock.advance(hours=1)
    [entry] = await entries(store, clock)
    assert (entry.reason, entry.revoked_at) == (RevocationReason.KEY_COMPROMISE, since)


# -- Claims ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [LifeCycleStep.RESET, LifeCycleStep.TRANSFER])
async def test_one_more_first_enrollment_for_each_label(
    store: Store, clock: FakeClock, step: LifeCycleStep
) -> None:
    await issue(store, clock, first_enrollment())
    await issue(store, clock, first_enrollment(label="vpn"))
    change = await store.change_device(order(step), now=clock.now())
    assert change.claims == 2
    assert change.device.state is DeviceState.LISTED
    await issue(store, clock, first_enrollment(key="b"), key="b")
    await issue(store, clock, first_enrollment(key="b", label="vpn"), key="b")
    assert await refused(store, first_enrollment(key="c")) is RefusalReason.ALREADY_CLAIMED


async def test_a_reset_leaves_the_certificate_until_the_next(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment())
    await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
    assert await state_of(store, first) is CertificateState.ACTIVE
    await issue(store, clock, first_enrollment(key="b"), key="b")
    assert await state_of(store, first) is CertificateState.SUPERSEDED


async def test_the_same_request_after_a_reset_is_a_first_enrollment(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment())
    await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
    second = await issue(store, clock, first_enrollment())
    assert await state_of(store, first) is CertificateState.SUPERSEDED
    device = await store.find_by_udid("device-1")
    assert device is not None
    assert device.state is DeviceState.ENROLLED
    # It was one more, and a lost answer is found again.
    assert await store.begin(first_enrollment()) == second
    assert await alarmed(store, first_enrollment(key="b")) is AlarmKind.SECOND_KEY


async def test_a_repeat_finds_nothing_while_another_key_takes_the_claim(
    store: Store, clock: FakeClock
) -> None:
    await issue(store, clock, first_enrollment())
    await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
    begun = await store.begin(first_enrollment(key="b"))
    assert isinstance(begun, IssuanceTicket)
    assert await alarmed(store, first_enrollment()) is AlarmKind.SECOND_KEY
    await store.complete(begun, certificate("b"), now=clock.now())


async def test_a_reset_says_nothing_of_renewals(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment())
    renewed = await issue(store, clock, renewal(first.sha256), key="b")
    await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
    assert await store.begin(renewal(first.sha256)) == renewed


@pytest.mark.parametrize(
    "step",
    [
        LifeCycleStep.REVOKE,
        LifeCycleStep.DECOMMISSION,
        LifeCycleStep.RESET,
        LifeCycleStep.TRANSFER,
    ],
)
async def test_what_is_being_worked_on_comes_to_nothing(
    store: Store, clock: FakeClock, step: LifeCycleStep
) -> None:
    ticket = await store.begin(first_enrollment())
    assert isinstance(ticket, IssuanceTicket)
    await store.change_device(order(step), now=clock.now())
    await refused_to_complete(store, clock, ticket, certificate())


# -- Owners and labels -------------------------------------------------------------------------


async def test_a_label_is_for_its_owners_devices(store: Store, clock: FakeClock) -> None:
    acme, other = frozenset({"acme"}), frozenset({"other"})
    assert (
        await refused(store, replace(first_enrollment(), owners=other))
        is RefusalReason.NOT_AUTHORIZED
    )
    nobody = replace(first_enrollment("unlisted"), owners=acme)
    assert await refused(store, nobody) is RefusalReason.NOT_AUTHORIZED
    issued = await issue(store, clock, replace(first_enrollment(), owners=acme))
    assert await refused(store, replace(renewal(issued.sha256), owners=other)) is (
        RefusalReason.NOT_AUTHORIZED
    )


async def test_a_transfer_that_comes_in_between_counts(store: Store, clock: FakeClock) -> None:
    acme = frozenset({"acme"})
    await store.change_device(order(LifeCycleStep.TRANSFER, owner="other"), now=clock.now())
    assert await refused(store, replace(first_enrollment(), owners=acme)) is (
        RefusalReason.NOT_AUTHORIZED
    )


async def test_the_list_says_which_labels_a_device_may_use(store: Store, clock: FakeClock) -> None:
    picky = listed(3, labels="default, vpn")
    await store.add_devices([picky], now=clock.now())
    await issue(store, clock, first_enrollment("device-3"))
    await issue(store, clock, first_enrollment("device-3", label="vpn"))
    assert await refused(store, first_enrollment("device-3", label="cloud")) is (
        RefusalReason.NOT_AUTHORIZED
    )


# -- Standing ----------------------------------------------------------------------------------


async def standing(store: Store, certificate: bytes | None, key: bytes | None) -> str | None:
    try:
        await store.check_standing(certificate=certificate, keys=() if key is None else (key,))
    except RequestRefused as refusal:
        return None if refusal.device != "device-1" else refusal.reason
    return None


async def test_who_is_shut_out(store: Store, clock: FakeClock) -> None:
    issued = await issue(store, clock, first_enrollment())
    fresh = spki_sha256(make_key("b").public_key())
    shown = (issued.sha256, None), (None, LISTED_KEY), (issued.sha256, fresh)
    for certificate_sha256, key in shown:
        assert await standing(store, certificate_sha256, key) is None
    await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
    for certificate_sha256, key in shown:
        verdict = await standing(store, certificate_sha256, key)
        assert verdict is RefusalReason.DEVICE_NOT_ACTIVE
    await store.change_device(order(LifeCycleStep.RESUME), now=clock.now())
    await store.revoke_certificate(issued.sha256, actor="a", reason="r", now=clock.now())
    assert await standing(store, issued.sha256, fresh) is RefusalReason.CERTIFICATE_REVOKED
    assert await standing(store, None, LISTED_KEY) is None, "the key is as good as ever"
    assert await standing(store, bytes(32), bytes(32)) is None


async def test_a_client_that_is_shut_out_meanwhile_gets_nothing(
    store: Store, clock: FakeClock
) -> None:
    birth = await issue(store, clock, first_enrollment())
    intent = replace(
        first_enrollment(label="vpn", key="b"),
        client_certificate=birth.sha256,
        client_keys=frozenset({LISTED_KEY}),
    )
    ticket = await store.begin(intent)
    assert isinstance(ticket, IssuanceTicket)
    await store.revoke_certificate(birth.sha256, actor="a", reason="r", now=clock.now())
    with pytest.raises(RequestRefused) as caught:
        await store.complete(ticket, certificate("b"), now=clock.now())
    assert caught.value.reason is RefusalReason.CERTIFICATE_REVOKED


# -- Compromised keys --------------------------------------------------------------------------


async def compromise(store: Store, clock: FakeClock, issued: IssuedCertificate) -> None:
    await store.revoke_certificate(
        issued.sha256,
        actor="operator",
        reason="read out",
        code=RevocationReason.KEY_COMPROMISE,
        now=clock.now(),
    )


async def test_a_compromised_key_gets_nothing_more_under_any_label(
    store: Store, clock: FakeClock
) -> None:
    await compromise(store, clock, await issue(store, clock, first_enrollment()))
    for label in (None, "vpn"):
        intent = first_enrollment(label=label)
        assert await refused(store, intent) is RefusalReason.KEY_COMPROMISED
    assert await alarmed(store, first_enrollment(label="vpn")) is AlarmKind.COMPROMISED_KEY
    elsewhere = first_enrollment("device-2")
    assert await refused(store, elsewhere) is RefusalReason.KEY_COMPROMISED
    assert await standing(store, None, LISTED_KEY) is RefusalReason.KEY_COMPROMISED


async def test_nobody_gets_anything_by_a_compromised_key(store: Store, clock: FakeClock) -> None:
    await compromise(store, clock, await issue(store, clock, first_enrollment()))
    for intent in (first_enrollment(label="vpn", key="b"), generated_key(label="vpn")):
        by_key = replace(intent, client_keys=frozenset({LISTED_KEY}))
        assert await refused(store, by_key) is RefusalReason.KEY_COMPROMISED


async def test_all_certificates_of_a_compromised_key_are_revoked(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment())
    second = await issue(store, clock, first_enrollment(label="vpn"))
    third = await issue(store, clock, first_enrollment(label="cloud", key="b"), key="b")
    await compromise(store, clock, first)
    assert await state_of(store, second) is CertificateState.REVOKED
    assert await state_of(store, third) is CertificateState.ACTIVE
    assert {entry.reason for entry in await entries(store, clock)} == {
        RevocationReason.KEY_COMPROMISE
    }
    assert len(await entries(store, clock)) == 2


async def test_a_key_that_is_compromised_meanwhile_is_not_certified(
    store: Store, clock: FakeClock
) -> None:
    ticket = await store.begin(first_enrollment(label="vpn"))
    assert isinstance(ticket, IssuanceTicket)
    await compromise(store, clock, await issue(store, clock, first_enrollment()))
    with pytest.raises(RequestRefused) as caught:
        await store.complete(ticket, certificate(), now=clock.now())
    assert caught.value.reason is RefusalReason.KEY_COMPROMISED


async def test_revoking_a_device_for_compromise_covers_all_of_its_keys(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment(key="b"), key="b")
    await issue(store, clock, renewal(first.sha256, key="c"), key="c")
    change = await store.change_device(
        order(LifeCycleStep.REVOKE, code=RevocationReason.KEY_COMPROMISE), now=clock.now()
    )
    assert change.certificates == 2
    for key in ("a", "b", "c"):
        assert await refused(store, first_enrollment("device-2", key=key)) is (
            RefusalReason.KEY_COMPROMISED
        )
    assert len(await entries(store, clock)) == 2


async def test_a_reset_takes_the_keys_for_sound_again(store: Store, clock: FakeClock) -> None:
    issued = await issue(store, clock, first_enrollment())
    await compromise(store, clock, issued)
    await store.change_device(order(LifeCycleStep.TRANSFER), now=clock.now())
    assert await refused(store, first_enrollment()) is RefusalReason.KEY_COMPROMISED
    await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
    await issue(store, clock, first_enrollment())
    assert await state_of(store, issued) is CertificateState.REVOKED


# -- Signs of cloning --------------------------------------------------------------------------


async def test_signs_of_cloning(store: Store, clock: FakeClock) -> None:
    first = await issue(store, clock, first_enrollment(key="a"))
    assert await alarmed(store, first_enrollment(key="b")) is AlarmKind.SECOND_KEY
    same_key = replace(first_enrollment(key="a"), request_key=bytes(32))
    assert await alarmed(store, same_key) is AlarmKind.SECOND_ENROLLMENT
    await issue(store, clock, renewal(first.sha256), key="b")
    old = renewal(first.sha256, key="c")
    assert await alarmed(store, old) is AlarmKind.OLD_CERTIFICATE


# -- Looking -----------------------------------------------------------------------------------


async def test_certificates_are_listed_by_device_and_by_serial(
    store: Store, clock: FakeClock
) -> None:
    first = await issue(store, clock, first_enrollment())
    second = await issue(store, clock, first_enrollment("device-2", key="b"), key="b")
    third = await issue(store, clock, first_enrollment(label="vpn"))
    everything = [issued.sha256 async for issued in store.certificates()]
    assert everything == [first.sha256, second.sha256, third.sha256]
    mine = [issued.sha256 async for issued in store.certificates(device="device-1")]
    assert mine == [first.sha256, third.sha256]
    serial = f"{second.certificate.serial_number:x}"
    [found] = [issued async for issued in store.certificates(serial=serial)]
    assert found == second
