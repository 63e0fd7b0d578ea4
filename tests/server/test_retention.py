"""Records of certificates that ended long ago go, and nothing is forgotten that counts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.journal import Event
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate
from est_server.revocations import RevocationReason, issuer_of
from est_server.stores.options import StoreOptions
from est_server.stores.rules.journal import Query
from est_server.stores.store import Store
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    first_enrollment,
    renewal,
)
from tests.server.raw_database import RawDatabase, raw
from tests.server.tampering import findings

__all__ = ["raw"]

OPTIONS = StoreOptions(ended_certificates_kept=timedelta(days=100))
_EVERY = 60
_LIFETIME = 90


@pytest.fixture(autouse=True)
def _pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too old goes with each issuance."""
    monkeypatch.setattr("est_server.stores.rules.journal.PRUNE_EVERY", 1)


async def issue(
    store: Store, clock: FakeClock, intent: EnrollmentIntent, *, age: int
) -> IssuedCertificate:
    """A certificate that is issued ``age`` days after the test began."""
    begun = await store.begin(intent)
    assert isinstance(begun, IssuanceTicket)
    key = "a" if intent.predecessor is None else "b"
    made = certificate(key, lifetime=timedelta(days=age + _LIFETIME))
    return await store.complete(begun, made, now=clock.now())


async def live(store: Store, clock: FakeClock, renewals: int) -> list[IssuedCertificate]:
    """A device that renews every 60 days."""
    certificates = [await issue(store, clock, first_enrollment(), age=0)]
    for number in range(1, renewals + 1):
        clock.advance(days=_EVERY)
        intent = renewal(certificates[-1].sha256)
        certificates.append(await issue(store, clock, intent, age=number * _EVERY))
    return certificates


async def test_old_renewals_go_and_the_first_and_the_last_stay(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock, options=OPTIONS) as store:
        certificates = await live(store, clock, 10)
        kept = [number for (number,) in raw.execute("SELECT number FROM issuances ORDER BY number")]
        # The eighth expired 90 days ago, the seventh 150.
        assert kept == [1, 8, 9, 10, 11]
        assert await findings(store) == []
        forgotten = [e async for e in store.journal(Query()) if e.event == Event.FORGOTTEN]
        assert [entry.known["numbers"] for entry in forgotten] == ["2", "3", "4", "5", "6", "7"]

        with pytest.raises(RequestRefused) as refused:
            await store.begin(first_enrollment(key="b"))
        assert refused.value.reason is RefusalReason.ALREADY_CLAIMED
        with pytest.raises(AlarmingRefusal) as clone:
            await store.begin(renewal(certificates[7].sha256))
        assert clone.value.alarm is AlarmKind.OLD_CERTIFICATE
        with pytest.raises(RequestRefused) as unknown:
            await store.begin(renewal(certificates[2].sha256))
        assert unknown.value.reason is RefusalReason.CERTIFICATE_UNKNOWN
        # The answer to the last renewal was lost.
        again = await store.begin(renewal(certificates[-2].sha256))
        assert isinstance(again, IssuedCertificate)
        assert again.sha256 == certificates[-1].sha256


async def test_a_record_that_somebody_else_removed_is_found(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock, options=OPTIONS) as store:
        await live(store, clock, 6)
        assert await findings(store) == []
        raw.execute("DELETE FROM issuances WHERE number = 4")
        assert await findings(store) == [
            "issuance 4: a certificate was issued, and its record is gone"
        ]


async def test_what_the_present_certificate_replaced_stays(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock, options=OPTIONS) as store:
        _, second = await live(store, clock, 1)
        # A device that slept for years renews by its listed key.
        clock.advance(days=1000)
        await issue(store, clock, renewal(second.sha256, key="b"), age=1060)
        await issue(store, clock, first_enrollment("device-2"), age=1060)
        kept = [number for (number,) in raw.execute("SELECT number FROM issuances ORDER BY number")]
        assert kept == [1, 2, 3, 4]
        lost = await store.find_renewable(
            second.spki_sha256, None, lost_since=clock.now() - timedelta(minutes=5)
        )
        assert lost is not None
        assert lost.sha256 == second.sha256
        assert await findings(store) == []


async def test_revocations_go_with_what_was_revoked(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock, options=OPTIONS) as store:
        *_, latest = await live(store, clock, 2)
        await store.revoke_certificate(
            latest.sha256,
            actor="ann",
            reason="lost",
            code=RevocationReason.SUPERSEDED,
            now=clock.now(),
        )
        issuer = issuer_of(latest.certificate)
        changes = await store.count_changes(issuer)
        clock.advance(days=_LIFETIME + 99)
        await issue(store, clock, first_enrollment("device-2"), age=309)
        assert raw.execute("SELECT count(*) FROM revocations") == [(1,)]
        clock.advance(days=2)
        await issue(store, clock, first_enrollment("device-3"), age=311)
        assert raw.execute("SELECT count(*) FROM revocations") == [(0,)]
        assert raw.execute("SELECT number FROM issuances WHERE device = 'device-1'") == [(1,)]
        assert await store.count_changes(issuer) == changes
        assert await findings(store) == []


async def test_each_record_is_looked_at_once(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock, options=OPTIONS) as store:
        for number in range(5):
            first = await issue(store, clock, first_enrollment(f"device-{number}"), age=0)
            await issue(store, clock, renewal(first.sha256, f"device-{number}"), age=0)
        clock.advance(days=1000)
        await issue(store, clock, first_enrollment("device-9"), age=1000)
        [(seen,)] = raw.execute("SELECT number FROM retention")
        assert seen == 9
        assert raw.execute("SELECT count(*) FROM issuances WHERE state = 'superseded'") == [(5,)]
