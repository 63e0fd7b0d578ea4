"""What a device experiences that an operator has shut out, whichever road it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from cryptography import x509

from est_protocol.errors import RefusalReason, ServerRefused
from est_protocol.messages import Pending, Transport
from est_protocol.operations import Operation
from est_server.alarms import AlarmKind
from est_server.interfaces import IssuanceOrder
from est_server.ledger_records import CertificateState
from est_server.life_cycle import LifeCycleStep
from est_server.profiles import CertificateProfile
from est_server.revocations import RevocationReason
from tests.behaviour.roads import Road, Session
from tests.behaviour.world import KEYS, LABEL, OWNED, WISHING, Device, World
from tests.pki import make_key

SHUTTING_OUT = [LifeCycleStep.SUSPEND, LifeCycleStep.REVOKE, LifeCycleStep.DECOMMISSION]

Ask = Callable[[Session], Awaitable[object]]


async def cacerts(session: Session) -> object:
    return await session.get(Operation.CACERTS)


async def csrattrs(session: Session) -> object:
    return await session.csrattrs(label=WISHING)


async def enroll_elsewhere(session: Session) -> object:
    return await session.simpleenroll(session._device.key, label=LABEL)


async def renew(session: Session) -> object:
    return await session.simplereenroll(make_key("renewed"))


async def have_key_made(session: Session) -> object:
    return await session.serverkeygen()


async def enrolled(world: World, road: Road, *, key: str = "operational") -> Device:
    """A device that presents its operational certificate, for a key of its own."""
    device = await world.list_device("a", born=True)
    async with road.connection(device) as connection:
        certificate = await connection.simpleenroll(make_key(key))
    return Device(device.udid, make_key(key), (certificate,))


async def refused(world: World, road: Road, session: Session, ask: Ask) -> str | None:
    """Why ``ask`` is refused."""
    with pytest.raises(ServerRefused) as refusal:
        await ask(session)
    assert refusal.value.status == road.forbidden
    return world.last_refusal


def of_a_client(road: Road) -> list[Ask]:
    """Everything that a client with a certificate may ask for, where it is asked who it is."""
    asks: list[Ask] = [csrattrs, enroll_elsewhere, renew, have_key_made]
    # RFC 7030 section 4.1.2: over HTTPS anybody may have the CA certificates.
    return [cacerts, *asks] if road.transport is Transport.COAPS else asks


@pytest.mark.parametrize("step", SHUTTING_OUT)
async def test_everything_is_refused_from_that_moment(
    world: World, road: Road, step: LifeCycleStep
) -> None:
    device = await enrolled(world, road)
    revoked = step is not LifeCycleStep.SUSPEND
    expected = RefusalReason.CERTIFICATE_REVOKED if revoked else RefusalReason.DEVICE_NOT_ACTIVE
    async with road.connection(device) as connection:
        await csrattrs(connection)
        await world.order(device, step)
        for ask in of_a_client(road):
            assert await refused(world, road, connection, ask) == expected, ask
    assert world.issued_count() == 1


@pytest.mark.parametrize("step", SHUTTING_OUT)
async def test_a_bare_listed_key_is_refused_too(
    world: World, road: Road, step: LifeCycleStep
) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        await world.order(device, step)
        asks: list[Ask] = [enroll_elsewhere]
        if road.transport is Transport.COAPS:
            asks += [cacerts, csrattrs, have_key_made]
        for ask in asks:
            reason = await refused(world, road, connection, ask)
            assert reason == RefusalReason.DEVICE_NOT_ACTIVE, ask


async def test_a_birth_certificate_is_refused_too(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    await world.order(device, LifeCycleStep.SUSPEND)
    async with road.connection(device) as connection:
        for ask in of_a_client(road):
            if ask is not renew:
                reason = await refused(world, road, connection, ask)
                assert reason == RefusalReason.DEVICE_NOT_ACTIVE, ask


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (RevocationReason.UNSPECIFIED, RefusalReason.CERTIFICATE_REVOKED),
        (RevocationReason.KEY_COMPROMISE, RefusalReason.KEY_COMPROMISED),
    ],
)
async def test_a_revoked_certificate_is_refused_everywhere(
    world: World, road: Road, code: RevocationReason, expected: RefusalReason
) -> None:
    device = await enrolled(world, road)
    async with road.connection(device) as connection:
        await world.revoke(device.certificate, code)
        for ask in of_a_client(road):
            assert await refused(world, road, connection, ask) == expected, ask


async def test_a_device_that_is_resumed_goes_on(world: World, road: Road) -> None:
    device = await enrolled(world, road)
    await world.order(device, LifeCycleStep.SUSPEND)
    await world.order(device, LifeCycleStep.RESUME)
    async with road.connection(device) as connection:
        await renew(connection)


async def test_a_compromised_listed_key_gets_nothing_until_reset(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        certificate = await connection.simpleenroll(device.key)
    await world.revoke(certificate, RevocationReason.KEY_COMPROMISE)
    async with road.connection(device) as connection:
        reason = await refused(world, road, connection, enroll_elsewhere)
        assert reason == RefusalReason.KEY_COMPROMISED
    await world.order(device, LifeCycleStep.RESET)
    async with road.connection(device) as connection:
        await connection.simpleenroll(device.key)


async def test_what_is_ordered_while_a_certificate_is_made_counts(world: World, road: Road) -> None:
    policy = world.policy(None)
    device = await world.list_device("a")

    class Interrupted:
        async def ca_certificates(self, label: str | None) -> tuple[x509.Certificate, ...]:
            return await policy.authority.ca_certificates(label)

        async def issue(self, order: IssuanceOrder) -> x509.Certificate | Pending:
            await world.order(device, LifeCycleStep.SUSPEND)
            return await policy.authority.issue(order)

    world.change_policy(None, authority=Interrupted())
    async with road.connection(device) as connection:

        async def enroll(session: Session) -> object:
            return await session.simpleenroll(device.key)

        assert await refused(world, road, connection, enroll) == RefusalReason.DEVICE_NOT_ACTIVE
    assert world.issued_count() == 0


async def test_a_transfer_ends_certificates_and_allows_a_first_enrollment(
    world: World, road: Road
) -> None:
    old = await enrolled(world, road)
    await world.order(old, LifeCycleStep.TRANSFER, owner="acme")
    async with road.connection(old) as connection:
        reason = await refused(world, road, connection, renew)
        assert reason == RefusalReason.CERTIFICATE_REVOKED
    again = world.unlisted_device("a", born=True)
    async with road.connection(again) as connection:
        await connection.simpleenroll(make_key("for acme"), label=OWNED)
    assert (await world.find(old.certificate)).state is CertificateState.REVOKED


async def test_after_a_transfer_certificates_name_the_new_owner(world: World, road: Road) -> None:
    owned = CertificateProfile(subject="CN={udid},O={owner}")
    world.change_policy(None, profile=owned)
    device = await world.list_device("a", owner="acme")
    other = await world.list_device("b")
    for owner in ("acme", "newco"):
        async with road.connection(device) as connection:
            certificate = await connection.simpleenroll(device.key)
        assert certificate.subject.rfc4514_string() == f"CN={device.udid},O={owner}"
        async with road.connection(device.with_certificate(certificate)) as connection:
            certificate = await connection.simplereenroll(device.key)
        assert certificate.subject.rfc4514_string() == f"CN={device.udid},O={owner}"
        await world.order(device, LifeCycleStep.TRANSFER, owner="newco")
    # Who has no owner in the list has one from its transfer on.
    await world.order(other, LifeCycleStep.TRANSFER, owner="newco")
    async with road.connection(other) as connection:
        certificate = await connection.simpleenroll(other.key)
    assert certificate.subject.rfc4514_string() == f"CN={other.udid},O=newco"


async def test_a_label_is_for_devices_of_its_owner(world: World, road: Road) -> None:
    async def enroll_owned(session: Session) -> object:
        return await session.simpleenroll(session._device.key, label=OWNED)

    ours = await world.list_device("ours", owner="acme")
    async with road.connection(ours) as connection:
        await enroll_owned(connection)
    theirs = await world.list_device("theirs", owner="other")
    nobodys = await world.list_device("nobodys")
    limited = await world.list_device("limited", owner="acme", labels=f"default {KEYS}")
    for device in (theirs, nobodys, limited):
        async with road.connection(device) as connection:
            reason = await refused(world, road, connection, enroll_owned)
            assert reason == RefusalReason.NOT_AUTHORIZED, device
    assert world.issued_count() == 1


# -- Signs of cloning --------------------------------------------------------------------------


async def test_a_second_key_sounds_the_alarm(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as connection:
        await connection.simpleenroll(make_key("first"))

    async def enroll_again(session: Session) -> object:
        return await session.simpleenroll(make_key("second"))

    async with road.connection(device) as connection:
        for _ in range(3):
            reason = await refused(world, road, connection, enroll_again)
            assert reason == RefusalReason.ALREADY_CLAIMED
    await world.service.close()
    [alarm] = world.alarms
    assert (alarm.kind, alarm.device) == (AlarmKind.SECOND_KEY, device.udid)
    assert "another key" in alarm.detail


async def test_an_old_certificate_sounds_the_alarm(world: World, road: Road) -> None:
    device = await enrolled(world, road)
    async with road.connection(device) as connection:
        await renew(connection)
        await connection.simplereenroll(make_key("renewed"))

    async def renew_again(session: Session) -> object:
        return await session.simplereenroll(make_key("clone"))

    async with road.connection(device) as connection:
        reason = await refused(world, road, connection, renew_again)
        assert reason == RefusalReason.CERTIFICATE_SUPERSEDED
    await world.service.close()
    assert [(alarm.kind, alarm.device) for alarm in world.alarms] == [
        (AlarmKind.OLD_CERTIFICATE, device.udid)
    ], "and the retry after a lost answer sounds none"


async def test_a_late_repeat_sounds_the_alarm(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    key = make_key("operational")
    serials = set()
    for minutes in (0, 59, 61):
        world.ahead = timedelta(minutes=minutes)
        assert not world.alarms, "it may have lost the answer"
        async with road.connection(device) as connection:
            serials.add((await connection.simpleenroll(key)).serial_number)
        await world.service.close()
    assert [(alarm.kind, alarm.device) for alarm in world.alarms] == [
        (AlarmKind.LATE_REPEAT, device.udid)
    ]
    [serial] = serials
    assert f"{serial:x}" in world.alarms[0].detail
