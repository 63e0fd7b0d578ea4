"""Devices on no list, which an operator or a user let in, whichever road they take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from est_protocol.credentials import AnchorSet
from est_protocol.errors import RefusalReason, ServerRefused, StillPending
from est_protocol.messages import Transport
from est_server.approvals import ApprovalTerms
from est_server.authorization.birth_certificate import BirthCertificateAuthorizer
from est_server.authorization.known_users import grant_to_user
from est_server.authorization.manual_approval import KeyHolders, ManualApproval
from est_server.birth_certificates import BirthCertificateSettings, ManufacturerRules
from est_server.device_records import DeviceState
from est_server.interfaces import ClientIdentity, EnrollmentRequest, IssuanceGrant
from est_server.life_cycle import LifeCycleStep
from est_server.quotas import QuotaBound
from tests.behaviour.roads import Road
from tests.behaviour.world import KEYS, LABEL, STRICT, Device, World
from tests.pki import make_key

TERMS = ApprovalTerms(retry_after=timedelta(seconds=90))


@pytest.fixture
def anybody(world: World) -> World:
    """Anybody with a key may ask for approval, under two labels."""
    authorizer = ManualApproval(KeyHolders(world.store), TERMS)
    world.change_policy(None, authorizer=authorizer)
    world.change_policy(LABEL, authorizer=authorizer)
    return world


async def pending(road: Road, device: Device, label: str | None = None) -> None:
    async with road.connection(device) as connection:
        with pytest.raises(StillPending):
            await connection.simpleenroll(device.key, label=label)


async def approve(world: World) -> str:
    """Approve the one request that waits; the device that it is of."""
    (waiting,) = [approval async for approval in world.store.approvals()]
    decided = await world.store.decide_approval(
        waiting.number, approve=True, actor="op", reason="seen", now=datetime.now(UTC)
    )
    return decided.device


async def enroll(road: Road, device: Device) -> x509.Certificate:
    async with road.connection(device) as connection:
        return await connection.simpleenroll(device.key)


async def refused(
    world: World, road: Road, device: Device, *, label: str | None = None, renews: bool = False
) -> str | None:
    async with road.connection(device) as connection:
        ask = connection.simplereenroll if renews else connection.simpleenroll
        with pytest.raises(ServerRefused) as refusal:
            await ask(device.key, label=label)
    assert refusal.value.status in (road.forbidden, "4.01")
    return world.last_refusal


async def let_in(world: World, road: Road) -> tuple[Device, Device]:
    """A device that was approved, by its own key and by its certificate."""
    device = world.unlisted_device("a")
    await pending(road, device)
    udid = await approve(world)
    known = Device(udid, device.key, device.chain)
    return known, known.with_certificate(await enroll(road, device))


async def test_a_device_that_was_approved_is_registered(anybody: World, road: Road) -> None:
    device = anybody.unlisted_device("a")
    await pending(road, device)
    assert [known async for known in anybody.store.devices()] == []
    udid = await approve(anybody)
    certificate = await enroll(road, device)
    found = await anybody.store.find_by_udid(udid)
    assert found is not None
    assert found.state is DeviceState.ENROLLED
    assert found.listed.attributes == {"unlisted": "approval"}
    assert found.listed.spki_sha256.hex() == udid
    # Whoever lost the answer gets the same.
    assert await enroll(road, device) == certificate


async def test_it_is_shut_out_on_every_path(anybody: World, road: Road) -> None:
    bare, enrolled = await let_in(anybody, road)
    await anybody.order(bare, LifeCycleStep.SUSPEND)
    for label in (None, LABEL):
        reason = await refused(anybody, road, bare, label=label)
        assert reason == RefusalReason.DEVICE_NOT_ACTIVE
    reason = await refused(anybody, road, enrolled, renews=True)
    assert reason == RefusalReason.DEVICE_NOT_ACTIVE
    await anybody.order(bare, LifeCycleStep.RESUME)
    async with road.connection(enrolled) as connection:
        await connection.simplereenroll(make_key("renewed"))
    await anybody.order(bare, LifeCycleStep.REVOKE)
    assert await refused(anybody, road, bare) == RefusalReason.DEVICE_NOT_ACTIVE


async def test_after_a_reset_an_operator_looks_again(anybody: World, road: Road) -> None:
    bare, enrolled = await let_in(anybody, road)
    await anybody.order(bare, LifeCycleStep.RESET)
    await pending(road, bare)
    assert await approve(anybody) == bare.udid
    again = await enroll(road, bare)
    assert again != enrolled.certificate
    assert await refused(anybody, road, enrolled, renews=True) == (
        RefusalReason.CERTIFICATE_SUPERSEDED
    )


async def test_it_is_on_no_list(anybody: World, road: Road) -> None:
    bare, enrolled = await let_in(anybody, road)
    assert await refused(anybody, road, enrolled, label=STRICT) == RefusalReason.UNKNOWN_DEVICE
    # Over CoAPS a bare key has a certificate that it made itself.
    assert await refused(anybody, road, bare, label=STRICT) == (
        RefusalReason.CERTIFICATE_NOT_TRUSTED
        if road.transport is Transport.COAPS
        else RefusalReason.UNKNOWN_DEVICE
    )


async def test_no_rule_for_birth_certificates_has_looked_at_it(anybody: World, road: Road) -> None:
    device = anybody.unlisted_device("a", born=True)
    await pending(road, device)
    await approve(anybody)
    await enroll(road, device)
    anchors = {"acme": anybody.server_anchors.sets[AnchorSet.MANUFACTURER]}
    settings = BirthCertificateSettings({"acme": ManufacturerRules(QuotaBound(9))})
    by_birth = BirthCertificateAuthorizer(anybody.store, anchors, settings)
    anybody.change_policy(LABEL, authorizer=by_birth)
    assert await refused(anybody, road, device, label=LABEL) == RefusalReason.NOT_AUTHORIZED


async def test_a_device_whose_key_the_server_makes(world: World, road: Road) -> None:
    async def authorize(request: EnrollmentRequest, _: ClientIdentity, /) -> IssuanceGrant:
        return await grant_to_user(
            world.store, request, device="pump", unlisted="http-user", reason="test"
        )

    world.change_policy(KEYS, authorizer=authorize)
    device = world.unlisted_device("line", born=True)
    async with road.connection(device) as connection:
        await connection.serverkeygen()
        found = await world.store.find_by_udid("pump")
        assert found is not None
        # Nobody has proved to hold the key in the request.
        assert await world.store.find_by_key(found.listed.spki_sha256) == found
        for key in (make_key("of no consequence"), device.key):
            assert found.listed.spki_sha256 != connection.csr(key, x509.Name([])).key_sha256
        await world.order(Device("pump", device.key), LifeCycleStep.SUSPEND)
        with pytest.raises(ServerRefused):
            await connection.serverkeygen()
    assert world.last_refusal == RefusalReason.DEVICE_NOT_ACTIVE
