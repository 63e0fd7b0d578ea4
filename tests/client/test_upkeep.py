"""Renewing when it is due, following the CA, and waiting for "not yet", by a fake clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_client.client import EstClient
from est_client.key_store import FileKeyStore
from est_client.lifecycle import Waiting, enroll_device, renew_device
from est_client.renewal import RenewalPolicy, Upkeep, keep_current
from est_client.store_commands import watch
from est_client.trust import TrustDatabase
from est_protocol.csr_wishes import CsrWishes, write
from est_protocol.errors import (
    ChannelClosed,
    ConfigurationError,
    ServerRefused,
    StillPending,
)
from est_protocol.keys import key_kind
from est_protocol.messages import CsrAttributesResponse, EstRequest, EstResponse, Pending
from est_protocol.operations import Operation
from tests.client.memory import MemoryConnection, MemoryServer, grant
from tests.pki import CLIENT_AUTH, PRESENT, Ca, make_ca, make_leaf, make_name, make_server

ROOT = make_ca("root")
CA = make_ca("issuing", ROOT)
TRUST = TrustDatabase(explicit=(ROOT.certificate,))
#: The same root, for longer.
LATER_ROOT = (
    x509.CertificateBuilder()
    .subject_name(ROOT.certificate.subject)
    .issuer_name(ROOT.certificate.subject)
    .public_key(ROOT.key.public_key())
    .serial_number(1)
    .not_valid_before(PRESENT)
    .not_valid_after(PRESENT + timedelta(days=999))
    .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    .sign(ROOT.key, hashes.SHA256())
)
#: Half the life of what make_leaf makes: not due, whatever the spread.
YOUNG = PRESENT + timedelta(hours=8)
OLD = PRESENT + timedelta(hours=23)
DAY = timedelta(days=1)


class Clock:
    """Only sleeping moves it."""

    def __init__(self, now: datetime = PRESENT) -> None:
        self.time = now
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += timedelta(seconds=seconds)

    def waiting(self, seconds: float = 0.0) -> Waiting:
        return Waiting(seconds, self.now, self.sleep)


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer(CA, make_server(CA))


@pytest.fixture
async def store(tmp_path: Path) -> FileKeyStore:
    store = FileKeyStore(tmp_path)
    leaf = make_leaf(CA, "pump", usage=CLIENT_AUTH)
    await store.replace_identity(leaf.key, leaf.chain)
    return store


async def upkeep(
    server: MemoryServer, store: FileKeyStore, clock: Clock, *, force: bool = False
) -> Upkeep:
    trust = TrustDatabase(explicit=await store.trust_anchors() or TRUST.explicit)
    async with EstClient(server, trust=trust) as client:
        return await keep_current(client, store, force=force, waiting=clock.waiting())


async def certificate_in(store: FileKeyStore) -> x509.Certificate:
    identity = await store.identity()
    assert identity is not None
    return identity.chain[0]


# -- When ----------------------------------------------------------------------------------------


@pytest.mark.conformance("CL-10")
async def test_what_is_not_due_connects_to_nobody(
    server: MemoryServer, store: FileKeyStore
) -> None:
    done = await upkeep(server, store, Clock(YOUNG))
    assert done.renewed is None
    assert PRESENT < done.next_at < OLD
    assert server.attempts == 0


@pytest.mark.conformance("CL-10")
async def test_what_is_due_is_renewed_for_a_new_key(
    server: MemoryServer, store: FileKeyStore
) -> None:
    before = await certificate_in(store)
    done = await upkeep(server, store, Clock(OLD))
    assert done.renewed == await certificate_in(store)
    assert done.renewed.public_key() != before.public_key()
    assert done.renewed.subject == before.subject
    assert await FileKeyStore(store._directory).trust_anchors() == (ROOT.certificate,)


async def test_force_renews_what_is_not_due(server: MemoryServer, store: FileKeyStore) -> None:
    assert (await upkeep(server, store, Clock(YOUNG), force=True)).renewed is not None


async def test_an_empty_store_is_a_local_error(server: MemoryServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="enroll first"):
        await upkeep(server, FileKeyStore(tmp_path), Clock())
    assert server.attempts == 0


@pytest.mark.conformance("CL-10")
def test_each_certificate_has_a_time_of_its_own_that_stays() -> None:
    policy = RenewalPolicy()
    certificates = [make_leaf(CA, f"pump {n}").chain[0] for n in range(20)]
    times = [policy.renew_at(certificate) for certificate in certificates]
    assert len(set(times)) > 15
    assert times == [policy.renew_at(certificate) for certificate in certificates]
    for certificate, moment in zip(certificates, times, strict=True):
        assert policy.renew_at(certificate, 0.0) <= moment <= policy.renew_at(certificate, 1.0)


# -- The CA --------------------------------------------------------------------------------------


@pytest.mark.conformance("CA-13")
async def test_anchors_that_come_of_age_are_fetched_anew(
    server: MemoryServer, tmp_path: Path
) -> None:
    """The device's certificate lives on, so this is for the anchors alone."""
    store = FileKeyStore(tmp_path)
    leaf = make_leaf(CA, "pump", usage=CLIENT_AUTH, not_after=PRESENT + 365 * DAY)
    await store.replace_identity(leaf.key, leaf.chain)
    await store.replace_trust_anchors((ROOT.certificate,), PRESENT)
    assert (await upkeep(server, store, Clock(PRESENT))).new_anchors is False
    assert server.attempts == 0
    server.ca_certificates = (CA.certificate, ROOT.certificate, LATER_ROOT)
    done = await upkeep(server, store, Clock(OLD))
    assert (done.renewed, done.new_anchors) == (None, True)
    assert [request.operation for _, request in server.requests] == [Operation.CACERTS]
    assert await store.trust_anchors() == (LATER_ROOT,)


