"""A process that works on a store until it is killed, for the tests of the stores.

usage: python -m tests.server.enrolling_process STORE OWNER SEED

STORE is the path of an SQLite file or the URL of a PostgreSQL database.

It prints ``ready``, waits for a line on its input, then enrolls devices, imports lists and revokes
certificates. It prints ``answered DEVICE SHA256`` for each certificate that it may send to a
client, ``imported LIST COUNT`` and ``revoked DEVICE SHA256``, and nothing that is not in the store
by then.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

from est_protocol.errors import RequestRefused
from est_server.device_records import ListedDevice, ListRow
from est_server.interfaces import Clock
from est_server.ledger_records import IssuanceTicket, IssuedCertificate
from est_server.life_cycle import LifeCycleStep
from est_server.service import SystemClock
from est_server.stores.postgresql import PostgresqlAddress
from est_server.stores.postgresql.store import PostgresqlStore
from est_server.stores.sqlite import SqliteStore
from est_server.stores.store import Store
from tests.server.ledger_values import (
    INTEGRITY_KEY,
    certificate,
    describe,
    digest,
    first_enrollment,
    order,
    renewal,
)

DEVICES = tuple(f"device-{number}" for number in range(400))
LABELS = (None, "vpn")
_KEYS = ("a", "b")
_CLIENTS = 8

#: Devices on each list that is imported.
LIST_ROWS = 150


def open_store(
    location: str, owner: str | None, clock: Clock | None = None
) -> AbstractAsyncContextManager[Store]:
    """The store at a path or a URL."""
    if location.startswith("postgresql:"):
        return PostgresqlStore.open(
            PostgresqlAddress(location), clock=clock, owner=owner, integrity_key=INTEGRITY_KEY
        )
    return SqliteStore.open(
        Path(location), clock=clock or SystemClock(), owner=owner, integrity_key=INTEGRITY_KEY
    )


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


async def _revoke_some(store: Store, clock: SystemClock, random: Random) -> None:
    while True:
        known = [issued async for issued in store.certificates()]
        for issued in random.sample(known, min(2, len(known))):
            try:
                await store.revoke_certificate(
                    issued.sha256, actor="test", reason="test", now=clock.now()
                )
            except RequestRefused:
                continue
            print("revoked", issued.device, issued.sha256.hex(), flush=True)
        await asyncio.sleep(0.02)


async def _import_some(store: Store, clock: SystemClock, name: str) -> None:
    for number in count():
        list_id = f"{name}-{number}"
        devices = [f"{list_id}-{line}" for line in range(1, LIST_ROWS + 1)]
        rows = [
            ListRow.of(line, ListedDevice(udid, digest(udid)))
            for line, udid in enumerate(devices, start=1)
        ]
        try:
            await store.import_devices(rows, partial(describe, list_id), now=clock.now())
            print("imported", list_id, LIST_ROWS, flush=True)
            for step in (LifeCycleStep.SUSPEND, LifeCycleStep.RESUME):
                await store.change_device(order(step, devices[0]), now=clock.now())
        except RequestRefused:
            continue


async def _main(location: str, owner: str, seed: int) -> None:
    clock = SystemClock()
    async with open_store(location, owner) as store:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(
            *(_enroll_some(store, clock, Random(f"{seed} {n}")) for n in range(_CLIENTS)),
            _revoke_some(store, clock, Random(seed)),
            _import_some(store, clock, f"{owner}-{seed}"),
        )


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
