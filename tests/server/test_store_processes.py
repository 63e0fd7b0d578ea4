"""Several processes on one store, killed without warning."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Protocol

import psycopg
import pytest

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.ledger_records import IssuanceTicket
from est_server.service import SystemClock
from est_server.stores.postgresql import PostgresqlAddress
from tests.server.enrolling_process import (
    BY_APPROVAL,
    BY_SECRET,
    DEVICES,
    LABELS,
    LIST_ROWS,
    open_store,
)
from tests.server.ledger_values import FakeClock, first_enrollment

_SAID = re.compile(
    r"(answered|revoked) \S+ [0-9a-f]{64}\n|(imported|secret|approved|denied) \S+ \d+\n"
)

#: What must be true of a ledger at any moment, as queries that must find nothing.
_INVARIANTS = {
    "two active certificates for one device and label": """
        SELECT device, label FROM issuances WHERE state = 'active'
        GROUP BY device, label HAVING count(*) > 1""",
    "two first enrollments of one device under one label": """
        SELECT device, label FROM issuances WHERE status = 'issued' AND operation = 'simpleenroll'
            AND number NOT IN (SELECT reference FROM journal WHERE event = 'released')
        GROUP BY device, label HAVING count(*) > 1""",
    "a claim without an issuance that is open or done": """
        SELECT c.device FROM claims c LEFT JOIN issuances i
            ON i.number = c.issuance AND i.device = c.device AND i.label = c.label
            AND i.status IN ('in-progress', 'issued') AND i.operation = 'simpleenroll'
        WHERE i.number IS NULL""",
    "a first enrollment, open or done, without its claim": """
        SELECT i.number FROM issuances i LEFT JOIN claims c ON c.issuance = i.number
        WHERE i.operation = 'simpleenroll' AND i.status IN ('in-progress', 'issued')
            AND c.issuance IS NULL
            AND i.number NOT IN (SELECT reference FROM journal WHERE event = 'released')""",
    "a claim that was given back, and is there": """
        SELECT c.issuance FROM claims c JOIN journal j
            ON j.event = 'released' AND j.reference = c.issuance""",
    "a quota with another count than devices that count": """
        SELECT c.name FROM quota_counts c WHERE c.taken <> (
            SELECT count(*) FROM quota_uses u JOIN claims k ON k.issuance = u.issuance
            WHERE u.name = c.name AND u.length = c.length AND u.start = c.start)""",
    "a list of which a part was imported": f"""
        SELECT l.number FROM lists l LEFT JOIN devices d ON d.list = l.number
        GROUP BY l.number, l.devices HAVING count(d.udid) <> {LIST_ROWS} OR l.devices <> {LIST_ROWS}
        """,
    "a secret that was used more often than it may": """
        SELECT s.name FROM secrets s WHERE s.max_uses < (
            SELECT count(*) FROM secret_uses u WHERE u.secret = s.number)""",
    "a use of a secret or an approval by an attempt that is neither open nor done": """
        SELECT used.issuance FROM (
            SELECT issuance FROM secret_uses
            UNION ALL SELECT issuance FROM approvals WHERE state = 'used') used
        LEFT JOIN issuances i ON i.number = used.issuance
            AND i.status IN ('in-progress', 'issued')
        WHERE i.number IS NULL""",
    "a certificate by a secret that does not count it": f"""
        SELECT i.number FROM issuances i LEFT JOIN secret_uses u ON u.issuance = i.number
        WHERE i.status = 'issued' AND i.device LIKE '{BY_SECRET}%' AND u.issuance IS NULL""",
    "a certificate without the approval that it needs": f"""
        SELECT i.number FROM issuances i LEFT JOIN approvals a
            ON a.issuance = i.number AND a.state = 'used' AND a.actor = 'op'
        WHERE i.status = 'issued' AND i.device LIKE '{BY_APPROVAL}%' AND a.number IS NULL""",
    "a renewal whose predecessor is still active": """
        SELECT i.number FROM issuances i JOIN issuances p ON p.sha256 = i.predecessor
        WHERE i.status = 'issued' AND p.state = 'active'""",
}


class Database(Protocol):
    """The database under a store, as seen past the store."""

    location: str

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        ...

    def damage(self) -> list[tuple[Any, ...]]:
        """What the database itself finds wrong."""
        ...


class SqliteFile:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.location = str(path)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with closing(sqlite3.connect(self.location)) as db:
            return db.execute(sql).fetchall()

    def damage(self) -> list[tuple[Any, ...]]:
        """Broken pages and references."""
        found = [row for row in self.query("PRAGMA integrity_check") if row != ("ok",)]
        return found + self.query("PRAGMA foreign_key_check")


class PostgresqlDatabase:
    """A database of the tests' server."""

    def __init__(self, address: PostgresqlAddress) -> None:
        self.location = address.url

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with psycopg.connect(self.location) as db:
            return db.execute(sql.encode()).fetchall()

    def damage(self) -> list[tuple[Any, ...]]:
        """It was not PostgreSQL that was killed."""
        return []


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Every kind of database in turn."""
    if request.param == "sqlite":
        return SqliteFile(tmp_path / "store.db")
    return PostgresqlDatabase(request.getfixturevalue("postgresql_database"))


@contextmanager
def enrolling(
    database: Database, owners: list[str], seed: int, module: str = "enrolling_process"
) -> Iterator[list[subprocess.Popen[str]]]:
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                f"tests.server.{module}",
                database.location,
                owner,
                str(seed),
            ],
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


@dataclass
class Told:
    """What processes said before they were killed, which must be true ever after."""

    answered: set[bytes] = field(default_factory=set)
    revoked: set[bytes] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    approved: set[int] = field(default_factory=set)
    denied: set[int] = field(default_factory=set)

    def hear(self, line: str) -> None:
        """Take a line that a process printed."""
        what, name, value = line.split()
        match what:
            case "imported":
                self.imported.add(name)
            case "secret":
                self.secrets.add(name)
            case "approved" | "denied":
                (self.approved if what == "approved" else self.denied).add(int(value))
            case _:
                (self.answered if what == "answered" else self.revoked).add(bytes.fromhex(value))


def kill_after(process: subprocess.Popen[str], lines: int, told: Told) -> None:
    """Kill after so many lines, or when there are no more that say what was done."""
    assert process.stdout is not None
    said = [process.stdout.readline()]
    while len(said) < lines and _SAID.fullmatch(said[-1]):
        said.append(process.stdout.readline())
    process.kill()
    said.extend(process.stdout)
    assert process.wait() == -9
    for line in said:
        if _SAID.fullmatch(line):
            told.hear(line)


def assert_invariants(database: Database, told: Told) -> None:
    for name, sql in _INVARIANTS.items():
        assert database.query(sql) == [], name
    assert database.damage() == []
    issued = dict(database.query("SELECT sha256, state FROM issuances WHERE status = 'issued'"))
    assert told.answered <= set(issued)
    assert {issued[sha256] for sha256 in told.revoked} <= {"revoked"}
    assert told.imported <= {name for (name,) in database.query("SELECT list_id FROM lists")}
    assert told.secrets <= {name for (name,) in database.query("SELECT name FROM secrets")}
    decided = dict(database.query("SELECT number, state FROM approvals"))
    assert {decided[number] for number in told.approved} <= {"approved", "used"}
    assert {decided[number] for number in told.denied} <= {"denied"}


async def assert_sealed(database: Database) -> None:
    """Seals, lists and journal go with everything that is there."""
    findings: list[str] = []
    async with open_store(database.location, None) as store:
        await store.verify(report=findings.append)
    assert findings == []


async def test_nothing_that_was_answered_is_lost_when_processes_are_killed(
    database: Database,
) -> None:
    random = Random(7030)
    told = Told()
    for seed in range(3):
        with enrolling(database, ["one", "two"], seed) as processes:
            for process in processes:
                kill_after(process, random.randrange(5, 80), told)
        assert_invariants(database, told)
        await assert_sealed(database)
    assert len(told.answered) >= 30
    assert len(told.revoked) >= 5
    assert len(told.imported) >= 2
    assert len(told.secrets) >= 2
    assert len(told.approved) >= 2
    await assert_nobody_is_stuck(database)
    assert_invariants(database, told)
    await assert_sealed(database)


_LIMIT = 60


async def test_a_quota_is_exact_over_processes_that_are_killed(database: Database) -> None:
    told = Told()
    with enrolling(database, ["one", "two", "three"], _LIMIT, "counting_process") as processes:
        for process in processes[1:]:
            kill_after(process, 5, told)
        assert_invariants(database, told)
        lines, _ = processes[0].communicate(timeout=60)
        assert lines.splitlines()[-1] == "full"
    # What the killed ones had begun is given back when somebody with their names comes again.
    survivors = ["two", "three"]
    with enrolling(database, survivors, _LIMIT, "counting_process") as processes:
        for process in processes:
            process.communicate(timeout=60)
    assert_invariants(database, told)
    ((taken, issued),) = database.query(
        "SELECT (SELECT taken FROM quota_counts), "
        "(SELECT count(*) FROM issuances WHERE status = 'issued')"
    )
    assert issued <= taken == _LIMIT


async def assert_nobody_is_stuck(database: Database) -> None:
    """Once the leases have run out, only a device that has made its first enrollment is refused."""
    clock = FakeClock(SystemClock().now() + timedelta(minutes=1))
    intents = [
        first_enrollment(device, key="c", label=label) for device in DEVICES for label in LABELS
    ]
    async with open_store(database.location, None, clock) as store:
        results = await asyncio.gather(
            *(store.begin(intent) for intent in intents), return_exceptions=True
        )
        enrolled = set(
            database.query(
                "SELECT c.device, c.label FROM claims c JOIN issuances i ON i.number = c.issuance "
                "WHERE i.status = 'issued'"
            )
        )
        for intent, result in zip(intents, results, strict=True):
            if (intent.device, intent.label or "") in enrolled:
                assert isinstance(result, RequestRefused)
                assert result.reason is RefusalReason.ALREADY_CLAIMED
            else:
                assert isinstance(result, IssuanceTicket)
                await store.abandon(result, reason="test", now=clock.now())
