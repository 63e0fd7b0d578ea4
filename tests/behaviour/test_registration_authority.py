"""Enrolling through a registration authority, whichever road it takes, and pretending to be one."""

from __future__ import annotations

import pytest

from est_protocol import pkcs10
from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.errors import RefusalReason, ServerRefused
from est_protocol.keys import spki_sha256
from est_protocol.operations import Operation
from est_server.ledger_records import CertificateState
from est_server.life_cycle import LifeCycleStep
from tests.behaviour.roads import Road
from tests.behaviour.world import (
    LABEL,
    REGISTERED,
    REGISTERED_KEYS,
    VOUCHED,
    AuditRecords,
    Device,
    World,
)
from tests.pki import make_key, make_name

#: The binding of the channel between a device and its registration authority.
ELSEWHERE = ChannelBinding(ChannelBindingType.TLS_EXPORTER, bytes(range(32)))


def request_of(
    device: Device, *, name: str = "", binding: ChannelBinding | None = ELSEWHERE
) -> bytes:
    """What a device gave to its registration authority."""
    return pkcs10.build(device.key, make_name(name or device.udid), binding=binding).der


async def forward(
    road: Road,
    authority: Device,
    request: bytes,
    *,
    label: str | None = REGISTERED,
    operation: Operation = Operation.SIMPLEENROLL,
) -> bytes:
    """Send a device's request over a channel of the registration authority; the key certified."""
    async with road.connection(authority) as connection:
        certificate = await connection.post(operation, request, label=label)
    return spki_sha256(certificate.public_key())


@pytest.mark.conformance("AUTH-16")
async def test_a_listed_device_enrolls_through_a_registration_authority(
    world: World, road: Road, audit: AuditRecords
) -> None:
    device = await world.list_device("a")
    authority = world.registration_authority()
    async with road.connection(authority) as connection:
        certificate = await connection.post(
            Operation.SIMPLEENROLL, request_of(device, binding=None), label=REGISTERED
        )
    assert certificate.subject == make_name(device.udid)
    assert spki_sha256(certificate.public_key()) == spki_sha256(device.key.public_key())
    entry = audit.entries[-1]
    assert (entry["registration_authority"], entry["device"]) == ("CN=ra", device.udid)
    assert b"through CN=ra" in world.octets_at_rest()


@pytest.mark.conformance("AUTH-17")
@pytest.mark.parametrize("issuer", ["manufacturer", "itself", "labelled"])
async def test_the_usage_in_a_certificate_of_anybody_else_confers_nothing(
    world: World, road: Road, issuer: str
) -> None:
    """``labelled`` is another CA of this server, which may issue the same name."""
    device = await world.list_device("a")
    pretender = world.registration_authority(issuer=issuer)
    with pytest.raises(ServerRefused) as refusal:
        await forward(road, pretender, request_of(device, binding=None))
    assert refusal.value.status == road.forbidden
    assert world.issued_count() == 0


@pytest.mark.conformance("AUTH-16")
async def test_an_ordinary_client_is_no_registration_authority(world: World, road: Road) -> None:
    device = await world.list_device("a")
    other = await world.list_device("ra", born=True)
    with pytest.raises(ServerRefused):
        await forward(road, other, request_of(device, binding=None))
    assert world.last_refusal == RefusalReason.IDENTITY_MISMATCH
    assert world.issued_count() == 0


async def test_an_operational_certificate_of_the_right_name_lacks_the_usage(
    world: World, road: Road
) -> None:
    device = await world.list_device("a")
    authority = world.registration_authority()
    plain = world.operational("ra", authority.key)
    with pytest.raises(ServerRefused):
        await forward(road, plain, request_of(device, binding=None))
    assert world.issued_count() == 0


@pytest.mark.parametrize("label", [None, LABEL])
async def test_a_label_knows_no_registration_authority_by_default(
    world: World, road: Road, label: str | None
) -> None:
    device = await world.list_device("a")
    with pytest.raises(ServerRefused):
        await forward(
            road, world.registration_authority(), request_of(device, binding=None), label=label
        )
    assert world.issued_count() == 0


async def test_a_registration_authority_that_the_label_does_not_name(
    world: World, road: Road
) -> None:
    device = await world.list_device("a")
    with pytest.raises(ServerRefused):
        await forward(
            road, world.registration_authority("another"), request_of(device, binding=None)
        )
    assert world.issued_count() == 0


async def test_a_revoked_registration_authority_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a")
    authority = await world.enrolled_registration_authority()
    await world.revoke(authority.certificate)
    with pytest.raises(ServerRefused) as refusal:
        await forward(road, authority, request_of(device, binding=None))
    assert "revoked" in refusal.value.explanation
    assert world.last_refusal == RefusalReason.CERTIFICATE_REVOKED
    assert world.issued_count() == 1


async def test_an_expired_registration_authority_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a")
    expired = await world.expire(world.registration_authority())
    with pytest.raises(ServerRefused):
        await forward(road, expired, request_of(device, binding=None))
    assert world.last_refusal == RefusalReason.CERTIFICATE_EXPIRED


