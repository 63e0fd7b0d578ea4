"""Several processes on one store, killed without warning."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.ledger_records import IssuanceTicket
from est_server.service import SystemClock
from est_server.stores.sqlite import SqliteStore
from tests.server.enrolling_process import DEVICES, LABELS
from tests.server.ledger_values import FakeClock, first_enrollment

#: What must be true of a ledger at any moment, as queries that must find nothing.
_INVARIANTS = {
    "two active certificates for one device and label": """
        SELECT device, label FROM issuances WHERE state = 'active'
        GROUP BY device, label HAVING count(*) > 1""",
    "two first enrollments of one device under one label": """
        SELECT device, label FROM issuances WHERE status = 'issued' AND operation = 'simpleenroll'
        GROUP BY device, label HAVING count(*) > 1""",
    "a claim without an issuance that is open or done": """
        SELECT c.device FROM claims c LEFT JOIN issuances i
            ON i.number = c.issuance AND i.device = c.device AND i.label = c.label
            AND i.status IN ('in-progress', 'issued') AND i.operation = 'simpleenroll'
        WHERE i.number IS NULL""",
    "a first enrollment, open or done, without its claim": """
        SELECT i.number FROM issuances i LEFT JOIN claims c ON c.issuance = i.number
        WHERE i.operation = 'simpleenroll' AND i.status IN ('in-progress', 'issued')
            AND c.issuance IS NULL""",
    "a renewal whose predecessor is still active": """
        SELECT i.number FROM issuances i JOIN issuances p ON p.sha256 = i.predecessor
        WHERE i.status = 'issued' AND p.state = 'active'""",
}


@contextmanager
def enrolling(path: Path, owners: list[str], seed: int) -> Iterator[list[subprocess.Popen[str]]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.server.enrolling_process", str(path), owner, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for owner in owners
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def kill_after(process: subprocess.Popen[str], answers: int) -> set[bytes]:
    """Kill after so many answers; the hashes of all certificates that were answered."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(answers)]
    process.kill()
    lines.extend(process.stdout)
    assert process.wait() == -9
    return {bytes.fromhex(line.split()[2]) for line in lines if line.endswith("\n")}


def assert_invariants(path: Path, answered: set[bytes]) -> None:
    with closing(sqlite3.connect(path)) as db:
        for name, sql in _INVARIANTS.items():
            assert db.execute(sql).fetchall() == [], name
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        issued = {
            row[0] for row in db.execute("SELECT sha256 FROM issuances WHERE status = 'issued'")
        }
    assert answered <= issued


async def test_nothing_that_was_answered_is_lost_when_processes_are_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    random = Random(7030)
    answered: set[bytes] = set()
    for seed in range(3):
        with enrolling(path, ["one", "two"], seed) as processes:
            for process in processes:
                answered |= kill_after(process, random.randrange(5, 60))
        assert_invariants(path, answered)
    assert len(answered) >= 30
    await assert_nobody_is_stuck(path)
    assert_invariants(path, answered)


async def assert_nobody_is_stuck(path: Path) -> None:
    """Once the leases have run out, only a device that has a certificate is refused."""
    clock = FakeClock(SystemClock().now() + timedelta(minutes=1))
    intents = [
        first_enrollment(device, key="c", label=label) for device in DEVICES for label in LABELS
    ]
    async with SqliteStore.open(path, clock=clock) as store:
        results = await asyncio.gather(
            *(store.begin(intent) for intent in intents), return_exceptions=True
        )
        for intent, result in zip(intents, results, strict=True):
            if has_certificate(path, intent.device, intent.label):
                assert isinstance(result, RequestRefused)
                assert result.reason is RefusalReason.ALREADY_CLAIMED
            else:
                assert isinstance(result, IssuanceTicket)
                await store.abandon(result, reason="test", now=clock.now())


def has_certificate(path: Path, device: str, label: str | None) -> bool:
    with closing(sqlite3.connect(path)) as db:
        row = db.execute(
            "SELECT count(*) FROM issuances WHERE device = ? AND label = ? AND state = 'active'",
            (device, label or ""),
        ).fetchone()
    return bool(row[0])
