"""Devices that are registered by their birth certificates, whichever road they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from cryptography import x509

from est_protocol.errors import RefusalReason, RequestRefused, ServerRefused
from est_protocol.messages import Transport
from est_server.alarms import AlarmKind
from est_server.authorization.birth_certificate import BirthCertificateAuthorizer
from est_server.authorization.combinators import first_of
from est_server.authorization.device_list import DeviceListAuthorizer
from est_server.birth_certificates import (
    BirthCertificate,
    BirthCertificateSettings,
    ManufacturerRules,
    ProvisioningPolicy,
)
from est_server.device_records import DeviceState
from est_server.interfaces import EnrollmentRequest
from est_server.life_cycle import LifeCycleStep
from est_server.profiles import CertificateProfile
from est_server.quotas import QuotaBound
from tests.behaviour.roads import Road
from tests.behaviour.world import LABEL, STRICT, Device, World
from tests.births import FOREVER, HARDWARE_TYPE, born, make_idevid
from tests.pki import PRESENT, make_ca, make_key

MANUFACTURER = make_ca("manufacturer")
PROFILE = CertificateProfile(subject="CN={serial_number},O={owner}")


def serve(
    world: World,
    *,
    label: str | None = None,
    limit: int = 10,
    policy: ProvisioningPolicy | None = None,
    quarantine: bool = False,
    served: bool = False,
    udid: str = "{manufacturer}-{serial_number}",
    **rules: Any,
) -> None:
    """Let a label register devices of the manufacturer."""
    rules.setdefault("attributes", {"owner": "acme"})
    settings = BirthCertificateSettings(
        {"acme": ManufacturerRules(QuotaBound(limit), **rules)}, quarantine=quarantine, udid=udid
    )
    anchors = {"acme": (MANUFACTURER.certificate,)}
    authorizer = BirthCertificateAuthorizer(world.store, anchors, settings, policy=policy)
    world.change_policy(label, authorizer=authorizer, profile=PROFILE, serve_quarantined=served)


async def enroll(
    road: Road, device: Device, *, key: str | None = None, label: str | None = None
) -> x509.Certificate:
    async with road.connection(device) as connection:
        return await connection.simpleenroll(make_key(key) if key else device.key, label=label)


async def refused(
    world: World, road: Road, device: Device, *, label: str | None = None
) -> str | None:
    with pytest.raises(ServerRefused) as refusal:
        await enroll(road, device, label=label)
    assert refusal.value.status in (road.forbidden, "4.01")
    return world.last_refusal


async def udids(world: World) -> dict[str, DeviceState]:
    return {device.udid: device.state async for device in world.store.devices()}


async def test_an_idevid_without_end_is_enough(world: World, road: Road) -> None:
    serve(world)
    device = born(MANUFACTURER)
    assert device.certificate.not_valid_after_utc == FOREVER
    certificate = await enroll(road, device, key="operational")
    assert certificate.subject == x509.Name.from_rfc4514_string("CN=SN-1,O=acme")
    assert await udids(world) == {"acme-SN-1": DeviceState.ENROLLED}
    found = await world.store.find_by_udid("acme-SN-1")
    assert found is not None
    assert found.listed.attributes == {
        "owner": "acme",
        "manufacturer": "acme",
        "serial_number": "SN-1",
        "key_sha256": found.listed.spki_sha256.hex(),
        "hardware_type": HARDWARE_TYPE,
        "hardware_serial": "0102",
        "just_in_time": "acme",
    }
    # It renews with what it got, and its names come from its record.
    renewing = Device(device.udid, make_key("operational"), (certificate,))
    async with road.connection(renewing) as connection:
        renewed = await connection.simplereenroll(make_key("renewed"))
    assert renewed.subject == certificate.subject


async def test_a_retry_gets_the_same_and_another_key_does_not(world: World, road: Road) -> None:
    serve(world)
    device = born(MANUFACTURER)
    certificate = await enroll(road, device, key="one")
    assert await enroll(road, device, key="one") == certificate
    with pytest.raises(ServerRefused):
        await enroll(road, device, key="two")
    assert world.last_refusal == RefusalReason.ALREADY_CLAIMED


async def test_overproduction_ends_at_the_quota(world: World, road: Road) -> None:
    serve(world, limit=2)
    for number in range(2):
        await enroll(road, born(MANUFACTURER, f"SN-{number}", key=f"born {number}"))
    third = born(MANUFACTURER, "SN-3", key="born 3")
    assert await refused(world, road, third) == RefusalReason.QUOTA_EXCEEDED
    assert set(await udids(world)) == {"acme-SN-0", "acme-SN-1"}


async def test_a_serial_number_with_another_key(world: World, road: Road) -> None:
    serve(world)
    await enroll(road, born(MANUFACTURER))
    clone = born(MANUFACTURER, key="copied")
    assert await refused(world, road, clone) == RefusalReason.IDENTITY_MISMATCH
    assert [alarm.kind for alarm in world.alarms] == [AlarmKind.SECOND_KEY]
    assert world.issued_count() == 1


async def test_who_does_not_fit_is_not_registered(world: World, road: Road) -> None:
    serve(world, subjects=("serialNumber=SN-1*",), hardware_types=(HARDWARE_TYPE,))
    other = born(MANUFACTURER, "SN-2", key="other")
    plain = Device("plain", make_key("plain"), (make_idevid(MANUFACTURER, "SN-12", key="plain"),))
    for device in (other, plain):
        assert await refused(world, road, device) == RefusalReason.NOT_AUTHORIZED
    await enroll(road, born(MANUFACTURER, "SN-11"))
    assert set(await udids(world)) == {"acme-SN-11"}


async def test_who_has_no_birth_certificate_of_a_trusted_manufacturer(
    world: World, road: Road
) -> None:
    serve(world)
    impostor = born(make_ca("impostor"))
    late = PRESENT.replace(year=PRESENT.year - 1, day=2)
    expired = make_idevid(MANUFACTURER, "SN-2", not_after=late)
    assert await refused(world, road, impostor) == RefusalReason.CERTIFICATE_NOT_TRUSTED
    bare = world.unlisted_device("bare")
    bare_reason = (
        RefusalReason.CERTIFICATE_NOT_TRUSTED
        if road.transport is Transport.COAPS
        else RefusalReason.AUTHENTICATION_REQUIRED
    )
    assert await refused(world, road, bare) == bare_reason
    old = Device("old", make_key("born"), (expired,))
    assert await refused(world, road, old) == RefusalReason.CERTIFICATE_EXPIRED
    assert await udids(world) == {}


async def test_a_policy_of_ones_own_has_the_last_word(world: World, road: Road) -> None:
    async def even_ones(birth: BirthCertificate, _: EnrollmentRequest, /) -> Mapping[str, str]:
        number = birth.identity.serial_number or ""
        if number.endswith(("0", "2", "4", "6", "8")):
            return {"owner": f"owner of {number}"}
        raise RequestRefused(RefusalReason.NOT_AUTHORIZED, "odd ones are not for here")

    serve(world, policy=even_ones)
    certificate = await enroll(road, born(MANUFACTURER, "SN-2"))
    assert certificate.subject == x509.Name.from_rfc4514_string("CN=SN-2,O=owner of SN-2")
    odd = born(MANUFACTURER, "SN-3", key="odd")
    assert await refused(world, road, odd) == RefusalReason.NOT_AUTHORIZED
    assert set(await udids(world)) == {"acme-SN-2"}


async def test_a_policy_that_says_nothing_lets_nobody_in(world: World, road: Road) -> None:
    async def forgetful(birth: BirthCertificate, _: EnrollmentRequest, /) -> Any:
        return None

    serve(world, policy=forgetful)
    with pytest.raises(ServerRefused):
        await enroll(road, born(MANUFACTURER))
    assert world.last_refusal == RefusalReason.INTERNAL_ERROR
    assert await udids(world) == {}


# -- Quarantine ------------------------------------------------------------------------------------


async def test_in_quarantine_until_it_is_released(world: World, road: Road) -> None:
    serve(world, quarantine=True)
    device = born(MANUFACTURER)
    for _ in range(2):
        assert await refused(world, road, device) == RefusalReason.DEVICE_QUARANTINED
        assert await udids(world) == {"acme-SN-1": DeviceState.QUARANTINED}
    await world.order(Device("acme-SN-1", device.key), LifeCycleStep.RELEASE)
    await enroll(road, device)
    assert await udids(world) == {"acme-SN-1": DeviceState.ENROLLED}


async def test_a_label_may_serve_devices_in_quarantine(world: World, road: Road) -> None:
    serve(world, quarantine=True, served=True)
    serve(world, quarantine=True, label=LABEL)
    device = born(MANUFACTURER)
    certificate = await enroll(road, device)
    assert await refused(world, road, device, label=LABEL) == RefusalReason.DEVICE_QUARANTINED
    # What it got leads no further either, but can be renewed.
    holder = device.with_certificate(certificate)
    async with road.connection(holder) as connection:
        await connection.simplereenroll(make_key("renewed"))
    await world.order(Device("acme-SN-1", device.key), LifeCycleStep.RELEASE)
    await enroll(road, device, label=LABEL)


# -- Beside the device list -----------------------------------------------------------------------


async def test_who_was_registered_just_in_time_is_on_no_list(world: World, road: Road) -> None:
    serve(world)
    device = born(MANUFACTURER)
    certificate = await enroll(road, device)
    for known in (device, device.with_certificate(certificate)):
        assert await refused(world, road, known, label=STRICT) == RefusalReason.UNKNOWN_DEVICE


async def test_listed_or_else_registered(world: World, road: Road) -> None:
    serve(world)
    by_birth = world.policy(None).authorizer
    listed = DeviceListAuthorizer(world.store)
    world.change_policy(None, authorizer=first_of(listed, by_birth), profile=CertificateProfile())
    known, new = await world.list_device("a", born=True), born(MANUFACTURER)
    names = {(await enroll(road, device)).subject.rfc4514_string() for device in (known, new)}
    assert names == {"CN=udid-a", "CN=acme-SN-1"}


async def test_a_listed_device_with_a_birth_certificate_is_itself(world: World, road: Road) -> None:
    serve(world)
    world.change_policy(None, profile=CertificateProfile())
    device = await world.list_device("a", born=True)
    assert (await enroll(road, device)).subject.rfc4514_string() == "CN=udid-a"
    assert set(await udids(world)) == {"udid-a"}