async def test_the_device_itself_is_authorized_all_the_same(
    world: World, road: Road, audit: AuditRecords
) -> None:
    unlisted, stolen = world.unlisted_device("unlisted"), await world.list_device("stolen")
    await world.order(stolen, LifeCycleStep.REVOKE)
    for device, reason in (
        (unlisted, RefusalReason.UNKNOWN_DEVICE),
        (stolen, RefusalReason.DEVICE_NOT_ACTIVE),
    ):
        with pytest.raises(ServerRefused):
            await forward(road, world.registration_authority(), request_of(device, binding=None))
        assert world.last_refusal == reason
        assert audit.entries[-1]["registration_authority"] == "CN=ra"
    assert world.issued_count() == 0
    assert b"through CN=ra" in world.octets_at_rest()


async def test_a_request_whose_key_signed_nothing_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a")
    forged = bytearray(request_of(device, binding=None))
    forged[-1] ^= 1
    with pytest.raises(ServerRefused) as refusal:
        await forward(road, world.registration_authority(), bytes(forged))
    assert refusal.value.status == road.bad_request
    assert world.issued_count() == 0


async def test_a_first_enrollment_is_a_claim_through_a_registration_authority_too(
    world: World, road: Road
) -> None:
    """A repeat gets the same certificate, and nothing gets a second one."""
    device = await world.list_device("a")
    authority = world.registration_authority()
    for _ in range(2):
        await forward(road, authority, request_of(device, binding=None))
    assert world.issued_count() == 1
    another = Device(device.udid, make_key("another key"))
    with pytest.raises(ServerRefused):
        await forward(road, authority, request_of(another, binding=None))
    await world.claim_with_a_renewal(device, REGISTERED)
    with pytest.raises(ServerRefused):
        await forward(road, authority, request_of(device, binding=None))
    assert world.last_refusal == RefusalReason.ALREADY_CLAIMED


@pytest.mark.conformance("POP-20")
async def test_a_request_that_is_linked_elsewhere_takes_a_policy(world: World, road: Road) -> None:
    device = await world.list_device("a")
    authority = world.registration_authority()
    with pytest.raises(ServerRefused):
        await forward(road, authority, request_of(device))
    assert world.last_refusal == RefusalReason.POP_LINKING_FAILED
    assert world.issued_count() == 0
    key = await forward(road, authority, request_of(device), label=VOUCHED)
    assert key == spki_sha256(device.key.public_key())


@pytest.mark.conformance("POP-20")
async def test_the_policy_exempts_nobody_but_registration_authorities(
    world: World, road: Road
) -> None:
    device = await world.list_device("a", born=True)
    with pytest.raises(ServerRefused):
        await forward(road, device, request_of(device), label=VOUCHED)
    assert world.last_refusal == RefusalReason.POP_LINKING_FAILED


async def test_what_is_linked_to_no_channel_was_checked_by_nobody(world: World, road: Road) -> None:
    device = await world.list_device("a")
    with pytest.raises(ServerRefused):
        await forward(
            road, world.registration_authority(), request_of(device, binding=None), label=VOUCHED
        )
    assert world.last_refusal == RefusalReason.POP_LINKING_REQUIRED


async def test_renewal_takes_a_policy(world: World, road: Road) -> None:
    device = await world.list_device("a")
    authority = world.registration_authority()
    await forward(road, authority, request_of(device, binding=None))
    with pytest.raises(ServerRefused):
        await forward(
            road,
            authority,
            request_of(device, binding=None),
            operation=Operation.SIMPLEREENROLL,
        )
    assert world.last_refusal == RefusalReason.NOT_AUTHORIZED
    assert world.issued_count() == 1


async def renew(road: Road, world: World, request: bytes) -> bytes:
    return await forward(
        road,
        world.registration_authority(),
        request,
        label=VOUCHED,
        operation=Operation.SIMPLEREENROLL,
    )


async def test_renewal_on_behalf_of_a_device(world: World, road: Road) -> None:
    """The certificate is known by its key; a repeat after a lost answer costs no second one."""
    device = await world.list_device("a")
    async with road.connection(world.registration_authority()) as connection:
        first = await connection.post(Operation.SIMPLEENROLL, request_of(device), label=VOUCHED)
    for _ in range(2):
        await renew(road, world, request_of(device))
        assert world.issued_count() == 2
    assert (await world.find(first)).state is CertificateState.SUPERSEDED


async def test_renewal_on_behalf_of_a_device_keeps_names_and_key(world: World, road: Road) -> None:
    device, other = await world.list_device("a"), await world.list_device("b")
    with pytest.raises(ServerRefused):
        await renew(road, world, request_of(device))
    assert world.last_refusal == RefusalReason.CERTIFICATE_UNKNOWN
    for enrolling in (device, other):
        await forward(road, world.registration_authority(), request_of(enrolling), label=VOUCHED)
    for request, reason in (
        (request_of(device, name=other.udid), RefusalReason.IDENTITY_MISMATCH),
        (
            request_of(Device(device.udid, make_key("fresh"))),
            RefusalReason.CERTIFICATE_UNKNOWN,
        ),
    ):
        with pytest.raises(ServerRefused):
            await renew(road, world, request)
        assert world.last_refusal == reason
    assert world.issued_count() == 2


async def test_no_key_is_generated_through_a_registration_authority(
    world: World, road: Road
) -> None:
    device = await world.list_device("a")
    async with road.connection(world.registration_authority()) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.serverkeygen(request_of(device, binding=None), label=REGISTERED_KEYS)
    assert refusal.value.status == road.forbidden
    assert world.last_refusal == RefusalReason.NOT_AUTHORIZED
