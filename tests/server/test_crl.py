"""CRLs: what is in them, when a new one is made, and how they are served."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol.errors import ConfigurationError
from est_server.authorities.creation import NewCa, create_ca
from est_server.authorities.local import LocalAuthority
from est_server.authorities.signers.key import KeySigner
from est_server.https.plain import PlainHttpEndpoint, PlainHttpLimits, PlainHttpServer, serve_plain
from est_server.interfaces import IssuanceOrder
from est_server.ledger_records import IssuanceTicket, IssuedCertificate
from est_server.profiles import CertificateProfile
from est_server.revocation.application import crl_application
from est_server.revocation.publisher import CrlPublisher, CrlSchedule
from est_server.revocations import (
    CrlOrder,
    CrlStatus,
    PublishedCrl,
    RevocationReason,
    RevokedCertificate,
)
from est_server.stores.rules.values import to_column
from est_server.stores.schema import MIGRATIONS
from est_server.stores.sqlite import SqliteStore, database
from est_server.stores.sqlite.database import SqliteOptions
from tests.pki import PRESENT, make_key
from tests.server.conftest import OpenStore, Store
from tests.server.ledger_values import FakeClock, digest, first_enrollment

CA = create_ca("Example", now=PRESENT)
OTHER_CA = create_ca("Other", now=PRESENT)
URL = "http://crl.example.com/default.crl"


def authority(ca: NewCa = CA) -> LocalAuthority:
    return LocalAuthority(KeySigner(ca.issuing_key), ca.issuing, (ca.root,))


def order_for(
    device: str,
    now: datetime,
    *,
    lifetime: timedelta = timedelta(days=90),
    points: tuple[str, ...] = (),
) -> IssuanceOrder:
    return IssuanceOrder(
        order_id=digest(device),
        public_key=make_key(device).public_key(),
        subject=x509.Name.from_rfc4514_string(f"CN={device}"),
        subject_alt_names=(),
        validity=lifetime,
        profile=CertificateProfile(validity=lifetime, crl_distribution_points=points),
        label=None,
        pop_linked=True,
        now=now,
    )


class Plant:
    """A store and a CA that issues from it."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.publisher = self.new_publisher()

    def new_publisher(self, schedule: CrlSchedule | None = None) -> CrlPublisher:
        """One server's view of the CRLs."""
        issuers = {"default": authority().crl_issuer(), "other": authority(OTHER_CA).crl_issuer()}
        return CrlPublisher(self.store, issuers, self.clock, schedule)

    async def issue(
        self,
        device: str,
        *,
        ca: NewCa = CA,
        lifetime: timedelta = timedelta(days=90),
        points: tuple[str, ...] = (),
    ) -> IssuedCertificate:
        """Issue a certificate to a device that has none."""
        order = order_for(device, self.clock.now(), lifetime=lifetime, points=points)
        ticket = await self.store.begin(first_enrollment(device, key=device))
        assert isinstance(ticket, IssuanceTicket)
        certificate = await authority(ca).issue(order)
        return await self.store.complete(ticket, certificate, now=self.clock.now())

    async def revoke(
        self, issued: IssuedCertificate, code: RevocationReason = RevocationReason.UNSPECIFIED
    ) -> None:
        """Revoke a certificate."""
        await self.store.revoke_certificate(
            issued.sha256, actor="test", reason="test", code=code, now=self.clock.now()
        )

    async def crl(
        self, name: str = "default", *, publisher: CrlPublisher | None = None
    ) -> x509.CertificateRevocationList:
        """The CRL that a server has after a look at the store."""
        publisher = publisher or self.publisher
        await publisher.refresh()
        latest = publisher.latest(name)
        assert latest is not None
        return x509.load_der_x509_crl(latest.der)


@pytest.fixture
async def plant(open_store: OpenStore, clock: FakeClock) -> AsyncIterator[Plant]:
    async with open_store(clock) as store:
        yield Plant(store, clock)


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def serials(crl: x509.CertificateRevocationList) -> set[int]:
    return {entry.serial_number for entry in crl}


