"""What tests need that write into a store past the server."""

from __future__ import annotations

import pytest

from est_protocol.errors import RefusalReason
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket
from est_server.stores.copying import open_alone
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.postgresql import PostgresqlOptions
from est_server.stores.sealing import seal_store
from est_server.stores.seals import Seals
from est_server.stores.sqlite import SqliteOptions
from est_server.stores.store import Store
from tests.pki import PRESENT
from tests.server.raw_database import RawDatabase


async def findings(store: Store) -> list[str]:
    """What is wrong with the store."""
    found: list[str] = []
    assert await store.verify(report=found.append) == len(found)
    return found


async def begin(store: Store, intent: EnrollmentIntent) -> IssuanceTicket:
    """An attempt that is under way."""
    begun = await store.begin(intent)
    assert isinstance(begun, IssuanceTicket)
    return begun


async def assert_refused(store: Store, intent: EnrollmentIntent) -> None:
    """The tampered row leads to no certificate, and somebody is told."""
    with pytest.raises(AlarmingRefusal) as refused:
        await store.begin(intent)
    assert refused.value.reason is RefusalReason.RECORD_TAMPERED
    assert refused.value.alarm is AlarmKind.RECORD_TAMPERED


def seal(raw: RawDatabase, key: IntegrityKey, previous: IntegrityKey | None) -> int:
    """Seal the store, as ``est-server devices seal`` does; how many devices there are."""
    with open_alone(raw.location, SqliteOptions(), PostgresqlOptions(), Seals(key)) as store:
        count = seal_store(store.transaction, Seals(previous), PRESENT)
        store.commit()
    return count
