"""Somebody writes records of certificates past the server: it is noticed where they are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.alarms import Alarm, AlarmBell, AlarmingRefusal, AlarmKind
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate
from est_server.life_cycle import LifeCycleStep
from est_server.revocation.publisher import CrlPublisher
from est_server.revocations import RevocationReason
from est_server.stores.options import StoreOptions
from est_server.stores.rules import attempts
from est_server.stores.store import Store
from tests.pki import PRESENT, make_ca, make_key, make_name
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    digest,
    first_enrollment,
    generated_key,
    listed,
    order,
    refusal,
    renewal,
)
from tests.server.raw_database import RawDatabase, RawSqlite, raw
from tests.server.tampering import begin, findings
from tests.server.test_crl import Plant, authority, serials

__all__ = ["raw"]

#: Of a row of ``issuances`` that has a certificate.
DECIDING = "device, label, serial, not_after, spki_sha256, request_key, operation, state, mac"


async def issue(
    store: Store, clock: FakeClock, intent: EnrollmentIntent, key: str = "a"
) -> IssuedCertificate:
    ticket = await store.begin(intent)
    assert isinstance(ticket, IssuanceTicket)
    return await store.complete(ticket, certificate(key), now=clock.now())


async def fill(store: Store, clock: FakeClock) -> IssuedCertificate:
    """Two devices, the first with a certificate."""
    await store.add_devices([listed(1), listed(2)], now=clock.now())
    return await issue(store, clock, first_enrollment())


async def assert_tampered(attempt: Awaitable[object]) -> None:
    """It is refused, and somebody is told."""
    with pytest.raises(AlarmingRefusal) as refused:
        await attempt
    assert refused.value.reason is RefusalReason.RECORD_TAMPERED
    assert refused.value.alarm is AlarmKind.RECORD_TAMPERED


async def every(store: Store, device: str | None = None) -> list[IssuedCertificate]:
    return [issued async for issued in store.certificates(device=device)]


# -- Records of certificates -------------------------------------------------------------------

EDITS = {
    "another serial": "UPDATE issuances SET serial = '1'",
    "another end": "UPDATE issuances SET not_after = not_after + 1",
    "another key": "UPDATE issuances SET spki_sha256 = request_key",
    "another request": "UPDATE issuances SET request_key = spki_sha256",
    "another operation": "UPDATE issuances SET operation = 'serverkeygen'",
    "a predecessor": "UPDATE issuances SET predecessor = sha256",
    "another time": "UPDATE issuances SET finished_at = finished_at - 1",
    "superseded": "UPDATE issuances SET state = 'superseded'",
    "revoked": "UPDATE issuances SET state = 'revoked'",
    "no seal": "UPDATE issuances SET mac = NULL",
    "half a seal": "UPDATE issuances SET mac = substr(mac, 1, 16)",
}


@pytest.mark.parametrize("sql", EDITS.values(), ids=EDITS)
async def test_an_edited_certificate_is_noticed(
    raw: RawDatabase, clock: FakeClock, sql: str
) -> None:
    async with raw.open(clock) as store:
        issued = await fill(store, clock)
        assert await findings(store) == []
        raw.execute(sql)
        sha256 = issued.sha256
        attempts: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.find_certificate(sha256),
            lambda: store.check_standing(certificate=sha256, keys=[]),
            lambda: store.begin(renewal(sha256)),
            lambda: every(store),
            lambda: store.revoke_certificate(sha256, actor="a", reason="b", now=clock.now()),
            lambda: store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now()),
            lambda: store.change_device(order(LifeCycleStep.REVOKE), now=clock.now()),
            lambda: store.find_claim("device-1", None),
        ]
        for attempt in attempts:
            await assert_tampered(attempt())
        assert await findings(store) != []
        # Others are served.
        await issue(store, clock, first_enrollment("device-2"))


@pytest.mark.parametrize("column", ["device = 'device-2'", "label = 'vpn'", "sha256 = ?"])
async def test_a_certificate_is_not_given_to_another(
    raw: RawDatabase, clock: FakeClock, column: str
) -> None:
    async with raw.open(clock) as store:
        issued = await fill(store, clock)
        other = digest("another")
        raw.execute(f"UPDATE issuances SET {column}", (other,) if "?" in column else ())
        device = "device-2" if "device" in column else "device-1"
        label = "vpn" if "label" in column else None
        sha256 = other if "?" in column else issued.sha256
        await assert_tampered(store.begin(renewal(sha256, device, label=label)))
        await assert_tampered(store.find_certificate(sha256))
        assert await findings(store) != []


async def test_a_certificate_in_place_of_another_is_noticed(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        issued = await fill(store, clock)
        await issue(store, clock, first_enrollment("device-2", key="b"), "b")
        [(other,)] = raw.execute("SELECT certificate FROM issuances WHERE number = 2")
        raw.execute("UPDATE issuances SET certificate = ? WHERE number = 1", (other,))
        await assert_tampered(store.find_certificate(issued.sha256))
        # As an answer to the same request once more.
        await assert_tampered(store.begin(first_enrollment()))
        await assert_tampered(
            store.find_renewable(issued.spki_sha256, None, lost_since=clock.now())
        )
        await assert_tampered(
            store.revoke_certificate(issued.sha256, actor="a", reason="b", now=clock.now())
        )
        assert "issuance 1: its certificate was changed" in await findings(store)


async def test_an_old_certificate_is_not_made_active_again(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        first = await fill(store, clock)
        await issue(store, clock, renewal(first.sha256), "b")
        with pytest.raises(AlarmingRefusal) as refused:
            await store.begin(renewal(first.sha256, key="c"))
        assert refused.value.alarm is AlarmKind.OLD_CERTIFICATE
        raw.execute("UPDATE issuances SET state = 'superseded' WHERE number = 2")
        raw.execute("UPDATE issuances SET state = 'active' WHERE number = 1")
        await assert_tampered(store.begin(renewal(first.sha256, key="c")))
        assert {
            "issuance 1: is active; the journal says superseded",
            "issuance 2: is superseded; the journal says active",
        } <= set(await findings(store))


async def test_a_revoked_certificate_is_not_good_under_another_serial_number(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        issued = await fill(store, clock)
        await store.revoke_certificate(issued.sha256, actor="a", reason="b", now=clock.now())
        raw.execute("UPDATE issuances SET state = 'active', serial = '1'")
        await assert_tampered(store.check_standing(certificate=issued.sha256, keys=[]))
        await assert_tampered(store.begin(renewal(issued.sha256)))
        found = await findings(store)
        assert "issuance 1: is active; the journal says revoked" in found
        assert "issuance 1: its record says something else than its certificate" in found


async def put_back(raw: RawDatabase, row: tuple[Any, ...], number: int = 1) -> None:
    """A row as it was once, and the only one of its device."""
    raw.execute("DELETE FROM issuances WHERE number > ?", (number,))
    places = ", ".join(f"{column} = ?" for column in DECIDING.split(", "))
    raw.execute(f"UPDATE issuances SET {places} WHERE number = ?", (*row, number))


async def test_an_old_record_that_is_put_back_is_noticed(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        first = await fill(store, clock)
        [row] = raw.execute(f"SELECT {DECIDING} FROM issuances")
        await issue(store, clock, renewal(first.sha256), "b")
        await put_back(raw, row)
        assert await store.find_certificate(first.sha256) is not None
        await assert_tampered(store.begin(renewal(first.sha256, key="c")))
        found = await findings(store)
        assert "issuance 2: a certificate was issued, and its record is gone" in found
        assert "issuance 1: is active; the journal says superseded" in found


async def test_an_old_record_of_a_revoked_certificate_that_is_put_back_is_noticed(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        first = await fill(store, clock)
        [row] = raw.execute(f"SELECT {DECIDING} FROM issuances")
        await store.revoke_certificate(first.sha256, actor="a", reason="b", now=clock.now())
        raw.execute("DELETE FROM revocations")
        await put_back(raw, row)
        # With the certificate, or without one, by the key alone.
        await assert_tampered(store.check_standing(certificate=first.sha256, keys=[]))
        await assert_tampered(store.begin(renewal(first.sha256)))
        assert await findings(store) == ["issuance 1: is active; the journal says revoked"]


async def test_an_old_record_of_a_generated_key_that_is_put_back_is_noticed(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        intent = generated_key(lost_since=clock.now() - timedelta(minutes=5))
        first = await issue(store, clock, intent)
        [row] = raw.execute(f"SELECT {DECIDING} FROM issuances")
        await issue(store, clock, renewal(first.sha256), "b")
        await put_back(raw, row)
        await assert_tampered(store.begin(intent))


async def test_what_is_genuine_stays_so_through_resets_and_retries(
    raw: RawDatabase, clock: FakeClock
) -> None:
    """The latest certificate in the journal is the active one, whatever happened."""
    async with raw.open(clock) as store:
        first = await fill(store, clock)
        vpn = await issue(store, clock, first_enrollment(label="vpn"))
        given_up = await store.begin(renewal(first.sha256))
        assert isinstance(given_up, IssuanceTicket)
        await store.abandon(given_up, reason="test", now=clock.now())
        second = await issue(store, clock, renewal(first.sha256), "b")
        await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
        # It stays good until the next one supersedes it.
        third = await issue(store, clock, renewal(second.sha256, key="c"), "c")
        again = await issue(store, clock, first_enrollment(key="b"), "b")
        with pytest.raises(AlarmingRefusal, match="certificate-superseded"):
            await store.begin(renewal(third.sha256, key="d"))
        await issue(store, clock, renewal(again.sha256, key="c"), "c")
        await issue(store, clock, renewal(vpn.sha256, label="vpn"), "b")
        assert await findings(store) == []


async def test_a_certificate_is_renewed_when_the_journal_has_forgotten_it(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock, options=StoreOptions(journal_kept=1)) as store:
        first = await fill(store, clock)
        await forget(store)
        second = await issue(store, clock, renewal(first.sha256), "b")
        await forget(store)
        assert await findings(store) == []
        await issue(store, clock, renewal(second.sha256, key="c"), "c")
        assert await findings(store) == []


async def test_a_certificate_that_is_edited_while_it_is_made_is_noticed(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1), listed(2)], now=clock.now())
        ticket = await store.begin(first_enrollment())
        assert isinstance(ticket, IssuanceTicket)
        raw.execute("UPDATE issuances SET device = 'device-2'")
        issued = await store.complete(ticket, certificate(), now=clock.now())
        await assert_tampered(store.begin(renewal(issued.sha256, "device-2")))


async def test_an_edited_record_is_not_removed_for_its_age(
    raw: RawDatabase, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("est_server.stores.rules.journal.PRUNE_EVERY", 1)
    async with raw.open(clock) as store:
        first = await fill(store, clock)
        second = await issue(store, clock, renewal(first.sha256), "b")
        await issue(store, clock, renewal(second.sha256, key="c"), "c")
        raw.execute("UPDATE issuances SET not_after = 1 WHERE number = 2")
        await issue(store, clock, first_enrollment("device-2"))
        await assert_tampered(store.find_certificate(second.sha256))


async def test_a_made_up_predecessor_is_found(raw: RawDatabase, clock: FakeClock) -> None:
    """What a server that looked at no seals was made to do shows in its journal."""
    async with raw.open(clock, None) as store:
        issued = await fill(store, clock)
        raw.execute("UPDATE issuances SET device = 'device-2'")
        await issue(store, clock, renewal(issued.sha256, "device-2"), "b")
        raw.execute("UPDATE issuances SET device = 'device-1' WHERE number = 1")
        assert "issuance 2: replaces a certificate of another device or label" in await findings(
            store
        )


# -- Revocations -------------------------------------------------------------------------------

REVOCATION_EDITS = {
    "no number": "UPDATE revocations SET serial = 'abc'",
    "expired": "UPDATE revocations SET not_after = 0",
    "another issuer": "UPDATE revocations SET issuer = ?",
    "no issuer": "UPDATE revocations SET issuer = NULL",
    "another reason": "UPDATE revocations SET reason = 'superseded'",
    "on hold": "UPDATE revocations SET reason = 'certificate-hold'",
    "another time": "UPDATE revocations SET revoked_at = 0",
    "another certificate": "UPDATE revocations SET issuance = 7",
    "no seal": "UPDATE revocations SET mac = NULL",
}


@pytest.mark.parametrize("sql", REVOCATION_EDITS.values(), ids=REVOCATION_EDITS)
async def test_an_edited_revocation_is_noticed(
    raw: RawDatabase, clock: FakeClock, sql: str
) -> None:
    async with raw.open(clock) as store:
        issued = await fill(store, clock)
        await store.revoke_certificate(
            issued.sha256,
            actor="ann",
            reason="lost",
            code=RevocationReason.AFFILIATION_CHANGED,
            now=clock.now(),
        )
        [(issuer,)] = raw.execute("SELECT issuer FROM revocations")
        assert len([e async for e in store.revoked_certificates(issuer, valid_at=clock.now())]) == 1
        assert await findings(store) == []
        raw.execute(sql, (bytes(32),) if "?" in sql else ())
        with pytest.raises(AlarmingRefusal, match="record-tampered"):
            [e async for e in store.revoked_certificates(issuer, valid_at=clock.now())]
        if "issuance = 7" not in sql:
            await assert_tampered(
                store.revoke_certificate(issued.sha256, actor="a", reason="b", now=clock.now())
            )
        found = await findings(store)
        assert any(finding.startswith("revocation of issuance") for finding in found)
        # Whatever the seal is made of: it does not go with the certificate or the journal either.
        assert len(found) > 1 or "NULL" in sql


async def test_no_crl_is_made_of_an_edited_revocation(raw: RawDatabase, clock: FakeClock) -> None:
    alarms: list[Alarm] = []

    async def hear(alarm: Alarm) -> None:
        alarms.append(alarm)

    async with raw.open(clock) as store:
        bell = AlarmBell(hear)
        issuers = {"default": authority().crl_issuer()}
        publisher = CrlPublisher(store, issuers, clock, alarms=bell)
        plant = Plant(store, clock)
        issued = await plant.issue("a")
        await plant.revoke(issued)
        assert serials(await plant.crl(publisher=publisher)) == {issued.certificate.serial_number}
        before = publisher.latest("default")
        raw.execute("UPDATE revocations SET not_after = 0")
        clock.advance(hours=13)
        await publisher.refresh()
        assert publisher.latest("default") == before
        await bell.close()
    [alarm] = alarms
    assert alarm.kind is AlarmKind.RECORD_TAMPERED
    assert "revocation of issuance 1: the row is not what a server wrote" in alarm.detail


async def test_a_hold_is_not_taken_off_what_is_revoked(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        issued = await fill(store, clock)
        await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
        await store.revoke_certificate(issued.sha256, actor="a", reason="b", now=clock.now())
        raw.execute("UPDATE revocations SET reason = 'certificate-hold'")
        await assert_tampered(store.change_device(order(LifeCycleStep.RESUME), now=clock.now()))


async def test_who_is_on_hold_is_who_is_suspended(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
        assert await findings(store) == []
        columns = "issuance, issuer, serial, not_after, reason, revoked_at, mac"
        [hold] = raw.execute(f"SELECT {columns} FROM revocations")
        raw.execute("DELETE FROM revocations")
        assert await findings(store) == [
            "issuance 1: its device is suspended, and it is not on hold"
        ]
        raw.execute(f"INSERT INTO revocations ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", hold)
        assert await findings(store) == []
        await store.change_device(order(LifeCycleStep.RESUME), now=clock.now())
        assert await findings(store) == []
        raw.execute(f"INSERT INTO revocations ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", hold)
        assert await findings(store) == ["issuance 1: is on hold, and its device is not suspended"]


async def test_a_certificate_off_the_crl_is_found(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        issued = await fill(store, clock)
        await store.revoke_certificate(issued.sha256, actor="a", reason="b", now=clock.now())
        raw.execute("DELETE FROM revocations")
        assert await findings(store) == ["issuance 1: is revoked, and not on the CRL"]


async def test_revocations_are_as_they_should_be_whatever_happened(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        first = await fill(store, clock)
        await issue(store, clock, renewal(first.sha256), "b")
        await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
        clock.advance(days=1)
        await store.revoke_certificate(
            first.sha256,
            actor="a",
            reason="b",
            code=RevocationReason.SUPERSEDED,
            now=clock.now(),
        )
        clock.advance(days=1)
        await store.revoke_certificate(
            first.sha256,
            actor="a",
            reason="b",
            code=RevocationReason.PRIVILEGE_WITHDRAWN,
            now=clock.now(),
        )
        assert await findings(store) == []
        # The second one is on hold until after it has expired.
        clock.advance(days=100)
        await store.change_device(
            order(LifeCycleStep.REVOKE, code=RevocationReason.KEY_COMPROMISE), now=clock.now()
        )
        assert await findings(store) == []
        await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
        assert await findings(store) == []


# -- Histories ---------------------------------------------------------------------------------

HISTORY_EDITS = {
    "from another state": "UPDATE device_history SET from_state = 'enrolled' WHERE id = 1",
    "to another state": "UPDATE device_history SET to_state = 'revoked' WHERE id = 1",
    "another device": "UPDATE device_history SET udid = 'device-2' WHERE id = 1",
    "another step": "UPDATE device_history SET step = 'reset' WHERE id = 1",
    "another owner": "UPDATE device_history SET owner = 'me' WHERE id = 1",
    "another actor": "UPDATE device_history SET actor = 'me' WHERE id = 1",
    "another reason": "UPDATE device_history SET reason = 'me' WHERE id = 1",
    "another time": "UPDATE device_history SET changed_at = 1 WHERE id = 1",
    "no seal": "UPDATE device_history SET mac = NULL WHERE id = 1",
    "one gone": "DELETE FROM device_history WHERE id = 1",
}


@pytest.mark.parametrize("sql", HISTORY_EDITS.values(), ids=HISTORY_EDITS)
async def test_an_edited_history_is_noticed(raw: RawDatabase, clock: FakeClock, sql: str) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
        assert len(await store.device_history("device-1")) == 2
        assert await findings(store) == []
        raw.execute(sql)
        await assert_tampered(store.device_history("device-1"))
        await assert_tampered(store.change_device(order(LifeCycleStep.RESUME), now=clock.now()))
        assert await findings(store) != []


async def test_a_history_in_another_order_is_noticed(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
        for old, new in ((1, 9), (2, 1), (9, 2)):
            raw.execute("UPDATE device_history SET id = ? WHERE id = ?", (new, old))
        await assert_tampered(store.change_device(order(LifeCycleStep.RESUME), now=clock.now()))


# -- Claims ------------------------------------------------------------------------------------


async def forget(store: Store) -> None:
    """Have the journal lose its entries."""
    for _ in range(130):
        await store.record_refusal(refusal())


CLAIM_EDITS = {
    "gone": "DELETE FROM claims",
    "of another device": "UPDATE claims SET device = 'device-2'",
    "under another label": "UPDATE claims SET label = 'vpn'",
    "of another issuance": "UPDATE claims SET issuance = 7",
    "not counted": "UPDATE claims SET counted = 0",
    "no seal": "UPDATE claims SET mac = NULL",
}


@pytest.mark.parametrize("sql", CLAIM_EDITS.values(), ids=CLAIM_EDITS)
@pytest.mark.parametrize("forgets", [False, True])
async def test_a_claim_that_was_taken_is_not_free_however_long_ago(
    raw: RawDatabase, clock: FakeClock, sql: str, forgets: bool
) -> None:
    async with raw.open(clock, options=StoreOptions(journal_kept=1)) as store:
        await fill(store, clock)
        if forgets:
            await forget(store)
        assert await findings(store) == []
        raw.execute(sql)
        await assert_tampered(store.begin(first_enrollment(key="b")))
        assert await findings(store) != []


async def test_a_claim_is_not_replaced_by_a_made_up_one(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock, options=StoreOptions(journal_kept=1)) as store:
        await fill(store, clock)
        await forget(store)
        raw.execute("UPDATE claims SET label = 'unused'")
        await assert_tampered(store.begin(first_enrollment(key="b")))
        await assert_tampered(
            store.release_claim("device-1", "unused", actor="a", reason="b", now=clock.now())
        )


async def test_a_device_counts_its_claims(raw: RawDatabase, clock: FakeClock) -> None:
    async def counted() -> int:
        device = await store.find_by_udid("device-1")
        assert device is not None
        assert await findings(store) == []
        return device.claims

    async with raw.open(clock) as store:
        await store.add_devices([listed(1, owner="acme")], now=clock.now())
        assert await counted() == 0
        given_up = await store.begin(first_enrollment())
        assert isinstance(given_up, IssuanceTicket)
        assert await counted() == 1
        await store.abandon(given_up, reason="test", now=clock.now())
        assert await counted() == 0
        await issue(store, clock, first_enrollment())
        made = await store.issue(
            first_enrollment(label="vpn"), lambda: certificate("a"), now=clock.now()
        )
        assert isinstance(made, IssuedCertificate)
        assert await counted() == 2
        await store.release_claim("device-1", "vpn", actor="a", reason="b", now=clock.now())
        assert await counted() == 1
        change = await store.change_device(order(LifeCycleStep.TRANSFER), now=clock.now())
        assert (change.claims, change.device.claims) == (1, 0)
        assert await counted() == 0


async def test_the_claim_of_an_attempt_that_died_is_counted_no_more(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        assert isinstance(await store.begin(first_enrollment()), IssuanceTicket)
        clock.advance(hours=1)
    async with raw.open(clock) as store:
        assert isinstance(await store.begin(first_enrollment(key="b")), IssuanceTicket)
        assert raw.execute("SELECT claims FROM devices") == [(1,)]
        assert await findings(store) == []


async def test_a_device_that_is_listed_later_does_not_count_what_it_had(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        first = await issue(store, clock, first_enrollment())
        await store.add_devices([listed(1)], now=clock.now())
        await issue(store, clock, first_enrollment(label="vpn"))
        await issue(store, clock, renewal(first.sha256), "b")
        assert raw.execute("SELECT claims FROM devices") == [(1,)]
        assert await findings(store) == []
        for label in (None, "vpn"):
            with pytest.raises(RequestRefused, match="already-claimed"):
                await store.begin(first_enrollment(key="b", label=label))
            await store.release_claim("device-1", label, actor="a", reason="b", now=clock.now())
        assert raw.execute("SELECT claims FROM devices") == [(0,)]
        assert await findings(store) == []


async def test_a_claim_whose_issuance_is_gone_is_not_free(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        await fill(store, clock)
        raw.execute("DELETE FROM issuances")
        await assert_tampered(store.begin(first_enrollment(key="b")))
        await assert_tampered(store.find_claim("device-1", None))


# -- what only looks alike ------------------------------------------------------------------------


def numbered(authority: str) -> x509.Certificate:
    """A certificate of an authority that numbers what it issues."""
    ca = make_ca(authority)
    return (
        x509.CertificateBuilder()
        .subject_name(make_name("device"))
        .issuer_name(ca.certificate.subject)
        .public_key(make_key("a").public_key())
        .serial_number(7)
        .not_valid_before(PRESENT)
        .not_valid_after(PRESENT + timedelta(days=90))
        .add_extension(x509.AuthorityKeyIdentifier(authority.encode(), None, None), False)
        .sign(ca.key, hashes.SHA256())
    )


async def test_two_authorities_may_number_alike(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        issued = []
        for label in ("a", "b"):
            ticket = await begin(store, first_enrollment(label=label))
            issued.append(await store.complete(ticket, numbered(label), now=clock.now()))
        revoked, good = issued
        await store.revoke_certificate(
            revoked.sha256, actor="operator", reason="lost", now=clock.now()
        )
        await store.check_standing(certificate=good.sha256, keys=[])
        await begin(store, renewal(good.sha256, label="b"))
        with pytest.raises(RequestRefused) as refused:
            await store.check_standing(certificate=revoked.sha256, keys=[])
        assert await findings(store) == []
    assert refused.value.reason is RefusalReason.CERTIFICATE_REVOKED


async def test_a_certificate_that_is_called_abandoned_is_neither_removed_nor_overlooked(
    tmp_path: Path, clock: FakeClock
) -> None:
    raw = RawSqlite(tmp_path / "store.db")
    options = StoreOptions(abandoned_kept=0, journal_kept=1)
    async with raw.open(clock, options=options) as store:
        await fill(store, clock)
        await forget(store)
        assert await findings(store) == []
        with closing(sqlite3.connect(raw.location)) as db, db:
            db.execute("PRAGMA ignore_check_constraints = ON")
            db.execute("UPDATE issuances SET status = 'abandoned' WHERE number = 1")
        await store._writer.submit(lambda db: attempts.prune(db, 64, 0))
        assert raw.execute("SELECT count(*) FROM issuances WHERE number = 1") == [(1,)]
        assert "issuance 1: does not say whether it came to a certificate" in await findings(store)