# -- What is in a CRL --------------------------------------------------------------------------


async def test_a_crl_has_what_rfc_5280_wants(plant: Plant) -> None:
    crl = await plant.crl()
    assert crl.issuer == CA.issuing.subject
    assert crl.is_signature_valid(CA.issuing.public_key())  # type: ignore[arg-type]
    assert crl.last_update_utc == PRESENT - timedelta(minutes=5)
    assert crl.next_update_utc == PRESENT + timedelta(days=7)
    own = CA.issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    named = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert named.key_identifier == own.digest
    assert number(crl) > 0
    assert not any(extension.critical for extension in crl.extensions)
    assert len(crl) == 0


@pytest.mark.parametrize("code", RevocationReason)
async def test_an_entry_says_which_certificate_and_why(
    plant: Plant, code: RevocationReason
) -> None:
    issued = await plant.issue("a")
    plant.clock.advance(hours=1)
    await plant.revoke(issued, code)
    [entry] = await plant.crl()
    assert entry.serial_number == issued.certificate.serial_number
    assert entry.revocation_date_utc == PRESENT + timedelta(hours=1)
    if code is RevocationReason.UNSPECIFIED:
        assert len(entry.extensions) == 0
    else:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason)
        assert reason.value.reason is code.flag
        assert not reason.critical


async def test_a_certificate_is_on_the_crl_of_its_own_ca_only(plant: Plant) -> None:
    ours, other = await plant.issue("a"), await plant.issue("b", ca=OTHER_CA)
    await plant.revoke(ours)
    await plant.revoke(other)
    assert serials(await plant.crl("default")) == {ours.certificate.serial_number}
    assert serials(await plant.crl("other")) == {other.certificate.serial_number}


async def test_an_entry_goes_once_a_crl_from_after_the_certificates_end_had_it(
    plant: Plant,
) -> None:
    issued = await plant.issue("a", lifetime=timedelta(hours=20))
    await plant.revoke(issued)
    assert len(await plant.crl()) == 1
    plant.clock.advance(hours=24)
    assert len(await plant.crl()) == 1, "the first after its end has it still"
    plant.clock.advance(hours=24)
    assert len(await plant.crl()) == 0


async def test_many_entries_are_all_there(plant: Plant) -> None:
    order = CrlOrder(
        number=1,
        this_update=PRESENT,
        next_update=PRESENT + timedelta(days=1),
        revoked=[RevokedCertificate(n, PRESENT, RevocationReason.SUPERSEDED) for n in _range()],
    )
    crl = x509.load_der_x509_crl(authority().crl_issuer().issue_crl(order))
    assert serials(crl) == set(_range())


def _range() -> Sequence[int]:
    return range(1, 20_001)


async def test_more_pages_than_one_are_read(plant: Plant) -> None:
    expected = set()
    for index in range(1203):
        issued = await plant.issue(f"device-{index % 7}-{index}", lifetime=timedelta(days=1))
        await plant.revoke(issued)
        expected.add(issued.certificate.serial_number)
    assert serials(await plant.crl()) == expected