@pytest.mark.conformance("CL-09", "CA-11")
async def test_anchors_are_kept_before_anything_is_asked_for(
    server: MemoryServer, store: FileKeyStore
) -> None:
    kept: list[tuple[x509.Certificate, ...]] = []

    async def look(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        kept.append(await store.trust_anchors())
        return await grant(connection, request)

    server.handlers = [look]
    await upkeep(server, store, Clock(OLD))
    assert kept == [(ROOT.certificate,)]


def authority_of(begin: timedelta, end: timedelta) -> Ca:
    """One that lives from and to so long after the present."""
    certificate = (
        x509.CertificateBuilder()
        .subject_name(make_name("old"))
        .issuer_name(make_name("old"))
        .public_key(ROOT.key.public_key())
        .serial_number(2)
        .not_valid_before(PRESENT + begin)
        .not_valid_after(PRESENT + end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ROOT.key, hashes.SHA256())
    )
    return Ca(ROOT.key, certificate)


async def device_of(ca: Ca, directory: Path) -> FileKeyStore:
    """A device whose certificate lives for long, of a CA that it trusts."""
    store = FileKeyStore(directory)
    leaf = make_leaf(ca, "pump", usage=CLIENT_AUTH, not_after=PRESENT + 9 * 365 * DAY)
    await store.replace_identity(leaf.key, leaf.chain)
    await store.replace_trust_anchors((ca.certificate,), ca.certificate.not_valid_before_utc)
    return store


@pytest.mark.conformance("CA-13")
async def test_anchors_of_age_are_fetched_now_and_then_and_not_at_each_look(tmp_path: Path) -> None:
    """2010 to 2030, so to say: four years are left, and a tenth of them is 146 days."""
    ca = authority_of(-16 * 365 * DAY, 4 * 365 * DAY)
    server = MemoryServer(ca, make_server(ca))
    await device_of(ca, tmp_path)
    clock, days = Clock(), []
    for day in range(350):
        # Each run is another process.
        store, before = FileKeyStore(tmp_path), server.attempts
        async with EstClient(server, trust=TrustDatabase(explicit=(ca.certificate,))) as client:
            await keep_current(client, store, waiting=clock.waiting())
        days += [day] * (server.attempts - before)
        clock.time += DAY
    assert days == [0, 146, 278]
    assert await FileKeyStore(tmp_path).trust_fetched_at() == PRESENT + 278 * DAY


async def test_anchors_at_their_end_are_fetched_once_a_day(tmp_path: Path) -> None:
    ca = authority_of(-300 * DAY, 5 * DAY)
    server = MemoryServer(ca, make_server(ca))
    store, clock = await device_of(ca, tmp_path), Clock()
    for _ in range(72):
        async with EstClient(server, trust=TrustDatabase(explicit=(ca.certificate,))) as client:
            await keep_current(client, store, waiting=clock.waiting())
        clock.time += timedelta(hours=1)
    assert server.attempts == 3


async def test_anchors_that_were_fetched_in_the_future_are_fetched(tmp_path: Path) -> None:
    """Or so a clock said that was wrong."""
    ca = authority_of(-300 * DAY, 5 * DAY)
    server = MemoryServer(ca, make_server(ca))
    store = await device_of(ca, tmp_path)
    await store.replace_trust_anchors((ca.certificate,), PRESENT + 999 * DAY)
    await upkeep(server, store, Clock())
    await upkeep(server, store, Clock())
    assert server.attempts == 1


async def test_anchors_are_not_fetched_for_who_does_not_adopt_them(tmp_path: Path) -> None:
    ca = authority_of(-300 * DAY, 5 * DAY)
    server = MemoryServer(ca, make_server(ca))
    store, trust = await device_of(ca, tmp_path), TrustDatabase(explicit=(ca.certificate,))
    async with EstClient(server, trust=trust, adopt_trust=False) as client:
        await keep_current(client, store, waiting=Clock().waiting())
    assert server.attempts == 0


def test_devices_do_not_fetch_all_at_once() -> None:
    policy, ca = RenewalPolicy(), authority_of(-300 * DAY, 5 * DAY).certificate
    early, late = (policy.refresh_at(ca, None, part) for part in (0.0, 1.0))
    assert late - early == (ca.not_valid_after_utc - ca.not_valid_before_utc) / 10


# -- Not yet -------------------------------------------------------------------------------------


async def later(connection: MemoryConnection, request: EstRequest) -> EstResponse:
    return Pending(60)


async def enroll(
    server: MemoryServer,
    store: FileKeyStore,
    clock: Clock,
    *,
    subject: x509.Name | None = None,
    wait: float = 0.0,
) -> x509.Certificate:
    async with EstClient(server, trust=TRUST) as client:
        return await enroll_device(client, store, subject=subject, wait=clock.waiting(wait))


@pytest.mark.conformance("STAT-02", "STAT-06")
async def test_a_pending_request_goes_on_after_a_restart(
    server: MemoryServer, tmp_path: Path
) -> None:
    clock = Clock()
    server.handlers = [later, later]
    with pytest.raises(StillPending):
        await enroll(server, FileKeyStore(tmp_path), clock, subject=make_name("pump"))
    clock.time += timedelta(seconds=59)
    with pytest.raises(StillPending) as caught:
        await enroll(server, FileKeyStore(tmp_path), clock)
    assert caught.value.retry_after == 1
    assert len(server.enrollments) == 1
    clock.time += timedelta(seconds=1)
    with pytest.raises(StillPending):
        await enroll(server, FileKeyStore(tmp_path), clock)
    clock.time += timedelta(seconds=60)
    certificate = await enroll(server, FileKeyStore(tmp_path), clock)
    assert certificate.subject == make_name("pump")
    assert len({csr.key_sha256 for _, csr in server.enrollments}) == 1
    assert len({csr.der for _, csr in server.enrollments}) == 3
    assert await FileKeyStore(tmp_path).pending_request() is None


@pytest.mark.conformance("STAT-02", "SE-08")
async def test_a_pending_request_for_another_name_goes_on_after_a_restart(
    server: MemoryServer, tmp_path: Path
) -> None:
    clock = Clock()
    birth = make_leaf(make_ca("manufacturer"), "device", usage=CLIENT_AUTH)
    server.handlers = [later]
    async with EstClient(server, trust=TRUST) as client:
        with pytest.raises(StillPending):
            await enroll_device(
                client,
                FileKeyStore(tmp_path),
                birth=birth,
                subject=make_name("pump"),
                change_names=True,
                wait=clock.waiting(),
            )
        clock.time += timedelta(seconds=60)
        store = FileKeyStore(tmp_path)
        await enroll_device(client, store, birth=birth, wait=clock.waiting())
    csrs = [csr for _, csr in server.enrollments]
    assert [csr.subject for csr in csrs] == [make_name("device")] * 2
    assert [csr.wanted_names for csr in csrs] == [(make_name("pump"), ())] * 2


@pytest.mark.conformance("STAT-02")
async def test_who_has_the_time_waits_what_is_left(server: MemoryServer, tmp_path: Path) -> None:
    clock = Clock()
    server.handlers = [later, later]
    with pytest.raises(StillPending):
        await enroll(server, FileKeyStore(tmp_path), clock)
    clock.time += timedelta(seconds=20)
    await enroll(server, FileKeyStore(tmp_path), clock, wait=100)
    assert clock.slept == [40, 60]


async def test_a_request_is_not_put_off_for_years(server: MemoryServer, tmp_path: Path) -> None:
    clock = Clock()

    async def never(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        return Pending(2**32 - 1)

    server.handlers = [never]
    with pytest.raises(StillPending) as caught:
        await enroll(server, FileKeyStore(tmp_path), clock)
    assert caught.value.retry_after == 86400
    clock.time += DAY
    assert await enroll(server, FileKeyStore(tmp_path), clock)


async def test_patience_ends(server: MemoryServer, tmp_path: Path) -> None:
    clock = Clock()
    server.handlers = [later] * 5
    with pytest.raises(StillPending):
        await enroll(server, FileKeyStore(tmp_path), clock, wait=150)
    assert clock.slept == [60, 60]
    assert len(server.enrollments) == 3


async def test_a_clock_that_was_set_back_does_not_wait_for_years(
    server: MemoryServer, tmp_path: Path
) -> None:
    clock = Clock()
    server.handlers = [later]
    with pytest.raises(StillPending):
        await enroll(server, FileKeyStore(tmp_path), clock)
    clock.time -= 365 * DAY
    await enroll(server, FileKeyStore(tmp_path), clock)


async def test_a_renewal_that_is_pending_goes_on(server: MemoryServer, store: FileKeyStore) -> None:
    clock = Clock(OLD)
    server.handlers = [later]
    with pytest.raises(StillPending):
        await upkeep(server, store, clock)
    clock.time += timedelta(seconds=60)
    assert (await upkeep(server, store, clock)).renewed is not None
    assert len({csr.key_sha256 for _, csr in server.enrollments}) == 1


async def test_another_request_is_not_held_up(server: MemoryServer, store: FileKeyStore) -> None:
    """A pending request for one key says nothing about another."""
    clock = Clock(OLD)
    server.handlers = [later]
    with pytest.raises(StillPending):
        await upkeep(server, store, clock)
    async with EstClient(server, trust=TRUST) as client:
        await renew_device(client, store, rekey=False, wait=clock.waiting())


async def test_a_refusal_ends_the_wait(server: MemoryServer, tmp_path: Path) -> None:
    async def refuse(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        raise ServerRefused("403", "no")

    clock, store = Clock(), FileKeyStore(tmp_path)
    server.handlers = [later, refuse]
    with pytest.raises(ServerRefused):
        await enroll(server, store, clock, wait=100)
    assert await store.pending_request() is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"operation": "simpleenroll", "csr": ""}', "[" * 100_000]
)
async def test_a_damaged_request_stops_nobody(
    server: MemoryServer, store: FileKeyStore, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (store._directory / "pending-request.json").write_text(text)
    await upkeep(server, store, Clock(OLD))
    assert "pending-request.json is damaged" in caplog.text
    assert not (store._directory / "pending-request.json").exists()


# -- What the server asks for ---------------------------------------------------------------------


class Wishing(MemoryServer):
    """Asks for one kind of key, and certifies no other."""

    kind = "ec-p384"

    async def answer(self, connection: MemoryConnection, request: EstRequest) -> EstResponse:
        if request.operation is Operation.CSRATTRS:
            return CsrAttributesResponse(write(CsrWishes(key=self.kind)).encode())
        return await super().answer(connection, request)


@pytest.fixture
def wishing() -> Wishing:
    return Wishing(CA, make_server(CA))


async def test_a_new_key_is_as_the_server_asks(wishing: Wishing, tmp_path: Path) -> None:
    birth = make_leaf(make_ca("manufacturer"), "device", usage=CLIENT_AUTH)
    store = FileKeyStore(tmp_path)
    async with EstClient(wishing, trust=TRUST) as client:
        first = await enroll_device(client, store, birth=birth, follow_csr_attributes=True)
        wishing.kind = "ed25519"
        second = await renew_device(client, store, follow_csr_attributes=True)
    kinds = [key_kind(certificate.public_key()) for certificate in (first, second)]
    assert kinds == ["ec-p384", "ed25519"]


async def test_a_new_key_is_like_the_old_one_where_nobody_asks(
    server: MemoryServer, tmp_path: Path
) -> None:
    store = FileKeyStore(tmp_path)
    async with EstClient(server, trust=TRUST) as client:
        await enroll_device(client, store, kind="ec-p384")
        renewed = await renew_device(client, store)
    assert key_kind(renewed.public_key()) == "ec-p384"


@pytest.mark.conformance("CL-09")
async def test_a_key_whose_certificate_got_lost_is_asked_for_before_it_is_given_up(
    wishing: Wishing, store: FileKeyStore
) -> None:
    """The server has come to ask for another kind meanwhile."""
    lost = await store.pending_key("ec-p256")
    async with EstClient(wishing, trust=TRUST) as client:
        renewed = await renew_device(client, store, follow_csr_attributes=True)
    assert renewed.public_key() == lost.public_key()


async def test_a_pending_key_that_the_server_does_not_want_is_replaced(
    wishing: Wishing, store: FileKeyStore
) -> None:
    async def refuse(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        raise ServerRefused("403", "no such keys")

    await store.pending_key("ec-p256")
    wishing.handlers = [refuse]
    async with EstClient(wishing, trust=TRUST) as client:
        renewed = await renew_device(client, store, follow_csr_attributes=True)
    assert key_kind(renewed.public_key()) == "ec-p384"


# -- Watching --------------------------------------------------------------------------------------


class Ended(Exception):
    """The test has seen enough."""


async def test_watching_sleeps_until_it_is_due_and_tries_again_after_failures() -> None:
    clock = Clock()
    outcomes: list[Upkeep | Exception] = [
        Upkeep(None, new_anchors=False, next_at=PRESENT + timedelta(hours=2)),
        ChannelClosed("no network"),
        ChannelClosed("no network"),
        StillPending(300),
        Upkeep(None, new_anchors=False, next_at=PRESENT + 30 * DAY),
        Upkeep(None, new_anchors=False, next_at=PRESENT - DAY),
        Ended(),
    ]

    async def once() -> Upkeep:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.raises(Ended):
        await watch(once, sleep=clock.sleep, now=clock.now, random_fraction=lambda: 0.0)
    assert clock.slept == [7200, 600, 1200, 300, 86400, 60]


async def test_watching_ends_where_nothing_can_get_better() -> None:
    async def once() -> Upkeep:
        raise ConfigurationError("the key store is not there")

    with pytest.raises(ConfigurationError):
        await watch(once, sleep=Clock().sleep)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    with FileKeyStore(directory).locked():
        with pytest.raises(ConfigurationError, match="in use"), FileKeyStore(directory).locked():
            pytest.fail("two at once")
    with FileKeyStore(directory).locked():
        assert directory.stat().st_mode & 0o777 == 0o700
