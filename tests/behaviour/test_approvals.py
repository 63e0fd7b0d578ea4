"""First enrollments that an operator has to approve, and bounded ones, whichever road they take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from est_protocol.errors import RefusalReason, ServerRefused, StillPending
from est_server.approvals import Approval, ApprovalTerms
from est_server.authorization.device_list import DeviceListAuthorizer
from est_server.authorization.manual_approval import KeyHolders, ManualApproval
from est_server.quotas import DeviceQuotas, QuotaBound
from est_server.service import EnrollmentService
from tests.behaviour.roads import Road
from tests.behaviour.world import Device, World
from tests.pki import make_key

TERMS = ApprovalTerms(retry_after=timedelta(seconds=90))


@pytest.fixture
def listed(world: World) -> World:
    """A listed device needs approval too."""
    authorizer = ManualApproval(DeviceListAuthorizer(world.store), TERMS)
    world.change_policy(None, authorizer=authorizer)
    return world


@pytest.fixture
def anybody(world: World) -> World:
    """Anybody with a key may ask for approval."""
    world.change_policy(None, authorizer=ManualApproval(KeyHolders(world.store), TERMS))
    return world


async def decide(world: World, *, approve: bool) -> Approval:
    """Decide about the one request that waits."""
    (waiting,) = [approval async for approval in world.store.approvals()]
    return await world.store.decide_approval(
        waiting.number, approve=approve, actor="op", reason="seen", now=datetime.now(UTC)
    )


async def pending(road: Road, device: Device) -> None:
    async with road.connection(device) as connection:
        with pytest.raises(StillPending) as waits:
            await connection.simpleenroll(device.key)
    assert waits.value.retry_after == 90


async def refused(world: World, road: Road, device: Device) -> str | None:
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.simpleenroll(device.key)
    assert refusal.value.status == road.forbidden
    return world.last_refusal


async def test_approved_after_a_while_over_other_channels(listed: World, road: Road) -> None:
    device = await listed.list_device("a")
    for _ in range(2):
        # Another channel, so another CSR, each time.
        await pending(road, device)
    assert listed.audit.entries[-1]["outcome"] == "pending"
    await decide(listed, approve=True)
    async with road.connection(device) as connection:
        certificate = await connection.simpleenroll(device.key)
        assert certificate == await connection.simpleenroll(device.key)
    # The certificate that was approved is enough to renew it.
    async with road.connection(device.with_certificate(certificate)) as connection:
        await connection.simplereenroll(make_key("renewed"))


async def test_denied(listed: World, road: Road) -> None:
    device = await listed.list_device("a")
    await pending(road, device)
    await decide(listed, approve=False)
    assert await refused(listed, road, device) == RefusalReason.APPROVAL_DENIED
    assert listed.issued_count() == 0


async def test_who_is_not_listed_does_not_get_into_the_queue(listed: World, road: Road) -> None:
    device = listed.unlisted_device("a", born=True)
    assert await refused(listed, road, device) == RefusalReason.UNKNOWN_DEVICE
    assert [approval async for approval in listed.store.approvals()] == []


async def test_a_device_that_nobody_knows(anybody: World, road: Road) -> None:
    device = anybody.unlisted_device("a")
    await pending(road, device)
    approval = await decide(anybody, approve=True)
    assert approval.spki_sha256 is not None
    assert approval.device == approval.spki_sha256.hex()
    async with road.connection(device) as connection:
        certificate = await connection.simpleenroll(device.key)
    assert certificate.subject.rfc4514_string() == f"CN={approval.device}"


async def test_an_approval_is_for_one_key(anybody: World, road: Road) -> None:
    device = anybody.unlisted_device("a", born=True)
    async with road.connection(device) as connection:
        with pytest.raises(StillPending):
            await connection.simpleenroll(make_key("one"))
    await decide(anybody, approve=True)
    async with road.connection(device) as connection:
        with pytest.raises(StillPending):
            await connection.simpleenroll(make_key("two"))
        await connection.simpleenroll(make_key("one"))


async def test_a_key_that_was_not_proved_on_the_channel(anybody: World, road: Road) -> None:
    device = anybody.unlisted_device("a", born=True)
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.simpleenroll(make_key("another"), linked=False)
    assert anybody.last_refusal == RefusalReason.AUTHENTICATION_REQUIRED


async def test_a_request_that_waits_is_known_to_a_server_that_was_started_again(
    listed: World, road: Road
) -> None:
    device = await listed.list_device("a")
    await pending(road, device)
    again = EnrollmentService({None: listed.policy(None)}, listed.store)
    listed.service._issuance = again._issuance
    await decide(listed, approve=True)
    async with road.connection(device) as connection:
        await connection.simpleenroll(device.key)


async def test_an_owner_who_has_had_enough(world: World, road: Road) -> None:
    quotas = DeviceQuotas(owners={"acme": QuotaBound(1), "*": QuotaBound(1, timedelta(days=1))})
    world.change_policy(None, authorizer=DeviceListAuthorizer(world.store, quotas=quotas))
    first = await world.list_device("a", owner="acme")
    second = await world.list_device("b", owner="acme")
    async with road.connection(first) as connection:
        certificate = await connection.simpleenroll(first.key)
    assert await refused(world, road, second) == RefusalReason.QUOTA_EXCEEDED
    # A renewal takes nothing, and neither does a retry.
    async with road.connection(first) as connection:
        assert await connection.simpleenroll(first.key) == certificate
    async with road.connection(first.with_certificate(certificate)) as connection:
        await connection.simplereenroll(make_key("renewed"))
    assert world.issued_count() == 2


async def test_an_owner_who_has_to_wait(world: World, road: Road) -> None:
    quotas = DeviceQuotas(owners={"*": QuotaBound(1, timedelta(days=36500))})
    world.change_policy(None, authorizer=DeviceListAuthorizer(world.store, quotas=quotas))
    first, second = await world.list_device("a"), await world.list_device("b")
    async with road.connection(first) as connection:
        await connection.simpleenroll(first.key)
    async with road.connection(second) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.simpleenroll(second.key)
    assert refusal.value.status in ("429", "4.29")
    if road.name != "in-process":
        assert refusal.value.retry_after is not None
        assert refusal.value.retry_after > 86400
