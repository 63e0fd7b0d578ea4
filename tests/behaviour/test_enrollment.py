"""What a device experiences, whichever road it takes."""

from __future__ import annotations

import asyncio
import base64
import gc
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import mlkem

from est_protocol.csr_attributes import ExtensionTemplate
from est_protocol.errors import RefusalReason, RequestRefused, ServerRefused
from est_protocol.keys import spki_der, spki_sha256
from est_protocol.messages import CertificatesResponse, EstRequest, Pending
from est_protocol.oid_names import KEY_USAGE
from est_protocol.operations import Operation
from est_protocol.secure_channel.policy import TlsVersion
from est_server.authorities.building import key_usage
from est_server.device_records import DeviceState
from est_server.interfaces import ClientIdentity, EnrollmentRequest, IssuanceOrder
from est_server.ledger_records import CertificateState
from est_server.life_cycle import LifeCycleStep
from tests.behaviour.roads import Road, https, in_process
from tests.behaviour.world import LABEL, STRICT, AuditRecords, Device, World
from tests.pki import make_key, make_name
from tests.protocol.raw_csr import raw_csr

ANY_NAME = make_name("whatever the device calls itself")


# -- /cacerts ----------------------------------------------------------------------------------


@pytest.mark.conformance("CA-01", "CA-05", "CA-06", "HTTP-03")
async def test_ca_certificates_lead_from_the_issuing_ca_to_the_root(
    world: World, road: Road
) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        answer = await connection.get(Operation.CACERTS)
    assert set(answer) == {world.authority_root, world.authority_issuing}


