"""The journal: what it tells, that it cannot be changed unnoticed, and how long it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.approvals import ApprovalTerms
from est_server.device_records import ListRow
from est_server.journal import (
    Chain,
    Entry,
    Event,
    JournalBroken,
    head_line,
    read_export,
)
from est_server.ledger_records import IssuanceTicket
from est_server.life_cycle import LifeCycleStep
from est_server.revocations import RevocationReason
from est_server.stores.options import StoreOptions
from est_server.stores.rules.journal import Query
from est_server.stores.store import Store
from est_server.user_credentials import EnrollmentSecret
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    describe,
    first_enrollment,
    listed,
    order,
    refusal,
    renewal,
)
from tests.server.raw_database import RawDatabase, raw

__all__ = ["raw"]


async def live(store: Store, clock: FakeClock) -> None:
    """Something of everything that the journal tells of."""
    rows = [ListRow.of(number, listed(number)) for number in (1, 2)]
    await store.import_devices(rows, describe, now=clock.now())
    await store.add_devices([listed(3)], now=clock.now())
    clock.advance(hours=1)
    first = await issue(store, clock)
    ticket = await store.begin(renewal(first))
    assert isinstance(ticket, IssuanceTicket)
    renewed = await store.complete(ticket, certificate("b"), now=clock.now())
    given_up = await store.begin(first_enrollment("device-2"))
    assert isinstance(given_up, IssuanceTicket)
    await store.abandon(given_up, reason="pending", now=clock.now())
    clock.advance(hours=1)
    await issue(store, clock, "device-2")
    await store.release_claim("device-2", None, actor="ann", reason="repair", now=clock.now())
    await store.revoke_certificate(
        renewed.sha256,
        actor="ann",
        reason="lost",
        code=RevocationReason.KEY_COMPROMISE,
        now=clock.now(),
    )
    await store.change_device(order(LifeCycleStep.RESET), now=clock.now())
    await store.record_refusal(refusal("who knows"))
    await store.add_secret(EnrollmentSecret("s", "hash", max_uses=2), now=clock.now())
    await store.remove_secret("s")
    for device, approve in (("device-3", True), ("device-4", False)):
        terms = ApprovalTerms()
        await store.begin(replace(first_enrollment(device), approval=terms))
        [asked] = [approval async for approval in store.approvals()]
        await store.decide_approval(
            asked.number, approve=approve, actor="ann", reason="seen", now=clock.now()
        )


async def issue(store: Store, clock: FakeClock, device: str = "device-1") -> bytes:
    ticket = await store.begin(first_enrollment(device))
    assert isinstance(ticket, IssuanceTicket)
    return (await store.complete(ticket, certificate(), now=clock.now())).sha256


async def found(store: Store, query: Query | None = None) -> list[Entry]:
    return [entry async for entry in store.journal(query or Query())]


def events(entries: list[Entry]) -> list[str]:
    return [entry.event for entry in entries]


async def verified(store: Store) -> list[str]:
    findings: list[str] = []
    assert await store.verify(report=findings.append) == len(findings)
    return findings


async def test_everything_that_happens_is_told(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await live(store, clock)
        entries = await found(store)
    assert events(entries) == [
        "sealed",
        "list-imported",
        "listed",
        "claimed",
        "issued",
        "device-changed",
        "begun",
        "issued",
        "claimed",
        "abandoned",
        "claimed",
        "issued",
        "device-changed",
        "released",
        "revoked",
        "compromised",
        "device-changed",
        "released",
        "refused",
        "secret-added",
        "secret-removed",
        "approved",
        "denied",
    ]
    assert {event.value for event in Event} - set(events(entries)) == {"pruned", "forgotten"}
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    chain = Chain()
    for entry in entries:
        chain.follow(entry)
    revoked = next(entry for entry in entries if entry.event == Event.REVOKED)
    assert (revoked.device, revoked.label, revoked.moment) == ("device-1", "", clock.now())
    assert revoked.known == {"actor": "ann", "reason": "lost", "code": "key-compromise"}


async def test_entries_are_found_by_device_serial_label_and_time(
    raw: RawDatabase, clock: FakeClock
) -> None:
    began = clock.now()
    async with raw.open(clock) as store:
        await live(store, clock)
        await store.begin(first_enrollment("device-3", label="vpn"))
        every = await found(store)
        of_device = await found(store, Query(device="device-2"))
        assert of_device == [entry for entry in every if entry.device == "device-2"]
        assert len(of_device) == 6
        serial = of_device[3].serial
        assert events(await found(store, Query(serial=serial))) == ["issued"]
        assert events(await found(store, Query(label="vpn"))) == ["claimed"]
        hour = timedelta(hours=1)
        early = await found(store, Query(until=began + hour))
        late = await found(store, Query(since=began + hour))
        assert early + late == sorted(every, key=lambda entry: entry.when)
        assert await found(store, Query(device="device-1", since=began + 3 * hour)) == []
        assert await found(store, Query(device="\0")) == []


async def test_an_entry_is_there_if_what_it_tells_of_is(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        await issue(store, clock)
        before = await found(store)
        with pytest.raises(RequestRefused, match="already-claimed"):
            await store.begin(first_enrollment(key="b"))
        with pytest.raises(KeyError):
            await store.change_device(order(LifeCycleStep.REVOKE, "nobody"), now=clock.now())
        assert await found(store) == before
        await store.change_device(order(LifeCycleStep.SUSPEND), now=clock.now())
        assert (await found(store))[:-1] == before
        assert await verified(store) == []


async def test_an_export_can_be_read_again_anywhere(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await live(store, clock)
        entries = await found(store)
    lines = [head_line(Chain()), *(entry.line() for entry in entries)]
    assert list(read_export(iter(lines))) == entries
    assert all("\n" not in line for line in lines)

    def broken(change: Callable[[list[str]], object]) -> str:
        changed = list(lines)
        change(changed)
        with pytest.raises(JournalBroken) as error:
            list(read_export(iter(changed)))
        return str(error.value)

    assert broken(lambda lines: lines.pop(5)) == "entry 5 is missing"
    assert broken(lambda lines: lines.insert(5, lines.pop(6))) == "entry 5 is missing"
    assert broken(lambda lines: lines.pop(0)) == "line 1: no exported journal"
    changes = (
        ("device-1", "device-2"),
        ('"claimed"', '"begun"'),
        ('Z"', '"'),
        ('"label": ""', '"label": null'),
        ('"reference": 1', '"reference": 2'),
        ('"reasons": "listed"', '"reasons": "liked"'),
    )
    for old, new in changes:
        assert old in lines[4]
        said = broken(partial(exchange, old=old, new=new))
        assert said in ("entry 4 is not what was written", "line 5: no entry of a journal")
    for junk in ("", "null", "[]", "{}", "{", "[" * 100_000):
        said = broken(put(junk))
        assert said == "line 5: no entry of a journal"


def exchange(lines: list[str], *, old: str, new: str) -> None:
    lines[4] = lines[4].replace(old, new)


def put(junk: str) -> Callable[[list[str]], object]:
    return lambda lines: lines.insert(4, junk)


TAMPERED = {
    "an entry taken out": "DELETE FROM journal WHERE number = 8",
    "the beginning taken away": "DELETE FROM journal WHERE number < 8",
    "an entry changed": "UPDATE journal SET device = 'device-9' WHERE number = 8",
    "details changed": "UPDATE journal SET details = '{}' WHERE number = 8",
    "a time changed": "UPDATE journal SET happened_at = happened_at + 1 WHERE number = 8",
    "a seal taken off": "UPDATE journal SET mac = NULL WHERE number = 8",
    "a made-up checkpoint": "INSERT INTO journal_checkpoint SELECT 1, number, hash, mac "
    "FROM journal WHERE number = 8",
    "all of it taken away": "DELETE FROM journal",
    "its end taken away": "DELETE FROM journal WHERE number > 8",
    "a claim freed": "DELETE FROM claims",
    "a claim given to another device": "UPDATE claims SET device = 'device-3'",
    "a certificate forgotten": "DELETE FROM issuances WHERE number = 1",
    "a certificate given to another device": "UPDATE issuances SET device = 'device-3' "
    "WHERE number = 1",
    "a certificate exchanged": "UPDATE issuances SET certificate = "
    "(SELECT certificate FROM issuances WHERE number = 2) WHERE number = 1",
    "an issuance made up": "INSERT INTO issuances (request_key, operation, device, label, "
    "spki_sha256, transport, peer, reasons, requested_at, owner, lease_until, status, finished_at) "
    "SELECT request_key, operation, device, label, spki_sha256, transport, peer, reasons, "
    "requested_at, owner, lease_until, 'abandoned', 0 FROM issuances WHERE number = 1",
    "a revocation taken back": "UPDATE issuances SET state = 'superseded' WHERE number = 2",
    "a revocation not in the CRL": "DELETE FROM revocations",
    "a certificate revoked": "UPDATE issuances SET state = 'revoked' WHERE number = 1",
    "a history rewritten": "UPDATE device_history SET from_state = 'revoked' WHERE id = 1",
    "a history made up": "INSERT INTO device_history "
    "(udid, from_state, to_state, actor, reason, changed_at) "
    "VALUES ('device-3', 'listed', 'enrolled', 'me', '', 0)",
    "a list renamed": "UPDATE lists SET list_id = 'mine'",
    "a device taken away": "DELETE FROM devices WHERE udid = 'device-2'",
    "a device without a list taken away": "DELETE FROM devices WHERE udid = 'device-3'",
    "a device moved to another list": "UPDATE devices SET list = 1 WHERE udid = 'device-3'",
    "a state changed": "UPDATE devices SET state = 'enrolled' WHERE udid = 'device-3'",
}


@pytest.mark.parametrize("sql", TAMPERED.values(), ids=TAMPERED)
async def test_verification_finds(raw: RawDatabase, clock: FakeClock, sql: str) -> None:
    async with raw.open(clock) as store:
        await live(store, clock)
        await issue(store, clock)
        assert await verified(store) == []
        raw.execute(sql)
        assert await verified(store) != []


async def test_verification_finds_an_exchange_within_a_list(
    raw: RawDatabase, clock: FakeClock
) -> None:
    """As many devices as before, each with a seal of its own, but not those of the list."""
    async with raw.open(clock) as store:
        rows = [ListRow.of(1, listed(1))]
        await store.import_devices(rows, describe, now=clock.now())
        [old] = raw.execute("SELECT * FROM devices")
        raw.execute("DELETE FROM devices")
        await store.import_devices([ListRow.of(1, listed(2))], describe, now=clock.now())
        assert await verified(store) != []
        raw.execute("UPDATE lists SET devices = 1")
        assert "list 1: 1 devices are there, sealed are 2" in await verified(store)
        assert len(old) > 0


async def test_a_journal_without_its_end_is_not_continued(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        await live(store, clock)
        raw.execute("UPDATE journal SET mac = NULL")
        with pytest.raises(RequestRefused, match="record-tampered"):
            await found(store, Query(device="device-2"))
        with pytest.raises(RequestRefused) as refused:
            await store.begin(first_enrollment("device-3"))
        assert refused.value.reason is RefusalReason.RECORD_TAMPERED
        raw.execute("DELETE FROM journal")
        with pytest.raises(RequestRefused) as refused:
            await store.begin(first_enrollment("device-3"))
        assert refused.value.detail == "the journal is gone"


async def test_old_entries_go_and_the_rest_still_holds(raw: RawDatabase, clock: FakeClock) -> None:
    options = StoreOptions(journal_kept=30)
    async with raw.open(clock, options=options) as store:
        for number in range(64):
            ticket = await store.begin(first_enrollment(f"device-{number}"))
            assert isinstance(ticket, IssuanceTicket)
        entries = await found(store)
        assert (len(entries), entries[-1].event) == (31, "pruned")
        beginning = await store.journal_beginning()
        assert beginning.number == entries[0].number - 1 == entries[-1].reference
        assert await verified(store) == []
        for entry in entries:
            beginning.follow(entry)
        raw.execute("UPDATE journal_checkpoint SET number = number + 1")
        assert await verified(store) != []


async def test_entries_go_by_their_age(raw: RawDatabase, clock: FakeClock) -> None:
    options = StoreOptions(journal_age=timedelta(days=1))
    async with raw.open(clock, options=options) as store:
        for number in range(63):
            await store.begin(first_enrollment(f"device-{number}"))
        clock.advance(days=1, seconds=1)
        await store.begin(first_enrollment("device-63"))
        assert events(await found(store)) == ["claimed", "pruned"]
        assert await verified(store) == []


async def test_a_flood_of_refusals_leaves_the_journal_alone(
    raw: RawDatabase, clock: FakeClock
) -> None:
    options = StoreOptions(journal_refusals=2)
    async with raw.open(clock, options=options) as store:
        for _ in range(10):
            await store.record_refusal(refusal())
        later = replace(refusal(), refused_at=refusal().refused_at + timedelta(minutes=1))
        await store.record_refusal(later)
        told = [entry for entry in await found(store) if entry.event == Event.REFUSED]
        assert [entry.known["left_out"] for entry in told] == [0, 0, 8]
        assert raw.execute("SELECT count(*) FROM refusals") == [(11,)]


async def test_a_journal_without_a_key_is_a_chain_all_the_same(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock, None) as store:
        await live(store, clock)
        assert await verified(store) == []
        assert {entry.mac for entry in await found(store)} == {None}
        raw.execute("UPDATE journal SET device = 'device-9' WHERE number = 5")
        assert (await verified(store))[0] == "journal: entry 5 is not what was written"
        with pytest.raises(RequestRefused, match="record-tampered"):
            await found(store, Query(device="device-9"))
