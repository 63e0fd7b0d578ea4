"""A process that enrolls devices against one quota until there is none left.

usage: python -m tests.server.counting_process STORE NAME LIMIT

It prints ``ready``, waits for a line on its input, then prints ``answered DEVICE SHA256`` for each
certificate that it may send to a client, and ``full`` once the quota is used up. Then it waits for
the end of its input.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from itertools import count
from random import Random

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.ledger_records import IssuanceTicket
from est_server.quotas import Quota
from est_server.service import SystemClock
from est_server.stores.store import Store
from tests.server.enrolling_process import open_store
from tests.server.ledger_values import certificate, first_enrollment

QUOTA = "counted"
_CLIENTS = 4


async def _enroll(store: Store, name: str, limit: int, random: Random, numbers: count[int]) -> None:
    clock = SystemClock()
    for number in numbers:
        device = f"{name}-{number}"
        intent = replace(first_enrollment(device), quotas=(Quota(QUOTA, limit),))
        try:
            ticket = await store.begin(intent)
        except RequestRefused as refused:
            if refused.reason is RefusalReason.QUOTA_EXCEEDED:
                return
            raise
        if not isinstance(ticket, IssuanceTicket):
            # An earlier process of this name has it.
            continue
        if random.random() < 0.3:
            await store.abandon(ticket, reason="test", now=clock.now())
            continue
        leaf = certificate()
        issued = await store.complete(ticket, leaf, now=clock.now())
        print("answered", device, issued.sha256.hex(), flush=True)


async def _main(location: str, name: str, limit: int) -> None:
    numbers = count()
    async with open_store(location, name) as store:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(
            *(_enroll(store, name, limit, Random(f"{name} {n}"), numbers) for n in range(_CLIENTS))
        )
        print("full", flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