@pytest.mark.conformance("HTTP-04", "HTTP-06", "CU-10")
async def test_a_label_has_its_own_ca(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        answer = await connection.get(Operation.CACERTS, label=LABEL)
    assert set(answer) == {world.labelled_root, world.labelled_issuing}


async def test_an_unknown_label_is_not_found(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.get(Operation.CACERTS, label="no-such-label")
    assert refusal.value.status == road.not_found
    assert "label" in refusal.value.explanation
    assert world.last_refusal == RefusalReason.UNKNOWN_LABEL


async def test_what_a_peer_chose_does_not_blow_up_the_audit_trail(
    world: World, audit: AuditRecords
) -> None:
    async with https(world, TlsVersion.TLS1_3) as road:
        async with road.connection(await world.list_device("a")) as connection:
            with pytest.raises(ServerRefused):
                await connection.get(Operation.CACERTS, label="\x1b" * 2500)
    assert audit.entries[-1]["reason"] == RefusalReason.UNKNOWN_LABEL
    assert sum(map(len, audit.entries[-1].values())) < 800


async def test_a_client_that_vanishes_is_in_the_audit_trail_all_the_same(
    world: World, audit: AuditRecords, caplog: pytest.LogCaptureFixture
) -> None:
    async with in_process(world) as road:
        for device in (await world.list_device("a"), world.unlisted_device("b")):
            async with road.connection(device) as connection:
                asking = asyncio.create_task(connection.simpleenroll(device.key))
                await asyncio.sleep(0)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
    await world.service.close()
    assert {entry["outcome"] for entry in audit.entries} == {"issued", "refused"}
    assert world.issued_count() == 1
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.conformance("CMC-01")
async def test_full_cmc_is_not_there(world: World) -> None:
    device = await world.list_device("a")
    async with https(world, TlsVersion.TLS1_3) as road, road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.post(Operation.FULLCMC, connection.csr(device.key, ANY_NAME).der)
    assert refusal.value.status == "404"
    assert world.issued_count() == 0


# -- First enrollment --------------------------------------------------------------------------


@pytest.mark.conformance("SE-13")
async def test_a_bare_listed_key_enrolls_itself(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        certificate = await connection.simpleenroll(device.key)
    assert spki_sha256(certificate.public_key()) == spki_sha256(device.key.public_key())
    assert certificate.subject == make_name(device.udid)
    assert certificate.issuer == world.authority_issuing.subject
    certificate.verify_directly_issued_by(world.authority_issuing)


@pytest.mark.conformance("SE-03", "SE-13")
async def test_nothing_of_the_csr_but_its_key_gets_into_the_certificate(
    world: World, road: Road
) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        wish = connection.csr(
            device.key,
            make_name("root of all"),
            names=(x509.DNSName("admin.example"),),
            # A CA, that may sign certificates.
            extensions=(
                ExtensionTemplate("2.5.29.19", True, b"\x30\x03\x01\x01\xff"),
                ExtensionTemplate(KEY_USAGE, True, b"\x03\x02\x02\x04"),
            ),
        )
        assert {"2.5.29.17", "2.5.29.19", KEY_USAGE} <= set(wish.extensions)
        certificate = await connection.post(Operation.SIMPLEENROLL, wish.der)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage == key_usage({"digital_signature"})
    assert certificate.subject == make_name(device.udid)
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert not constraints.value.ca


@pytest.mark.conformance("SE-07", "PQ-06")
@pytest.mark.parametrize("allowed", [False, True])
async def test_a_key_that_cannot_sign_is_not_certified(
    world: World, road: Road, allowed: bool
) -> None:
    if allowed:
        profile = world.policy(None).profile
        kinds = profile.allowed_keys | {"mlkem768"}
        world.change_policy(None, profile=replace(profile, allowed_keys=kinds))
    device = await world.list_device("a", born=True)
    wish = raw_csr(spki=spki_der(mlkem.MLKEM768PrivateKey.generate().public_key()))
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.post(Operation.SIMPLEENROLL, wish)
    reason = RefusalReason.POP_FAILED if allowed else RefusalReason.KEY_NOT_ALLOWED
    assert world.last_refusal == reason
    assert world.issued_count() == 0


@pytest.mark.conformance("AUTH-22", "AUTH-05", "HTTP-03")
async def test_a_birth_certificate_enrolls_a_fresh_key(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    fresh = make_key("fresh")
    assert device.certificate.subject != ANY_NAME
    async with road.connection(device) as connection:
        certificate = await connection.simpleenroll(fresh, subject=ANY_NAME)
    assert spki_sha256(certificate.public_key()) == spki_sha256(fresh.public_key())
    assert certificate.subject == make_name(device.udid)
    found = await world.store.find_by_udid(device.udid)
    assert found is not None
    assert found.state is DeviceState.ENROLLED


@pytest.mark.conformance("AUTH-01", "STAT-07")
async def test_an_unlisted_key_is_refused(world: World, road: Road) -> None:
    stranger = world.unlisted_device("stranger")
    async with road.connection(stranger) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.simpleenroll(stranger.key)
    assert refusal.value.status == road.forbidden
    assert refusal.value.explanation
    assert world.last_refusal in (
        RefusalReason.UNKNOWN_DEVICE,
        RefusalReason.CERTIFICATE_NOT_TRUSTED,
    )
    assert world.issued_count() == 0


async def test_an_overproduced_device_with_a_genuine_birth_certificate_is_refused(
    world: World, road: Road
) -> None:
    overproduced = world.unlisted_device("overproduced", born=True)
    async with road.connection(overproduced) as connection:
        with pytest.raises(ServerRefused):
            await connection.simpleenroll(make_key("fresh"))
    assert world.last_refusal == RefusalReason.UNKNOWN_DEVICE
    assert world.issued_count() == 0


@pytest.mark.conformance("TLS-05")
async def test_a_birth_certificate_of_a_forged_manufacturer_is_refused(
    world: World, road: Road
) -> None:
    forged = world.unlisted_device("forged", born=True, genuine=False)
    async with road.connection(forged) as connection:
        with pytest.raises(ServerRefused):
            await connection.simpleenroll(forged.key)
    assert world.last_refusal == RefusalReason.CERTIFICATE_NOT_TRUSTED
    assert world.issued_count() == 0


async def test_one_device_cannot_enroll_in_the_name_of_another(world: World, road: Road) -> None:
    thief = await world.list_device("thief", born=True)
    victim = await world.list_device("victim")
    async with road.connection(thief) as connection:
        with pytest.raises(ServerRefused):
            await connection.simpleenroll(victim.key)
    assert world.issued_count() == 0
    async with road.connection(victim) as connection:
        certificate = await connection.simpleenroll(victim.key)
    assert certificate.subject == make_name(victim.udid)


async def test_a_bare_listed_key_cannot_have_another_key_certified(
    world: World, road: Road
) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.simpleenroll(make_key("fresh"))
    assert world.issued_count() == 0


@pytest.mark.parametrize(
    "step", [LifeCycleStep.SUSPEND, LifeCycleStep.REVOKE, LifeCycleStep.DECOMMISSION]
)
async def test_a_device_that_is_not_active_is_refused(
    world: World, road: Road, step: LifeCycleStep
) -> None:
    device = await world.list_device("a")
    await world.order(device, step)
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.simpleenroll(device.key)
    assert refusal.value.status == road.forbidden
    assert world.last_refusal == RefusalReason.DEVICE_NOT_ACTIVE
    assert world.issued_count() == 0


# -- Claims and retries ------------------------------------------------------------------------


@pytest.mark.conformance("STAT-05", "STAT-14")
async def test_a_retry_over_a_new_channel_gets_the_same_certificate(
    world: World, road: Road
) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        first = await connection.simpleenroll(device.key)
    async with road.connection(device) as connection:
        second = await connection.simpleenroll(device.key)
    assert second == first
    assert world.issued_count() == 1


async def test_a_second_claim_with_another_key_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as connection:
        await connection.simpleenroll(make_key("fresh"))
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.simpleenroll(make_key("fresher"))
    assert refusal.value.status == road.forbidden
    assert world.last_refusal == RefusalReason.ALREADY_CLAIMED
    assert world.issued_count() == 1


async def test_each_label_is_claimed_for_itself(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        unlabelled = await connection.simpleenroll(device.key)
        labelled = await connection.simpleenroll(device.key, label=LABEL)
    assert unlabelled.issuer == world.authority_issuing.subject
    assert labelled.issuer == world.labelled_issuing.subject
    assert world.issued_count() == 2


@pytest.mark.conformance("STAT-14")
async def test_many_first_enrollments_at_once_give_one_certificate_for_each_key(
    world: World, road: Road
) -> None:
    device = await world.list_device("a", born=True)
    keys = [make_key(f"fresh {number}") for number in range(3)]

    async def attempt(number: int) -> x509.Certificate | ServerRefused:
        async with road.connection(device) as connection:
            try:
                return await connection.simpleenroll(keys[number % len(keys)])
            except ServerRefused as refused:
                return refused

    answers = await asyncio.gather(*(attempt(number) for number in range(9)))
    certificates = {answer for answer in answers if isinstance(answer, x509.Certificate)}
    assert len(certificates) == 1
    assert world.issued_count() == 1


@pytest.mark.conformance("AUTH-22")
async def test_an_authorizer_sees_the_birth_certificate_and_the_request(
    world: World, road: Road
) -> None:
    granting = world.policy(None).authorizer
    seen = []

    async def look(request: EnrollmentRequest, client: ClientIdentity, /) -> object:
        assert client.certificate is not None
        seen.append((client.certificate.subject, request.csr.subject))
        return await granting(request, client)

    world.change_policy(None, authorizer=look)
    device = await world.list_device("a", born=True)
    async with road.connection(device) as connection:
        await connection.simpleenroll(make_key("fresh"), subject=ANY_NAME)
    assert seen == [(device.certificate.subject, ANY_NAME)]


@pytest.mark.conformance("AUTH-18", "STAT-01", "CR-06")
async def test_a_request_may_wait_for_a_person(world: World, road: Road) -> None:
    async def later(request: EnrollmentRequest, client: ClientIdentity, /) -> Pending:
        return Pending(30)

    authorizer = world.policy(None).authorizer
    world.change_policy(None, authorizer=later)
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        body = connection.csr(device.key, ANY_NAME).der
        wish = EstRequest(Operation.SIMPLEENROLL, road.transport, None, body)
        assert await connection._connection.request(wish) == Pending(30)
        assert world.issued_count() == 0
        world.change_policy(None, authorizer=authorizer)
        await connection.post(Operation.SIMPLEENROLL, body)
    assert world.issued_count() == 1


@pytest.mark.conformance("STAT-05", "STAT-14", "CR-08")
async def test_a_ca_may_take_its_time(world: World, road: Road) -> None:
    """It knows the order again although the CSR was made anew for another channel."""
    policy = world.service._labels[None]
    orders: list[IssuanceOrder] = []

    class Slow:
        async def ca_certificates(self, label: str | None) -> tuple[x509.Certificate, ...]:
            return await policy.authority.ca_certificates(label)

        async def issue(self, order: IssuanceOrder) -> x509.Certificate | Pending:
            known = any(earlier.order_id == order.order_id for earlier in orders)
            orders.append(order)
            return await policy.authority.issue(order) if known else Pending(30)

    world.change_policy(None, authority=Slow())
    device = await world.list_device("a")
    bodies = []
    for expected in (Pending, CertificatesResponse):
        async with road.connection(device) as connection:
            body = connection.csr(device.key, ANY_NAME).der
            bodies.append(body)
            wish = EstRequest(Operation.SIMPLEENROLL, road.transport, None, body)
            assert isinstance(await connection._connection.request(wish), expected)
    assert bodies[0] != bodies[1]
    other = await world.list_device("b")
    async with road.connection(other) as connection:
        wish = EstRequest(
            Operation.SIMPLEENROLL, road.transport, None, connection.csr(other.key, ANY_NAME).der
        )
        assert await connection._connection.request(wish) == Pending(30)
    assert len({order.order_id for order in orders}) == 2
    assert world.issued_count() == 1


# -- Proof of possession -----------------------------------------------------------------------


@pytest.mark.conformance("POP-21", "SE-11")
async def test_a_tampered_csr_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        der = bytearray(connection.csr(device.key, ANY_NAME).der)
        der[-1] ^= 1
        with pytest.raises(ServerRefused) as refusal:
            await connection.post(Operation.SIMPLEENROLL, bytes(der))
    assert refusal.value.status == road.bad_request
    assert world.last_refusal == RefusalReason.POP_FAILED
    assert world.issued_count() == 0


@pytest.mark.conformance("POP-01", "POP-03", "CD-11", "POP-15")
async def test_a_csr_that_is_linked_to_another_channel_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as other:
        stolen = other.csr(device.key, ANY_NAME).der
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.post(Operation.SIMPLEENROLL, stolen)
    assert refusal.value.status == road.forbidden
    assert "linking" in refusal.value.explanation
    assert world.last_refusal == RefusalReason.POP_LINKING_FAILED
    assert world.issued_count() == 0


@pytest.mark.conformance("POP-04", "POP-15")
async def test_linking_can_be_required(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.simpleenroll(device.key, label=STRICT, linked=False)
        assert "linking" in refusal.value.explanation
        assert world.last_refusal == RefusalReason.POP_LINKING_REQUIRED
        await connection.simpleenroll(device.key, label=STRICT)
    assert world.issued_count() == 1


@pytest.mark.conformance("POP-16")
async def test_the_ca_is_told_whether_a_request_was_linked(world: World, road: Road) -> None:
    policy = world.policy(None)
    orders: list[IssuanceOrder] = []

    class Noting:
        async def ca_certificates(self, label: str | None) -> tuple[x509.Certificate, ...]:
            return await policy.authority.ca_certificates(label)

        async def issue(self, order: IssuanceOrder) -> x509.Certificate | Pending:
            orders.append(order)
            return await policy.authority.issue(order)

    world.change_policy(None, authority=Noting())
    for name, linked in (("a", True), ("b", False)):
        device = await world.list_device(name, born=True)
        async with road.connection(device) as connection:
            await connection.simpleenroll(device.key, linked=linked)
    assert [order.pop_linked for order in orders] == [True, False]


@pytest.mark.conformance("AUTH-01")
async def test_a_listed_key_that_nobody_proved_to_hold_is_refused(world: World, road: Road) -> None:
    """The CSR of a listed device, copied and sent by somebody else."""
    device = await world.list_device("a")
    stranger = world.unlisted_device("stranger", born=True, genuine=False)
    async with road.connection(stranger) as connection:
        with pytest.raises(ServerRefused):
            await connection.simpleenroll(device.key, linked=False)
    assert world.issued_count() == 0


# -- Renewal -----------------------------------------------------------------------------------


@pytest.mark.conformance("SR-05", "HTTP-03")
@pytest.mark.parametrize("rekey", [False, True], ids=["same-key", "new-key"])
async def test_a_device_renews(world: World, road: Road, rekey: bool) -> None:
    device = await enrolled(world, road)
    key = make_key("renewed") if rekey else device.key
    async with road.connection(device) as connection:
        renewed = await connection.simplereenroll(key)
    assert renewed != device.certificate
    assert renewed.subject == device.certificate.subject
    assert spki_sha256(renewed.public_key()) == spki_sha256(key.public_key())
    before = await world.find(device.certificate)
    after = await world.find(renewed)
    assert before.state is CertificateState.SUPERSEDED
    assert after.state is CertificateState.ACTIVE


@pytest.mark.conformance("STAT-05", "STAT-14")
async def test_a_renewal_whose_answer_was_lost_gives_the_same_certificate(
    world: World, road: Road
) -> None:
    device = await enrolled(world, road)
    key = make_key("renewed")
    async with road.connection(device) as connection:
        lost = await connection.simplereenroll(key)
    async with road.connection(device) as connection:
        assert await connection.simplereenroll(key) == lost
    assert world.issued_count() == 2


async def test_a_superseded_certificate_cannot_renew_for_another_key(
    world: World, road: Road
) -> None:
    device = await enrolled(world, road)
    async with road.connection(device) as connection:
        await connection.simplereenroll(make_key("renewed"))
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.simplereenroll(make_key("clone"))
    assert world.last_refusal == RefusalReason.CERTIFICATE_SUPERSEDED
    assert world.issued_count() == 2


@pytest.mark.conformance("SR-06")
async def test_nobody_renews_the_certificate_of_somebody_else(world: World, road: Road) -> None:
    one, other = await enrolled(world, road), await enrolled(world, road, "b")
    theirs = other.certificate.subject
    async with road.connection(one) as connection:
        for key in (one.key, other.key, make_key("renewed")):
            with pytest.raises(ServerRefused) as refusal:
                await connection.simplereenroll(key, subject=theirs)
            assert refusal.value.status == road.forbidden
            assert world.last_refusal == RefusalReason.IDENTITY_MISMATCH
    assert world.issued_count() == 2
    assert (await world.find(other.certificate)).state is CertificateState.ACTIVE


@pytest.mark.conformance("SR-02")
async def test_alternative_names_are_repeated_as_a_set(world: World, road: Road) -> None:
    profile = world.policy(None).profile
    names = ("dns:{udid}.example", "uri:urn:{udid}")
    world.change_policy(None, profile=replace(profile, subject_alt_names=names))
    device = await enrolled(world, road)
    extension = device.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    first, second = extension.value
    async with road.connection(device) as connection:
        for wrong in ((), (first,), (first, second, x509.DNSName("more")), (first, first)):
            with pytest.raises(ServerRefused):
                await connection.simplereenroll(device.key, names=wrong)
            assert world.last_refusal == RefusalReason.IDENTITY_MISMATCH
        renewed = await connection.simplereenroll(device.key, names=(second, first))
    extension = renewed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert set(extension.value) == {first, second}


@pytest.mark.conformance("SR-05")
async def test_a_policy_may_want_a_fresh_key_at_each_renewal(world: World, road: Road) -> None:
    granting = world.policy(None).authorizer

    async def no_key_twice(request: EnrollmentRequest, client: ClientIdentity, /) -> object:
        if client.issued is not None and client.issued.spki_sha256 == request.key_sha256:
            raise RequestRefused(RefusalReason.KEY_NOT_ALLOWED, "renew for a fresh key")
        return await granting(request, client)

    device = await enrolled(world, road)
    world.change_policy(None, authorizer=no_key_twice)
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.simplereenroll(device.key)
        assert refusal.value.explanation == "renew for a fresh key"
        await connection.simplereenroll(make_key("renewed"))
    assert world.issued_count() == 2


@pytest.mark.conformance("SR-03", "SR-06")
async def test_a_renewal_repeats_the_names_of_the_certificate(world: World, road: Road) -> None:
    device = await enrolled(world, road)
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.simplereenroll(device.key, subject=ANY_NAME)
        assert world.last_refusal == RefusalReason.IDENTITY_MISMATCH
        with pytest.raises(ServerRefused):
            await connection.simplereenroll(device.key, names=(x509.DNSName("more"),))
        assert world.last_refusal == RefusalReason.IDENTITY_MISMATCH
    assert world.issued_count() == 1


@pytest.mark.conformance("SR-09")
async def test_a_revoked_certificate_is_refused_everywhere(world: World, road: Road) -> None:
    device = await enrolled(world, road)
    await world.revoke(device.certificate)
    async with road.connection(device) as connection:
        for attempt in (connection.simpleenroll, connection.simplereenroll):
            with pytest.raises(ServerRefused) as refusal:
                await attempt(device.key)
            assert refusal.value.status == road.forbidden
            assert world.last_refusal == RefusalReason.CERTIFICATE_REVOKED
    assert world.issued_count() == 1


async def test_a_suspended_device_cannot_renew(world: World, road: Road) -> None:
    device = await enrolled(world, road)
    await world.order(device, LifeCycleStep.SUSPEND)
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.simplereenroll(device.key)
    assert world.last_refusal == RefusalReason.DEVICE_NOT_ACTIVE


async def test_a_birth_certificate_cannot_renew(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.simplereenroll(device.key, subject=ANY_NAME)
    assert world.last_refusal == RefusalReason.CERTIFICATE_UNKNOWN


async def test_a_certificate_renews_only_under_its_own_label(world: World, road: Road) -> None:
    device = await enrolled(world, road)
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.simplereenroll(device.key, label=LABEL)
    assert world.last_refusal == RefusalReason.CERTIFICATE_UNKNOWN


@pytest.mark.conformance("SR-09")
async def test_an_expired_operational_certificate_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a")
    expired = await world.expire(device)
    async with road.connection(expired) as connection:
        with pytest.raises(ServerRefused):
            await connection.simplereenroll(device.key)
    assert world.last_refusal == RefusalReason.CERTIFICATE_EXPIRED


# -- Bad input ---------------------------------------------------------------------------------


@pytest.mark.conformance("SE-11")
@pytest.mark.parametrize(
    "body",
    [b"", b"\x30", b"\x30\x80\x00\x00", b"no DER at all", b"\x30\x03\x02\x01\x00", b"\x00" * 2000],
    ids=["empty", "truncated", "indefinite", "text", "other-structure", "zeros"],
)
async def test_a_body_that_is_no_csr_is_a_bad_request(
    world: World, road: Road, body: bytes
) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.post(Operation.SIMPLEENROLL, body)
        assert refusal.value.status == road.bad_request
        assert refusal.value.explanation
        # The connection, the server and the device's claim are none the worse for it.
        await connection.simpleenroll(device.key)
    assert world.issued_count() == 1


async def test_a_csr_with_octets_behind_it_is_a_bad_request(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        der = connection.csr(device.key, ANY_NAME).der
        with pytest.raises(ServerRefused) as refusal:
            await connection.post(Operation.SIMPLEENROLL, der + b"\x00")
    assert refusal.value.status == road.bad_request
    assert world.issued_count() == 0


async def enrolled(world: World, road: Road, name: str = "enrolled") -> Device:
    """A device that presents its operational certificate."""
    device = await world.list_device(name)
    async with road.connection(device) as connection:
        certificate = await connection.simpleenroll(device.key)
    return device.with_certificate(certificate)


@pytest.mark.conformance("CF-01")
async def test_base64_where_der_belongs_is_refused(world: World, road: Road) -> None:
    """On HTTPS that is base64 within the base64 of the transport."""
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        body = base64.b64encode(connection.csr(device.key, make_name("a")).der)
        with pytest.raises(ServerRefused) as refusal:
            await connection.post(Operation.SIMPLEENROLL, body)
    assert refusal.value.status == road.bad_request
    assert world.issued_count() == 0