async def test_beyond_the_bound_no_crl_is_made(
    plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = plant.new_publisher(CrlSchedule(max_entries=1))
    for device in ("a", "b"):
        await plant.revoke(await plant.issue(device))
    await publisher.refresh()
    assert publisher.latest("default") is None
    assert publisher.latest("other") is not None
    assert "max_entries" in caplog.text


def test_a_ca_that_may_not_sign_crls_is_told_so() -> None:
    without = CA.issuing.extensions.get_extension_for_class(x509.KeyUsage).value
    assert without.crl_sign, "or else the next assertion says nothing"
    key = make_key("no crls")
    usage = x509.KeyUsage(False, False, False, False, False, True, False, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(CA.issuing.subject)
        .issuer_name(CA.issuing.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(PRESENT)
        .not_valid_after(PRESENT + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    signer = KeySigner(key)
    root = LocalAuthority(signer, signer.sign_certificate(certificate))
    with pytest.raises(ConfigurationError, match="cRLSign"):
        root.crl_issuer()


async def test_openssl_rejects_what_was_revoked_and_nothing_else(
    plant: Plant, tmp_path: Path
) -> None:
    good = await plant.issue("good", points=(URL,))
    bad = await plant.issue("bad", points=(URL,))
    await plant.revoke(bad, RevocationReason.KEY_COMPROMISE)
    crl = await plant.crl()
    (tmp_path / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    (tmp_path / "root.pem").write_bytes(CA.root.public_bytes(Encoding.PEM))
    (tmp_path / "issuing.pem").write_bytes(CA.issuing.public_bytes(Encoding.PEM))
    text = _openssl(
        "crl", "-in", "crl.pem", "-noout", "-text", "-CAfile", "issuing.pem", at=tmp_path
    )
    assert "Key Compromise" in text
    assert "verify OK" in text
    for issued, revoked in ((good, False), (bad, True)):
        (tmp_path / "leaf.pem").write_bytes(issued.certificate.public_bytes(Encoding.PEM))
        verdict = _openssl(
            *("verify", "-crl_check", "-CRLfile", "crl.pem", "-CAfile", "root.pem"),
            *("-untrusted", "issuing.pem", "leaf.pem"),
            at=tmp_path,
        )
        assert ("certificate revoked" in verdict) is revoked, verdict
        assert ("leaf.pem: OK" in verdict) is not revoked, verdict


def _openssl(*arguments: str, at: Path) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=at, capture_output=True, text=True)
    return done.stdout + done.stderr


async def test_a_certificate_names_its_crl(plant: Plant) -> None:
    issued = await plant.issue("a", points=(URL, "http://backup.example.com/default.crl"))
    points = issued.certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    assert not points.critical
    [point] = points.value
    assert point.full_name == [
        x509.UniformResourceIdentifier(URL),
        x509.UniformResourceIdentifier("http://backup.example.com/default.crl"),
    ]


async def test_what_was_revoked_before_there_were_crls_is_on_them(
    tmp_path: Path, clock: FakeClock
) -> None:
    file = tmp_path / "old.sqlite"
    database.prepare(file, SqliteOptions(), MIGRATIONS[:3])
    leaf = await authority().issue(order_for("old", PRESENT))
    der = leaf.public_bytes(Encoding.DER)
    with closing(sqlite3.connect(file)) as db, db:
        values = {
            **{"request_key": bytes(32), "operation": "simpleenroll", "device": "old"},
            **{"label": "", "spki_sha256": bytes(32), "transport": "https", "peer": "p"},
            **{"reasons": "[]", "requested_at": 1, "owner": "o", "lease_until": 1},
            **{"status": "issued", "finished_at": 5_000_000, "certificate": der},
            **{"sha256": hashlib.sha256(der).digest(), "serial": f"{leaf.serial_number:x}"},
            **{"not_after": to_column(leaf.not_valid_after_utc), "state": "revoked"},
        }
        marks = ", ".join("?" * len(values))
        db.execute(
            f"INSERT INTO issuances ({', '.join(values)}) VALUES ({marks})", (*values.values(),)
        )
    async with SqliteStore.open(file, clock=clock) as store:
        [entry] = await Plant(store, clock).crl()
    assert entry.serial_number == leaf.serial_number
    assert entry.revocation_date_utc == datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)


# -- When a new one is made --------------------------------------------------------------------


async def test_nothing_new_makes_no_new_crl(plant: Plant) -> None:
    first = await plant.crl()
    plant.clock.advance(hours=11)
    assert await plant.crl() == first


async def test_a_revocation_makes_a_new_crl(plant: Plant) -> None:
    issued = await plant.issue("a")
    first = await plant.crl()
    await plant.revoke(issued)
    second = await plant.crl(publisher=plant.new_publisher())
    assert number(second) > number(first)
    assert serials(second) == {issued.certificate.serial_number}


async def test_a_revocation_by_another_process_makes_a_new_crl(
    plant: Plant, open_store: OpenStore
) -> None:
    issued = await plant.issue("a")
    async with open_store(plant.clock) as elsewhere:
        await elsewhere.revoke_certificate(
            issued.sha256, actor="operator", reason="lost", now=plant.clock.now()
        )
    assert serials(await plant.crl()) == {issued.certificate.serial_number}


async def test_a_new_crl_is_made_in_time(plant: Plant) -> None:
    first = await plant.crl()
    plant.clock.advance(hours=13)
    second = await plant.crl(publisher=plant.new_publisher())
    assert number(second) > number(first)
    assert second.last_update_utc > first.last_update_utc


async def test_servers_on_one_store_publish_one_and_the_same_crl(
    plant: Plant, open_store: OpenStore
) -> None:
    await plant.revoke(await plant.issue("a"))
    async with open_store(plant.clock) as elsewhere:
        issuers = {"default": authority().crl_issuer()}
        publishers = [
            CrlPublisher(store, issuers, plant.clock)
            for store in (plant.store, plant.store, elsewhere)
        ]
        await asyncio.gather(*(publisher.refresh() for publisher in publishers))
        crls = [publisher.latest("default") for publisher in publishers]
    assert crls[0] is not None
    assert crls.count(crls[0]) == len(crls)


async def test_a_clock_that_goes_back_makes_no_older_crl(plant: Plant) -> None:
    issued = await plant.issue("a")
    first = await plant.crl()
    plant.clock.advance(hours=-1)
    await plant.revoke(issued)
    second = await plant.crl(publisher=plant.new_publisher())
    assert number(second) > number(first)
    assert second.last_update_utc == first.last_update_utc


async def test_a_crl_that_ran_out_is_not_given_out(plant: Plant) -> None:
    await plant.crl()
    plant.clock.advance(days=8)
    assert plant.publisher.latest("default") is None


async def test_a_store_that_cannot_be_reached_leaves_the_crl_there_was(
    open_store: OpenStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(clock) as store:
        plant = Plant(store, clock)
        first = await plant.crl()
    clock.advance(hours=13)
    await plant.publisher.refresh()
    latest = plant.publisher.latest("default")
    assert latest is not None
    assert x509.load_der_x509_crl(latest.der) == first


def test_a_schedule_that_lets_crls_run_out_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        CrlSchedule(refresh=timedelta(days=7), validity=timedelta(days=7))


# -- How they are served -----------------------------------------------------------------------


class Shelf(CrlPublisher):
    """A publisher of one CRL that a test puts there."""

    def __init__(self, der: bytes, clock: FakeClock) -> None:
        self._clock = clock
        self.crl: PublishedCrl | None = PublishedCrl(
            CrlStatus(1, bytes(32), PRESENT, PRESENT + timedelta(days=1), 0), der
        )

    def latest(self, name: str) -> PublishedCrl | None:
        if name != "default":
            raise KeyError(name)
        return self.crl


@asynccontextmanager
async def served(
    shelf: CrlPublisher, limits: PlainHttpLimits | None = None
) -> AsyncIterator[tuple[PlainHttpServer, str]]:
    app = crl_application(shelf, max_age=timedelta(minutes=5))
    endpoint = PlainHttpEndpoint(port=0, limits=limits or PlainHttpLimits())
    async with await serve_plain(app, endpoint) as server:
        yield server, f"http://{server.addresses[0]}/default.crl"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_crl_is_served(client: aiohttp.ClientSession, clock: FakeClock) -> None:
    der = bytes(range(256)) * 1000
    async with served(Shelf(der, clock)) as (_, url), client.get(url) as answer:
        assert answer.status == 200
        assert await answer.read() == der
        assert answer.headers["Content-Type"] == "application/pkix-crl"
        assert answer.headers["Cache-Control"] == "public, max-age=300, no-transform"
        assert answer.headers["ETag"]
        assert "Server" not in answer.headers


async def test_a_cache_that_has_it_is_told_so(
    client: aiohttp.ClientSession, clock: FakeClock
) -> None:
    async with served(Shelf(b"octets", clock)) as (_, url):
        async with client.get(url) as answer:
            tag = answer.headers["ETag"]
        async with client.get(url, headers={"If-None-Match": f'"other", W/{tag}'}) as answer:
            assert answer.status == 304
            assert await answer.read() == b""
        async with client.get(url, headers={"If-None-Match": '"other"'}) as answer:
            assert await answer.read() == b"octets"


async def test_caches_forget_a_crl_before_it_runs_out(
    client: aiohttp.ClientSession, clock: FakeClock
) -> None:
    async with served(Shelf(b"octets", clock)) as (_, url):
        clock.advance(hours=23, minutes=59)
        async with client.get(url) as answer:
            assert answer.headers["Cache-Control"].startswith("public, max-age=60,")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_nothing_but_get(
    client: aiohttp.ClientSession, clock: FakeClock, method: str
) -> None:
    async with served(Shelf(b"octets", clock)) as (_, url):
        async with client.request(method, url, data=b"x" * 100_000) as answer:
            assert answer.status == 405
            assert answer.headers["Allow"] == "GET"


@pytest.mark.parametrize("path", ["/", "/other.crl", "/default", "/a/default.crl"])
async def test_nothing_else_is_there(
    client: aiohttp.ClientSession, clock: FakeClock, path: str
) -> None:
    async with served(Shelf(b"octets", clock)) as (server, _):
        async with client.get(f"http://{server.addresses[0]}{path}") as answer:
            assert answer.status == 404


async def test_while_there_is_none_it_says_when_to_come_back(
    client: aiohttp.ClientSession, clock: FakeClock
) -> None:
    shelf = Shelf(b"octets", clock)
    shelf.crl = None
    async with served(shelf) as (_, url), client.get(url) as answer:
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0


async def _connect(server: PlainHttpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.addresses[0].rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))


async def test_a_header_that_does_not_come_ends_the_connection(clock: FakeClock) -> None:
    async with served(Shelf(b"x", clock), PlainHttpLimits(header_timeout=0.05)) as (server, _):
        reader, writer = await _connect(server)
        writer.write(b"GET /default.crl HT")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_a_client_that_does_not_read_loses_its_connection(clock: FakeClock) -> None:
    limits = PlainHttpLimits(write_timeout=0.05)
    async with served(Shelf(bytes(64 * 2**20), clock), limits) as (server, _):
        reader, writer = await _connect(server)
        writer.write(b"GET /default.crl HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(64 * 2**20)
        writer.close()


async def test_one_connection_too_many_ends_the_oldest_idle_one(clock: FakeClock) -> None:
    async with served(Shelf(b"octets", clock), PlainHttpLimits(max_connections=2)) as (server, _):
        connections = [await _connect(server) for _ in range(3)]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await connections[0][0].readexactly(1)
        for reader, writer in connections[1:]:
            writer.write(b"GET /default.crl HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await reader.readexactly(12) == b"HTTP/1.1 200"
        for _, writer in connections:
            writer.close()


async def test_a_long_header_is_refused(clock: FakeClock) -> None:
    async with served(Shelf(b"octets", clock)) as (server, _):
        reader, writer = await _connect(server)
        writer.write(b"GET /default.crl HTTP/1.1\r\nHost: " + b"a" * 5000 + b"\r\n\r\n")
        assert (await reader.readexactly(12)).endswith(b" 400")
        writer.close()
