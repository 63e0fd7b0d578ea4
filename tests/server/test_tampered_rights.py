"""Somebody writes secrets and approvals past the server: nobody gets a certificate by them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Pending
from est_server.alarms import AlarmingRefusal
from est_server.approvals import ApprovalTerms
from est_server.ledger_records import EnrollmentIntent
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.store import Store
from est_server.user_credentials import EnrollmentSecret
from tests.server.ledger_values import (
    INTEGRITY_KEY,
    FakeClock,
    certificate,
    first_enrollment,
    listed,
)
from tests.server.raw_database import RawDatabase, raw
from tests.server.tampering import assert_refused, begin, findings, seal

__all__ = ["raw"]

OTHER_KEY = IntegrityKey(bytes(32))


def with_secret(secret: EnrollmentSecret, device: str = "device-1") -> EnrollmentIntent:
    return replace(first_enrollment(device), secret=secret.number)


def needing_approval(device: str = "device-1", key: str = "a") -> EnrollmentIntent:
    return replace(first_enrollment(device, key=key), approval=ApprovalTerms())


async def add_secret(store: Store, clock: FakeClock, *, uses: int = 1) -> EnrollmentSecret:
    secret = EnrollmentSecret(name="batch", hash="scrypt$1", max_uses=uses)
    return await store.add_secret(secret, now=clock.now())


SECRET_EDITS = {
    "another name": "UPDATE secrets SET name = 'mine'",
    "another hash": "UPDATE secrets SET hash = 'scrypt$2'",
    "another device": "UPDATE secrets SET device = 'device-1'",
    "more uses": "UPDATE secrets SET max_uses = 2",
    "another end": "UPDATE secrets SET expires_at = 99999999999999999",
    "no seal": "UPDATE secrets SET mac = NULL",
    "a use taken away": "DELETE FROM secret_uses",
    "a use of another secret": "UPDATE secret_uses SET secret = 7",
}


@pytest.mark.parametrize("sql", SECRET_EDITS.values(), ids=SECRET_EDITS)
async def test_an_edited_secret_is_noticed(raw: RawDatabase, clock: FakeClock, sql: str) -> None:
    async with raw.open(clock) as store:
        secret = await add_secret(store, clock)
        ticket = await begin(store, with_secret(secret))
        await store.complete(ticket, certificate(), now=clock.now())
        assert await findings(store) == []
        raw.execute(sql)
        name = "mine" if "mine" in sql else "batch"
        for attempt in (lambda: store.find_secret(name), store.secrets):
            with pytest.raises(AlarmingRefusal, match="record-tampered"):
                await attempt()
        await assert_refused(store, with_secret(secret, "device-2"))
        assert any("secret" in finding for finding in await findings(store))
        # The operator's way out.
        assert await store.remove_secret(name)
        assert await store.secrets() == []


async def test_a_made_up_secret_is_noticed(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await add_secret(store, clock)
        raw.execute(
            "INSERT INTO secrets (number, name, hash, max_uses, added_at, mac) "
            "SELECT -5, 'mine', hash, max_uses, added_at, mac FROM secrets"
        )
        with pytest.raises(AlarmingRefusal, match="record-tampered"):
            await store.find_secret("mine")
        assert await findings(store) == ["secret 'mine': the row is not what a server wrote"]


async def test_a_use_is_not_given_back_for_another_attempt(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        secret = await add_secret(store, clock)
        ticket = await begin(store, with_secret(secret))
        await store.complete(ticket, certificate(), now=clock.now())
        other = await begin(store, first_enrollment("device-2"))
        raw.execute("UPDATE secret_uses SET issuance = ?", (other.number,))
        with pytest.raises(AlarmingRefusal, match="record-tampered"):
            await store.abandon(other, reason="test", now=clock.now())


async def test_old_secrets_that_are_put_back_are_found(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        secret = await add_secret(store, clock)
        [(unused,)] = raw.execute("SELECT mac FROM secrets")
        ticket = await begin(store, with_secret(secret))
        await store.complete(ticket, certificate(), now=clock.now())
        raw.execute("DELETE FROM secret_uses")
        raw.execute("UPDATE secrets SET mac = ?", (unused,))
        assert await findings(store) == [
            f"secret {secret.number}: its use by issuance {ticket.number} is gone"
        ]


async def test_a_removed_secret_that_is_put_back_is_found(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        secret = await add_secret(store, clock)
        columns = "number, name, hash, device, max_uses, expires_at, added_at, mac"
        [row] = raw.execute(f"SELECT {columns} FROM secrets")
        await store.remove_secret("batch")
        raw.execute(f"INSERT INTO secrets ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        assert await findings(store) == [f"secret {secret.number}: was removed, and is there"]


async def test_uses_stay_sealed_through_abandoning_and_removing(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        secret = await add_secret(store, clock, uses=2)
        kept = await begin(store, with_secret(secret))
        given_back = await begin(store, with_secret(secret, "device-2"))
        await store.abandon(given_back, reason="test", now=clock.now())
        found = await store.find_secret("batch")
        assert found is not None
        assert found.uses == 1
        assert await findings(store) == []
        await store.remove_secret("batch")
        await store.abandon(kept, reason="test", now=clock.now())
        assert await findings(store) == []


APPROVAL_EDITS = {
    "approved": "UPDATE approvals SET state = 'approved', actor = 'ann', reason = '', "
    "decided_at = 0",
    "another device": "UPDATE approvals SET device = 'device-2', request_key = ?",
    "another end": "UPDATE approvals SET expires_at = expires_at + 1",
    "no seal": "UPDATE approvals SET mac = NULL",
}


@pytest.mark.parametrize("decided", [False, True], ids=["waiting", "approved"])
@pytest.mark.parametrize("sql", APPROVAL_EDITS.values(), ids=APPROVAL_EDITS)
async def test_an_edited_approval_is_noticed(
    raw: RawDatabase, clock: FakeClock, sql: str, decided: bool
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1), listed(2)], now=clock.now())
        assert isinstance(await store.begin(needing_approval()), Pending)
        [approval] = [one async for one in store.approvals()]
        if decided:
            await store.decide_approval(
                approval.number, approve=True, actor="op", reason="seen", now=clock.now()
            )
        assert await findings(store) == []
        another = needing_approval("device-2")
        raw.execute(sql, (another.request_key,) if "?" in sql else ())
        await assert_refused(store, another if "?" in sql else needing_approval())
        with pytest.raises(RequestRefused, match="record-tampered"):
            [one async for one in store.approvals(decided=True)]
        with pytest.raises(RequestRefused, match="record-tampered"):
            await store.decide_approval(
                approval.number, approve=True, actor="op", reason="seen", now=clock.now()
            )
        assert await findings(store) == [
            f"request for approval {approval.number}: "
            + ("the row has no seal" if "NULL" in sql else "the row is not what a server wrote")
        ]


async def test_an_approval_of_another_is_not_given_back(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await store.begin(needing_approval())
        [approval] = [one async for one in store.approvals()]
        await store.decide_approval(
            approval.number, approve=True, actor="op", reason="seen", now=clock.now()
        )
        await store.complete(await begin(store, needing_approval()), certificate(), now=clock.now())
        assert await findings(store) == []
        other = await begin(store, first_enrollment("device-2"))
        raw.execute("UPDATE approvals SET issuance = ?", (other.number,))
        with pytest.raises(AlarmingRefusal, match="record-tampered"):
            await store.abandon(other, reason="test", now=clock.now())


@pytest.mark.parametrize("first", [None, OTHER_KEY], ids=["not sealed", "another key"])
async def test_they_are_sealed_anew_with_the_rest(
    raw: RawDatabase, clock: FakeClock, first: IntegrityKey | None
) -> None:
    async with raw.open(clock, first) as store:
        secret = await add_secret(store, clock, uses=2)
        await begin(store, with_secret(secret))
        await store.begin(needing_approval("device-3"))
    seal(raw, INTEGRITY_KEY, first)
    async with raw.open(clock) as store:
        assert await findings(store) == []
        assert [known.uses for known in await store.secrets()] == [1]
        assert len([one async for one in store.approvals()]) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE secrets SET max_uses = 9",
        "DELETE FROM secret_uses",
        "UPDATE approvals SET expires_at = expires_at + 1",
    ],
)
async def test_a_key_is_not_exchanged_over_a_forged_row(
    raw: RawDatabase, clock: FakeClock, sql: str
) -> None:
    async with raw.open(clock) as store:
        secret = await add_secret(store, clock, uses=2)
        await begin(store, with_secret(secret))
        await store.begin(needing_approval("device-3"))
    raw.execute(sql)
    with pytest.raises(RequestRefused, match="record-tampered"):
        seal(raw, OTHER_KEY, INTEGRITY_KEY)


UNDER_WAY = (
    "UPDATE issuances SET status = 'in-progress', state = NULL, certificate = NULL, sha256 = NULL, "
    "serial = NULL, not_after = NULL, finished_at = NULL, mac = NULL"
)


async def test_an_attempt_that_no_server_began_gives_nothing_back(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1), listed(2)], now=clock.now())
        secret = await add_secret(store, clock)
        ticket = await begin(store, with_secret(secret))
        await store.complete(ticket, certificate(), now=clock.now())
        clock.advance(hours=1)
        raw.execute(UNDER_WAY)
        assert await findings(store)
        await assert_refused(store, replace(with_secret(secret), request_key=bytes(32)))
        raw.execute("UPDATE issuances SET device = 'device-2'")
        await assert_refused(store, first_enrollment("device-2"))
        with pytest.raises(RequestRefused) as used_up:
            await store.begin(with_secret(secret, "device-3"))
    assert used_up.value.reason is RefusalReason.SECRET_USED_UP


async def test_an_attempt_that_is_over_is_not_given_up(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        ticket = await begin(store, first_enrollment())
        [(mac,)] = raw.execute("SELECT mac FROM issuances")
        await store.complete(ticket, certificate(), now=clock.now())
        clock.advance(hours=1)
        # As it was once, with the seal that it had then.
        raw.execute(UNDER_WAY)
        raw.execute("UPDATE issuances SET mac = ?", (mac,))
        await assert_refused(store, first_enrollment(key="b"))
        await assert_refused(store, first_enrollment())
        assert await findings(store)
