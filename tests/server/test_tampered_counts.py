"""Somebody writes counts of quotas or compromised keys past the server: it is noticed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_server.alarms import AlarmingRefusal
from est_server.ledger_records import EnrollmentIntent
from est_server.life_cycle import LifeCycleStep
from est_server.quotas import Quota
from est_server.revocations import RevocationReason
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.store import Store
from tests.server.ledger_values import (
    INTEGRITY_KEY,
    FakeClock,
    digest,
    first_enrollment,
    listed,
    order,
)
from tests.server.raw_database import RawDatabase, raw
from tests.server.tampering import assert_refused, begin, findings, seal

__all__ = ["raw"]

OTHER_KEY = IntegrityKey(bytes(32))


# -- counts of quotas ------------------------------------------------------------------------------

QUOTA = Quota("list:1", 2)


def with_quota(number: int, quota: Quota = QUOTA) -> EnrollmentIntent:
    return replace(first_enrollment(f"device-{number}"), quotas=(quota,))


COUNT_EDITS = {
    "reset": "UPDATE quota_counts SET taken = 0",
    "deleted": "DELETE FROM quota_counts",
    "deleted with its seal": "DELETE FROM quota_counts; DELETE FROM chained WHERE content <> ?",
    "all deleted": "DELETE FROM quota_counts; DELETE FROM chained",
    "its seal deleted": "DELETE FROM chained WHERE content <> ?",
    "another window": "UPDATE quota_counts SET start = 7",
    "the seals before it undone": "UPDATE chained SET next = key",
}


@pytest.mark.parametrize("sql", COUNT_EDITS.values(), ids=COUNT_EDITS)
async def test_an_edited_count_is_noticed(raw: RawDatabase, clock: FakeClock, sql: str) -> None:
    async with raw.open(clock) as store:
        for number in (1, 2):
            await begin(store, with_quota(number))
        with pytest.raises(RequestRefused, match="quota-exceeded"):
            await store.begin(with_quota(3))
        assert await findings(store) == []
        for statement in sql.split("; "):
            raw.execute(statement, (bytes(32),) if "?" in statement else ())
        await assert_refused(store, with_quota(3))
        assert await findings(store) != []


async def test_a_made_up_count_is_noticed(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        raw.execute("INSERT INTO quota_counts VALUES ('list:1', 0, 0, -5)".replace("-5", "0"))
        await assert_refused(store, with_quota(1))
        assert await findings(store) == ["the count of a quota list:1 0 0 0: no server wrote it"]


async def test_a_quota_is_not_given_back_for_who_has_not_taken_it(
    raw: RawDatabase, clock: FakeClock
) -> None:
    async with raw.open(clock) as store:
        await begin(store, with_quota(1))
        other = await begin(store, first_enrollment("device-2"))
        raw.execute("UPDATE quota_uses SET issuance = ?", (other.number,))
        with pytest.raises(AlarmingRefusal, match="record-tampered"):
            await store.abandon(other, reason="test", now=clock.now())


async def test_counts_stay_sealed_over_windows_and_what_is_given_back(
    raw: RawDatabase, clock: FakeClock
) -> None:
    day = Quota("owner:acme", 5, timedelta(days=1))
    async with raw.open(clock) as store:
        for number in range(8):
            ticket = await begin(store, with_quota(number, day))
            await begin(store, with_quota(100 + number, Quota(f"list:{number}", 1)))
            if number % 2:
                await store.abandon(ticket, reason="test", now=clock.now())
            assert await findings(store) == []
            clock.advance(days=1)
        assert raw.execute("SELECT count(*) FROM quota_counts WHERE length > 0") == [(2,)]
        assert raw.execute("SELECT count(*) FROM chained") == [(2 + 2 + 8,)]


# -- compromised keys ------------------------------------------------------------------------------

KEYS = {1: digest("key 1"), 2: digest("key 2"), 3: digest("key 3")}


async def compromise(store: Store, clock: FakeClock, number: int) -> None:
    await store.change_device(
        order(LifeCycleStep.REVOKE, f"device-{number}", code=RevocationReason.KEY_COMPROMISE),
        now=clock.now(),
    )


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("with_seal", [False, True])
async def test_a_compromised_key_that_was_deleted_is_noticed(
    raw: RawDatabase, clock: FakeClock, number: int, with_seal: bool
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(n) for n in KEYS], now=clock.now())
        for known in KEYS:
            await compromise(store, clock, known)
        assert await findings(store) == []
        raw.execute("DELETE FROM compromised_keys WHERE spki_sha256 = ?", (KEYS[number],))
        if with_seal:
            raw.execute("DELETE FROM chained WHERE key = ?", (KEYS[number],))
        for key in KEYS.values():
            with pytest.raises(RequestRefused) as refused:
                await store.check_standing(certificate=None, keys=[key])
            assert (refused.value.reason is RefusalReason.RECORD_TAMPERED) == (key == KEYS[number])
        found = await findings(store)
        assert "a compromised key is gone" in found
        assert any("was reported as compromised" in finding for finding in found)


@pytest.mark.parametrize(
    "sql",
    ["UPDATE compromised_keys SET device = 'device-9'", "UPDATE chained SET content = key"],
)
async def test_an_edited_compromised_key_is_noticed(
    raw: RawDatabase, clock: FakeClock, sql: str
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        await compromise(store, clock, 1)
        raw.execute(sql)
        with pytest.raises(AlarmingRefusal, match="record-tampered"):
            await store.check_standing(certificate=None, keys=[KEYS[1]])
        assert await findings(store) != []


async def test_a_key_is_sound_again_after_a_reset(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(n) for n in KEYS], now=clock.now())
        for number in KEYS:
            await compromise(store, clock, number)
        for number in (2, 1, 3):
            await store.change_device(
                order(LifeCycleStep.RESET, f"device-{number}"), now=clock.now()
            )
            await store.check_standing(certificate=None, keys=[KEYS[number]])
            assert await findings(store) == []


@pytest.mark.parametrize("gone", sorted(KEYS.values()))
async def test_no_change_beside_a_gap_closes_it(
    raw: RawDatabase, clock: FakeClock, gone: bytes
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(n) for n in range(1, 9)], now=clock.now())
        for number in KEYS:
            await compromise(store, clock, number)
        raw.execute("DELETE FROM compromised_keys WHERE spki_sha256 = ?", (gone,))
        raw.execute("DELETE FROM chained WHERE key = ?", (gone,))
        for number in range(1, 9):
            step = LifeCycleStep.RESET if number in KEYS else LifeCycleStep.REVOKE
            code = None if number in KEYS else RevocationReason.KEY_COMPROMISE
            with suppress(AlarmingRefusal):
                await store.change_device(
                    order(step, f"device-{number}", code=code), now=clock.now()
                )
        with pytest.raises(AlarmingRefusal, match="record-tampered"):
            await store.check_standing(certificate=None, keys=[gone])
        assert "a compromised key is gone" in await findings(store)


async def test_an_old_chain_that_is_put_back_is_found(raw: RawDatabase, clock: FakeClock) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(1)], now=clock.now())
        [head] = raw.execute("SELECT next, mac FROM chained WHERE chain = 'compromised_keys'")
        await compromise(store, clock, 1)
        raw.execute("DELETE FROM compromised_keys")
        raw.execute("DELETE FROM chained WHERE key = ?", (KEYS[1],))
        raw.execute("UPDATE chained SET next = ?, mac = ? WHERE chain = 'compromised_keys'", head)
        assert await findings(store) == [
            f"key {KEYS[1].hex()} of device device-1: was reported as compromised; that is gone"
        ]


@pytest.mark.parametrize("first", [None, OTHER_KEY], ids=["not sealed", "another key"])
async def test_counts_and_keys_are_sealed_anew_with_the_rest(
    raw: RawDatabase, clock: FakeClock, first: IntegrityKey | None
) -> None:
    async with raw.open(clock, first) as store:
        await store.add_devices([listed(n) for n in KEYS], now=clock.now())
        await compromise(store, clock, 3)
        ticket = await begin(store, with_quota(1))
    seal(raw, INTEGRITY_KEY, first)
    async with raw.open(clock) as store:
        assert await findings(store) == []
        await store.abandon(ticket, reason="test", now=clock.now())
        await compromise(store, clock, 2)
        assert await findings(store) == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE quota_counts SET taken = 0",
        "DELETE FROM compromised_keys",
        "UPDATE quota_uses SET name = 'list:2'",
        "DELETE FROM chained WHERE key <> ?",
        "DELETE FROM chained WHERE key = ?",
    ],
)
async def test_a_key_is_not_exchanged_over_what_is_gone(
    raw: RawDatabase, clock: FakeClock, sql: str
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(3)], now=clock.now())
        await compromise(store, clock, 3)
        await begin(store, with_quota(1))
    raw.execute(sql, (bytes(32),) if "?" in sql else ())
    with pytest.raises(RequestRefused, match="record-tampered"):
        seal(raw, OTHER_KEY, INTEGRITY_KEY)


@pytest.mark.parametrize("chain", ["compromised_keys", "quota_counts"])
async def test_a_store_whose_chain_is_gone_is_not_opened_and_not_sealed_anew(
    raw: RawDatabase, clock: FakeClock, chain: str
) -> None:
    async with raw.open(clock) as store:
        await store.add_devices([listed(3)], now=clock.now())
        await compromise(store, clock, 3)
        await begin(store, with_quota(1))
    raw.execute("DELETE FROM chained WHERE chain = ?", (chain,))
    with pytest.raises(ConfigurationError, match=f"the store's {chain} is gone"):
        async with raw.open(clock):
            pass
    with pytest.raises(RequestRefused, match="record-tampered"):
        seal(raw, INTEGRITY_KEY, INTEGRITY_KEY)
