"""A device asks for another name, and gets it if the authorizer grants it, and only then."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509

from est_protocol import pkcs10
from est_protocol.change_subject_name import ChangeSubjectName
from est_protocol.errors import RefusalReason, ServerRefused
from est_protocol.operations import Operation
from est_server import IssuanceGrant
from est_server.interfaces import ClientIdentity, EnrollmentRequest
from tests.behaviour.roads import Road, Session
from tests.behaviour.world import Device, World
from tests.pki import make_name

NEW = make_name("the new name")
NEW_ALT = (x509.DNSName("new.example"),)


def allow(world: World, *subjects: x509.Name) -> None:
    """Grant ``subjects`` to those who ask for them, and everybody else the usual name."""
    usual = world.service._labels[None]

    async def authorize(request: EnrollmentRequest, client: ClientIdentity, /) -> IssuanceGrant:
        grant = await usual.authorizer(request, client)
        assert isinstance(grant, IssuanceGrant)
        subject, names = request.csr.wanted_names
        if request.csr.change_subject_name is None or subject not in subjects:
            return grant
        return replace(grant, subject=subject, subject_alt_names=names)

    world.service._labels[None] = replace(usual, authorizer=authorize)


async def enrolled(world: World, road: Road) -> Device:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        return device.with_certificate(await connection.simpleenroll(device.key))


def csr(connection: Session, device: Device, *, change: ChangeSubjectName) -> bytes:
    binding = connection._connection.server.channel_binding
    return pkcs10.build(device.key, device.certificate.subject, binding=binding, change=change).der


@pytest.mark.conformance("SR-03", "SR-04")
async def test_a_new_name_that_is_granted_is_issued(world: World, road: Road) -> None:
    device = await enrolled(world, road)
    allow(world, NEW)
    async with road.connection(device) as connection:
        body = csr(connection, device, change=ChangeSubjectName(NEW, NEW_ALT))
        renewed = await connection.post(Operation.SIMPLEREENROLL, body)
    extension = renewed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (renewed.subject, tuple(extension.value)) == (NEW, NEW_ALT)


@pytest.mark.conformance("SR-03", "SR-04")
async def test_a_new_name_that_is_not_granted_is_refused(world: World, road: Road) -> None:
    """Not the old one instead: that is not what was asked for."""
    device = await enrolled(world, road)
    allow(world, make_name("some other name"))
    async with road.connection(device) as connection:
        body = csr(connection, device, change=ChangeSubjectName(NEW))
        with pytest.raises(ServerRefused) as refusal:
            await connection.post(Operation.SIMPLEREENROLL, body)
        assert refusal.value.status == road.forbidden
        assert world.last_refusal == RefusalReason.NOT_AUTHORIZED
        assert "ChangeSubjectName" in refusal.value.explanation
        # What it has goes on.
        assert await connection.simplereenroll(device.key)
    assert world.issued_count() == 2


@pytest.mark.conformance("SR-03", "SR-04")
async def test_the_device_list_grants_no_wishes(world: World, road: Road) -> None:
    device = await enrolled(world, road)
    async with road.connection(device) as connection:
        for change in (ChangeSubjectName(NEW), ChangeSubjectName(None, NEW_ALT)):
            body = csr(connection, device, change=change)
            with pytest.raises(ServerRefused):
                await connection.post(Operation.SIMPLEREENROLL, body)
    assert world.issued_count() == 1


@pytest.mark.conformance("SR-01", "SR-04")
async def test_the_csr_itself_has_to_repeat_the_old_names(world: World, road: Road) -> None:
    device = await enrolled(world, road)
    allow(world, NEW)
    async with road.connection(device) as connection:
        wish = pkcs10.build(
            device.key,
            NEW,
            binding=connection._connection.server.channel_binding,
            change=ChangeSubjectName(NEW),
        )
        with pytest.raises(ServerRefused):
            await connection.post(Operation.SIMPLEREENROLL, wish.der)
    assert world.last_refusal == RefusalReason.IDENTITY_MISMATCH


@pytest.mark.conformance("SE-08", "SR-04")
async def test_a_first_enrollment_may_ask_for_another_name_too(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    allow(world, NEW)
    async with road.connection(device) as connection:
        body = csr(connection, device, change=ChangeSubjectName(NEW))
        assert (await connection.post(Operation.SIMPLEENROLL, body)).subject == NEW


@pytest.mark.conformance("STAT-14")
async def test_a_lost_answer_with_the_old_name_is_no_answer(world: World, road: Road) -> None:
    """The renewal was answered, and the same key asks once more, now for another name."""
    device = await enrolled(world, road)
    allow(world, NEW)
    async with road.connection(device) as connection:
        await connection.simplereenroll(device.key)
        body = csr(connection, device, change=ChangeSubjectName(NEW))
        with pytest.raises(ServerRefused):
            await connection.post(Operation.SIMPLEREENROLL, body)
    assert world.last_refusal == RefusalReason.CERTIFICATE_SUPERSEDED
