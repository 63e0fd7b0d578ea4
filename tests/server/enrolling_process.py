"""A process that enrolls devices until it is killed, for the tests of the stores.

usage: python -m tests.server.enrolling_process STORE OWNER SEED

STORE is the path of an SQLite file or the URL of a PostgreSQL database.

It prints ``ready``, waits for a line on its input, then prints ``answered DEVICE SHA256`` for
each certificate that it may send to a client, and nothing that is not in the ledger by then.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random

from est_protocol.errors import RequestRefused
from est_server.interfaces import Clock
from est_server.ledger_records import IssuanceTicket, IssuedCertificate
from est_server.service import SystemClock
from est_server.stores.postgresql import PostgresqlAddress
from est_server.stores.postgresql.store import PostgresqlStore
from est_server.stores.sqlite import SqliteStore
from est_server.stores.store import Store
from tests.server.ledger_values import certificate, first_enrollment, renewal

DEVICES = tuple(f"device-{number}" for number in range(400))
LABELS = (None, "vpn")
_KEYS = ("a", "b")
_CLIENTS = 8


def open_store(
    location: str, owner: str | None, clock: Clock | None = None
) -> AbstractAsyncContextManager[Store]:
    """The store at a path or a URL."""
    if location.startswith("postgresql:"):
        return PostgresqlStore.open(PostgresqlAddress(location), clock=clock, owner=owner)
    return SqliteStore.open(Path(location), clock=clock or SystemClock(), owner=owner)


async def _enroll_some(store: Store, clock: SystemClock, random: Random) -> None:
    issued: dict[tuple[str, str | None], IssuedCertificate] = {}
    while True:
        device, label, key = random.choice(DEVICES), random.choice(LABELS), random.choice(_KEYS)
        predecessor = issued.get((device, label))
        intent = (
            first_enrollment(device, key=key, label=label)
            if predecessor is None
            else renewal(predecessor.sha256, device, key=key, label=label)
        )
        try:
            begun = await store.begin(intent)
            if isinstance(begun, IssuanceTicket):
                if random.random() < 0.2:
                    await store.abandon(begun, reason="pending", now=clock.now())
                    continue
                begun = await store.complete(begun, certificate(key), now=clock.now())
        except RequestRefused:
            continue
        assert isinstance(begun, IssuedCertificate)
        issued[device, label] = begun
        print("answered", device, begun.sha256.hex(), flush=True)


async def _main(location: str, owner: str, seed: int) -> None:
    clock = SystemClock()
    async with open_store(location, owner) as store:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(
            *(_enroll_some(store, clock, Random(f"{seed} {n}")) for n in range(_CLIENTS))
        )


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
