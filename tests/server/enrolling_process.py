"""A process that works on a store until it is killed, for the tests of the stores.

usage: python -m tests.server.enrolling_process STORE OWNER SEED

STORE is the path of an SQLite file or the URL of a PostgreSQL database.

It prints ``ready``, waits for a line on its input, then enrolls devices, with and without secrets
and approvals, imports lists, revokes certificates and releases claims. For each certificate that it
may send to a client it prints ``answered DEVICE SHA256``, and it prints ``imported LIST COUNT``,
``revoked DEVICE SHA256``, ``secret NAME NUMBER``, ``approved DEVICE NUMBER`` and ``denied DEVICE
NUMBER``, and nothing that is not in the store by then.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

from est_protocol.errors import RequestRefused
from est_protocol.messages import Pending
from est_server.approvals import ApprovalTerms
from est_server.device_records import ListedDevice, ListRow
from est_server.interfaces import Clock
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate
from est_server.life_cycle import LifeCycleStep
from est_server.service import SystemClock
from est_server.stores.postgresql import PostgresqlAddress
from est_server.stores.postgresql.store import PostgresqlStore
from est_server.stores.sqlite import SqliteStore
from est_server.stores.store import Store
from est_server.user_credentials import EnrollmentSecret
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

#: What devices are called that come with a secret, or need an approval.
BY_SECRET = "by-secret-"
BY_APPROVAL = "by-approval-"
SECRET_USES = 2

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


async def _enroll_by_secrets(store: Store, clock: SystemClock, random: Random, name: str) -> None:
    """More devices come with each secret than it is good for."""
    for number in count():
        secret = EnrollmentSecret(f"{name}-{number}", "hash", max_uses=SECRET_USES)
        try:
            added = await store.add_secret(secret, now=clock.now())
            print("secret", added.name, added.number, flush=True)
        except RequestRefused:
            continue
        for device in range(2 * SECRET_USES):
            intent = first_enrollment(f"{BY_SECRET}{name}-{number}-{device}")
            await _finish(store, clock, random, replace(intent, secret=added.number))


async def _enroll_by_approval(store: Store, clock: SystemClock, random: Random, name: str) -> None:
    """An operator approves most requests and denies some."""
    for number in count():
        intent = replace(
            first_enrollment(f"{BY_APPROVAL}{name}-{number}"), approval=ApprovalTerms()
        )
        try:
            assert isinstance(await store.begin(intent), Pending)
            waiting = [one async for one in store.approvals() if one.device == intent.device]
            approve = random.random() < 0.7
            await store.decide_approval(
                waiting[0].number, approve=approve, actor="op", reason="test", now=clock.now()
            )
        except RequestRefused:
            continue
        what = "approved" if approve else "denied"
        print(what, intent.device, waiting[0].number, flush=True)
        for _ in range(2):
            await _finish(store, clock, random, intent)


async def _finish(
    store: Store, clock: SystemClock, random: Random, intent: EnrollmentIntent
) -> None:
    """Enroll, or give up half way."""
    try:
        begun = await store.begin(intent)
        if isinstance(begun, IssuanceTicket):
            if random.random() < 0.3:
                await store.abandon(begun, reason="pending", now=clock.now())
                return
            begun = await store.complete(begun, certificate(), now=clock.now())
    except RequestRefused:
        return
    assert isinstance(begun, IssuedCertificate)
    print("answered", begun.device, begun.sha256.hex(), flush=True)


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


async def _release_some(store: Store, clock: SystemClock, random: Random) -> None:
    """Devices may come again with the same requests, for certificates of their own."""
    while True:
        known = [issued async for issued in store.certificates() if issued.device in DEVICES]
        for issued in random.sample(known, min(2, len(known))):
            # A refusal is that the store is busy.
            with suppress(RequestRefused):
                await store.release_claim(
                    issued.device, issued.label, actor="test", reason="test", now=clock.now()
                )
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
        async with asyncio.TaskGroup() as tasks:
            for number in range(_CLIENTS):
                tasks.create_task(_enroll_some(store, clock, Random(f"{seed} {number}")))
            name = f"{owner}-{seed}"
            tasks.create_task(_revoke_some(store, clock, Random(seed)))
            tasks.create_task(_release_some(store, clock, Random(f"{seed} r")))
            tasks.create_task(_import_some(store, clock, name))
            tasks.create_task(_enroll_by_secrets(store, clock, Random(f"{seed} s"), name))
            tasks.create_task(_enroll_by_approval(store, clock, Random(f"{seed} a"), name))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
