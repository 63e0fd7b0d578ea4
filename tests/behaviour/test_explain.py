"""``explain`` says what the service then does, whichever road the request really takes."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from est_protocol import pkcs10
from est_protocol.errors import RefusalReason, ServerRefused, StillPending
from est_protocol.keys import SigningKey
from est_protocol.messages import Pending, Transport
from est_protocol.operations import Operation
from est_server.explanation import Explanation, explain
from est_server.interfaces import ClientIdentity, EnrollmentRequest, IssuanceGrant
from est_server.life_cycle import LifeCycleStep
from est_server.preview import PreviewedOutcome
from est_server.profiles import OperationalKey
from est_server.supposition import Wanted, suppose_certificate, suppose_csr, suppose_device
from tests.behaviour.conftest import ROADS
from tests.behaviour.roads import Road, Session
from tests.behaviour.world import KEYS, LABEL, STRICT, WISHING, Device, World
from tests.pki import make_key, make_name


@pytest.fixture(params=["https-tls1.3", "https-tls1.2", "coaps-1024"])
async def road(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Road]:
    async with ROADS[request.param](world) as road:
        yield road


@dataclass
class Attempt:
    """What a device does, once for ``explain`` and once in earnest.

    :param key: the key in the CSR; the device's own by default.
    """

    device: Device
    operation: Operation = Operation.SIMPLEENROLL
    label: str | None = None
    key: SigningKey | None = None
    subject: x509.Name | None = None
    linked: bool = True
    tamper: Callable[[bytes], bytes] = bytes

    def body(self, connection: Session) -> bytes:
        names = x509.Name([])
        if self.operation is Operation.SIMPLEREENROLL:
            names = self.device.certificate.subject
        csr = connection.csr(self.key or self.device.key, self.subject or names, linked=self.linked)
        return self.tamper(csr.der)


# Each arranges a world and gives the attempt in it.


async def listed(world: World, road: Road) -> Attempt:
    return Attempt(await world.list_device("a"))


async def listed_under_label(world: World, road: Road) -> Attempt:
    return Attempt(await world.list_device("a"), label=LABEL)


async def unlisted(world: World, road: Road) -> Attempt:
    return Attempt(world.unlisted_device("stranger"))


async def born(world: World, road: Road) -> Attempt:
    return Attempt(await world.list_device("a", born=True), key=make_key("fresh"))


async def born_but_unlisted(world: World, road: Road) -> Attempt:
    return Attempt(world.unlisted_device("overproduced", born=True))


async def impostor(world: World, road: Road) -> Attempt:
    return Attempt(world.unlisted_device("impostor", born=True, genuine=False))


async def suspended(world: World, road: Road) -> Attempt:
    device = await world.list_device("a")
    await world.order(device, LifeCycleStep.SUSPEND)
    return Attempt(device)


async def key_of_another(world: World, road: Road) -> Attempt:
    other = await world.list_device("b")
    return Attempt(await world.list_device("a", born=True), key=other.key)


async def retry(world: World, road: Road) -> Attempt:
    return Attempt(await enroll(world, road))


async def claimed(world: World, road: Road) -> Attempt:
    return Attempt(await enroll(world, road, born=True), key=make_key("second"))


async def claimed_under_another_label(world: World, road: Road) -> Attempt:
    return Attempt(await enroll(world, road), label=LABEL)


async def renewal(world: World, road: Road) -> Attempt:
    return Attempt(await operational(world, road), Operation.SIMPLEREENROLL)


async def renewal_with_new_key(world: World, road: Road) -> Attempt:
    device = await operational(world, road)
    return Attempt(device, Operation.SIMPLEREENROLL, key=make_key("next"))


async def renewal_under_another_label(world: World, road: Road) -> Attempt:
    return Attempt(await operational(world, road), Operation.SIMPLEREENROLL, LABEL)


async def renewal_of_other_names(world: World, road: Road) -> Attempt:
    device = await operational(world, road)
    return Attempt(device, Operation.SIMPLEREENROLL, subject=make_name("other"))


async def renewal_by_birth_certificate(world: World, road: Road) -> Attempt:
    return Attempt(await world.list_device("a", born=True), Operation.SIMPLEREENROLL)


async def renewal_of_superseded(world: World, road: Road) -> Attempt:
    device = await operational(world, road)
    async with road.connection(device) as connection:
        await connection.simplereenroll(make_key("next"))
    return Attempt(device, Operation.SIMPLEREENROLL, key=make_key("clone"))


async def renewal_of_revoked(world: World, road: Road) -> Attempt:
    device = await operational(world, road)
    await world.revoke(device.certificate)
    return Attempt(device, Operation.SIMPLEREENROLL)


async def renewal_of_expired(world: World, road: Road) -> Attempt:
    return Attempt(await world.expire(await world.list_device("a")), Operation.SIMPLEREENROLL)


async def unlinked_where_linking_is_required(world: World, road: Road) -> Attempt:
    return Attempt(await world.list_device("a", born=True), label=STRICT, linked=False)


async def without_what_csrattrs_asks(world: World, road: Road) -> Attempt:
    return Attempt(await world.list_device("a"), label=WISHING)


async def unknown_label(world: World, road: Road) -> Attempt:
    return Attempt(await world.list_device("a"), label="nowhere")


async def tampered(world: World, road: Road) -> Attempt:
    device = await world.list_device("a")
    return Attempt(device, tamper=lambda der: der[:-1] + bytes([der[-1] ^ 1]))


async def no_csr(world: World, road: Road) -> Attempt:
    return Attempt(await world.list_device("a", born=True), tamper=lambda der: der[:-7])


async def weak_key(world: World, road: Road) -> Attempt:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    return Attempt(await world.list_device("a", born=True), key=key)


async def pending(world: World, road: Road) -> Attempt:
    async def later(request: EnrollmentRequest, client: ClientIdentity, /) -> Pending:
        return Pending(60)

    world.change_policy(None, authorizer=later)
    return Attempt(await world.list_device("a"))


async def authorizer_with_a_bug(world: World, road: Road) -> Attempt:
    async def broken(request: EnrollmentRequest, client: ClientIdentity, /) -> IssuanceGrant:
        raise ZeroDivisionError("a bug")

    world.change_policy(None, authorizer=broken)
    return Attempt(await world.list_device("a"))


async def generated_key(world: World, road: Road) -> Attempt:
    return Attempt(await world.list_device("a", born=True), Operation.SERVERKEYGEN, KEYS)


async def generated_key_where_there_are_none(world: World, road: Road) -> Attempt:
    return Attempt(await world.list_device("a", born=True), Operation.SERVERKEYGEN)


SCENARIOS = [
    listed, listed_under_label, unlisted, born, born_but_unlisted, impostor, suspended,
    key_of_another, retry, claimed, claimed_under_another_label, renewal, renewal_with_new_key,
    renewal_under_another_label, renewal_of_other_names, renewal_by_birth_certificate,
    renewal_of_superseded, renewal_of_revoked, renewal_of_expired,
    unlinked_where_linking_is_required, without_what_csrattrs_asks, unknown_label, tampered,
    no_csr, weak_key, pending, authorizer_with_a_bug, generated_key,
    generated_key_where_there_are_none,
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_what_explain_says_comes_true(
    world: World, road: Road, scenario: Callable[[World, Road], Awaitable[Attempt]]
) -> None:
    attempt = await scenario(world, road)
    async with road.connection(attempt.device) as connection:
        body = attempt.body(connection)
        before = records(world)
        said = await explanation(world, road, attempt, body)
        assert records(world) == before
        assert await really(world, connection, attempt, body) == said.preview.outcome
    if said.preview.refused is not None:
        entry = world.audit.entries[-1]
        refused = said.preview.refused
        assert entry["reason"] == refused.reason.value
        assert entry["sentence"] == refused.sentence or road.transport is Transport.COAPS
        assert entry.get("device") == refused.device
        assert said.as_dict()["reason"] == entry["reason"]
    elif said.preview.decision is not None:
        after = await world.store.find_claim(said.preview.decision.grant.device, attempt.label)
        assert after is not None
    assert said.as_text().startswith(said.preview.outcome.value)


async def explanation(world: World, road: Road, attempt: Attempt, body: bytes) -> Explanation:
    wanted = Wanted(attempt.operation, road.transport, attempt.label)
    chain = attempt.device.chain
    supposed = suppose_csr(body, chain, wanted, world.server_anchors, datetime.now(UTC))
    return await explain(world.service, world.store, world.store, supposed)


async def really(
    world: World, connection: Session, attempt: Attempt, body: bytes
) -> PreviewedOutcome:
    """Send the request; what became of it."""
    issued = world.issued_count()
    try:
        if attempt.operation is Operation.SERVERKEYGEN:
            await connection.serverkeygen(body, label=attempt.label)
        else:
            await connection.post(attempt.operation, body, label=attempt.label)
    except ServerRefused:
        return PreviewedOutcome.REFUSE
    except StillPending:
        return PreviewedOutcome.PENDING
    return PreviewedOutcome.ISSUE if world.issued_count() > issued else PreviewedOutcome.REPEAT


def records(world: World) -> list[str]:
    """Everything that the store holds."""
    with closing(sqlite3.connect(world.database)) as db:
        return list(db.iterdump())


async def enroll(world: World, road: Road, *, born: bool = False) -> Device:
    device = await world.list_device("a", born=born)
    async with road.connection(device) as connection:
        await connection.simpleenroll(device.key)
    return device


async def operational(world: World, road: Road) -> Device:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        return device.with_certificate(await connection.simpleenroll(device.key))


# -- What is supposed -----------------------------------------------------------------------------


def now() -> datetime:
    return datetime.now(UTC)


async def ask(world: World, supposed: Any) -> dict[str, Any]:
    return (await explain(world.service, world.store, world.store, supposed)).as_dict()


@pytest.mark.parametrize("transport", Transport)
async def test_a_device_by_its_identifier(world: World, transport: Transport) -> None:
    device = await world.list_device("a")
    record = await world.store.find_by_udid(device.udid)
    assert record is not None
    wanted = Wanted(None, transport, None)
    said = await ask(world, suppose_device(record.listed.spki_sha256, wanted, now()))
    assert said["outcome"] == "issue"
    assert said["device"]["udid"] == device.udid
    assert said["claim"] is None
    assert said["certificate"]["key_sha256"] == record.listed.spki_sha256.hex()
    assert said["certificate"]["subject"] == f"CN={device.udid}"
    unknown = await ask(world, suppose_device(None, wanted, now()))
    assert unknown["outcome"] == "refuse"
    assert unknown["certificate"] is None


@pytest.mark.parametrize("transport", Transport)
async def test_a_device_may_ask_for_a_generated_key(world: World, transport: Transport) -> None:
    device = await world.list_device("a")
    record = await world.store.find_by_udid(device.udid)
    assert record is not None
    wanted = Wanted(Operation.SERVERKEYGEN, transport, KEYS)
    supposed = suppose_device(record.listed.spki_sha256, wanted, now())
    assert (await ask(world, supposed))["reason"] == RefusalReason.KEY_NOT_ALLOWED
    profile = replace(world.policy(KEYS).profile, operational_key=OperationalKey.ANY)
    world.change_policy(KEYS, profile=profile)
    said = await ask(world, supposed)
    assert (said["outcome"], said["certificate"]["key_kind"]) == ("issue", "ec-p256")
    assert said["certificate"]["key_sha256"] is None


@pytest.mark.parametrize("transport", Transport)
async def test_a_certificate_alone(world: World, transport: Transport) -> None:
    device = await world.list_device("a", born=True)
    supposed = suppose_certificate(
        device.chain, Wanted(None, transport, WISHING), world.server_anchors, now()
    )
    said = await ask(world, supposed)
    assert (said["outcome"], said["operation"]) == ("issue", "simpleenroll")
    assert said["certificate"]["reasons"] == ["birth certificate and list"]


async def test_an_operational_certificate_renews_unless_told_otherwise(
    world: World, road: Road
) -> None:
    device = await operational(world, road)
    wanted = Wanted(None, road.transport, None)
    anchors = world.server_anchors
    said = await ask(world, suppose_certificate(device.chain, wanted, anchors, now()))
    assert (said["outcome"], said["operation"]) == ("issue", "simplereenroll")
    assert said["claim"]["serial"] == f"{device.certificate.serial_number:x}"


@pytest.mark.parametrize("text", ["a password", "c2VjcmV0", "A" * 44])
async def test_a_challenge_password_that_no_channel_has(world: World, text: str) -> None:
    device = await world.list_device("a", born=True)
    csr = pkcs10.build(device.key, x509.Name([]), attributes={"1.2.840.113549.1.9.7": text})
    supposed = suppose_csr(
        csr.der, device.chain, Wanted(None, Transport.COAPS, None), world.server_anchors, now()
    )
    said = await ask(world, supposed)
    assert said["reason"] == RefusalReason.POP_LINKING_FAILED
    assert said["status"] == "4.03"


async def test_an_authorizer_can_tell_a_preview(world: World) -> None:
    seen: list[bool] = []
    authorizer = world.policy(None).authorizer

    async def noting(request: EnrollmentRequest, client: ClientIdentity, /) -> Any:
        seen.append(request.is_preview)
        return await authorizer(request, client)

    world.change_policy(None, authorizer=noting)
    device = await world.list_device("a", born=True)
    supposed = suppose_certificate(
        device.chain, Wanted(None, Transport.HTTPS, None), world.server_anchors, now()
    )
    await ask(world, supposed)
    async with ROADS["in-process"](world) as road, road.connection(device) as connection:
        await connection.simpleenroll(ec.generate_private_key(ec.SECP256R1()))
    assert seen == [True, False]
