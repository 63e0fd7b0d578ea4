"""The journal against itself, and against the tables whose changes it tells of."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from est_protocol.errors import RequestRefused
from est_server.journal import Chain, Entry, Event, JournalBroken
from est_server.life_cycle import LifeCycleStep
from est_server.stores import certificate_verification
from est_server.stores.certificate_verification import certificate_findings, predecessor_findings
from est_server.stores.rules import journal
from est_server.stores.rules.values import Row
from est_server.stores.transaction import Transaction

_PAGE = 2000

#: What the journal says of attempts and of the history of devices, to look up from the other side.
_SCRATCH = (
    """
    CREATE TABLE attempts (
        number  INTEGER PRIMARY KEY,
        device  TEXT,
        label   TEXT,
        claim   INTEGER NOT NULL DEFAULT 0,
        issued  INTEGER NOT NULL DEFAULT 0,
        secret  INTEGER
    )
    """,
    "CREATE TABLE history (id INTEGER PRIMARY KEY)",
    "CREATE TABLE removed_secrets (number INTEGER PRIMARY KEY)",
    "CREATE TABLE findings (number INTEGER, finding TEXT NOT NULL)",
    "CREATE TABLE forgotten (number INTEGER PRIMARY KEY)",
    "CREATE TABLE compromised (key BLOB PRIMARY KEY, device TEXT NOT NULL)",
    "CREATE INDEX compromised_of_device ON compromised (device)",
    *certificate_verification.SCRATCH,
)


def journal_findings(
    db: Transaction, scratch: sqlite3.Connection, *, progress: Callable[[str, int], None]
) -> Iterator[str]:
    """What is wrong with the journal, or does not agree with it, one sentence for each.

    :param db: a snapshot.
    :param scratch: a database to be thrown away.
    """
    for sql in _SCRATCH:
        scratch.execute(sql)
    yield from _follow(db, scratch, progress)
    yield from _check_attempts(db, scratch, progress)
    yield from _check_status(db)
    yield from certificate_findings(db, scratch, progress=progress)
    yield from _check_claims(db, scratch)
    yield from _check_history(db, scratch)
    yield from _check_secrets(db, scratch)
    yield from _check_keys(db, scratch)


# From the journal to the tables


def _follow(
    db: Transaction, scratch: sqlite3.Connection, progress: Callable[[str, int], None]
) -> Iterator[str]:
    try:
        chain = journal.checkpoint(db)
    except RequestRefused as refused:
        yield refused.detail
        chain = Chain()
    while page := journal.unchecked(db, chain.number, _PAGE):
        for entry in page:
            finding = _follow_one(db, chain, entry)
            if finding is not None:
                yield finding
                continue
            _remember(scratch, entry)
            certificate_verification.remember(scratch, entry)
            for finding in _compare(db, scratch, entry):
                yield from _unless_forgotten(scratch, entry, finding)
        progress("journal", chain.number)
    for (finding,) in scratch.execute(
        "SELECT finding FROM findings WHERE number NOT IN (SELECT number FROM forgotten)"
    ):
        yield finding
    if chain.number == 0 and db.seals.is_keyed:
        yield "the journal is gone"


def _unless_forgotten(scratch: sqlite3.Connection, entry: Entry, finding: str) -> Iterator[str]:
    """A finding, or nothing if a later entry may explain it."""
    if entry.event in (Event.ISSUED, Event.REVOKED):
        scratch.execute("INSERT INTO findings VALUES (?, ?)", (entry.reference, finding))
    else:
        yield finding


def _follow_one(db: Transaction, chain: Chain, entry: Entry) -> str | None:
    try:
        list(journal.chained(db.seals, chain, [entry]))
    except JournalBroken as broken:
        # Each break is reported once.
        chain.number, chain.hash = entry.number, entry.hash
        return f"journal: {broken}"
    except RequestRefused as refused:
        return refused.detail
    return None


def _remember(scratch: sqlite3.Connection, entry: Entry) -> None:
    if entry.event in (Event.CLAIMED, Event.BEGUN):
        scratch.execute(
            "INSERT OR REPLACE INTO attempts (number, device, label, claim, secret) "
            "VALUES (?, ?, ?, ?, ?)",
            (
                entry.reference,
                entry.device,
                entry.label,
                entry.event == Event.CLAIMED,
                entry.known.get("secret"),
            ),
        )
    elif entry.event == Event.ABANDONED:
        scratch.execute(
            "UPDATE attempts SET claim = 0, secret = NULL WHERE number = ?", (entry.reference,)
        )
    elif entry.event == Event.SECRET_REMOVED:
        scratch.execute("INSERT OR REPLACE INTO removed_secrets VALUES (?)", (entry.reference,))
    elif entry.event == Event.RELEASED:
        scratch.execute("UPDATE attempts SET claim = 0 WHERE number = ?", (entry.reference,))
    elif entry.event == Event.ISSUED:
        scratch.execute("UPDATE attempts SET issued = 1 WHERE number = ?", (entry.reference,))
    elif entry.event == Event.DEVICE_CHANGED:
        scratch.execute("INSERT OR REPLACE INTO history VALUES (?)", (entry.reference,))
        if entry.known.get("step") == LifeCycleStep.RESET:
            scratch.execute("DELETE FROM compromised WHERE device = ?", (entry.device,))
    elif entry.event == Event.FORGOTTEN:
        numbers = [(int(number),) for number in str(entry.known["numbers"]).split()]
        scratch.executemany("INSERT OR REPLACE INTO forgotten VALUES (?)", numbers)
    elif entry.event == Event.COMPROMISED:
        key = bytes.fromhex(str(entry.known["key"]))
        scratch.execute("INSERT OR REPLACE INTO compromised VALUES (?, ?)", (key, entry.device))


def _compare(db: Transaction, scratch: sqlite3.Connection, entry: Entry) -> Iterator[str]:
    if entry.event == Event.BEGUN:
        yield from predecessor_findings(db, scratch, entry)
    elif entry.event == Event.ISSUED:
        row = db.execute(
            "SELECT device, label, serial, sha256 FROM issuances WHERE number = ? "
            "AND status = 'issued'",
            (entry.reference,),
        ).fetchone()
        yield from _compare_issued(entry, row)
    elif entry.event == Event.REVOKED:
        row = db.execute(
            "SELECT 1 FROM issuances WHERE number = ? AND status = 'issued'", (entry.reference,)
        ).fetchone()
        if row is None:
            yield f"issuance {entry.reference}: was revoked, and its record is gone"
    elif entry.event == Event.DEVICE_CHANGED:
        row = db.execute(
            "SELECT udid, step, from_state, to_state, owner, actor, reason FROM device_history "
            "WHERE id = ?",
            (entry.reference,),
        ).fetchone()
        known = entry.known
        told = tuple(
            known.get(name) for name in ("step", "before", "after", "owner", "actor", "reason")
        )
        if row != (entry.device, *told):
            yield f"device {entry.device}: entry {entry.reference} of its history was changed"
    elif entry.event in (Event.ABANDONED, Event.RELEASED):
        yield from _compare_end(scratch, entry)
    elif entry.event == Event.LIST_IMPORTED:
        row = db.execute(
            "SELECT list_id, sha256 FROM lists WHERE number = ?", (entry.reference,)
        ).fetchone()
        if row is None or (row[0], row[1].hex()) != (entry.known["list"], entry.known["sha256"]):
            yield f"list {entry.reference}: its record is gone or was changed"


def _compare_issued(entry: Entry, row: Row | None) -> Iterator[str]:
    if row is None:
        yield f"issuance {entry.reference}: a certificate was issued, and its record is gone"
        return
    device, label, serial, sha256 = row
    told = (entry.device, entry.label, entry.serial, entry.known["sha256"])
    if told != (device, label, serial, sha256.hex()):
        yield f"issuance {entry.reference}: its record was changed"


def _compare_end(scratch: sqlite3.Connection, entry: Entry) -> Iterator[str]:
    told = scratch.execute(
        "SELECT device, label, issued FROM attempts WHERE number = ?", (entry.reference,)
    ).fetchone()
    if told is None:
        return
    if told[:2] != (entry.device, entry.label):
        yield f"issuance {entry.reference}: was {entry.event} as another device's"
    elif entry.event == Event.ABANDONED and told[2]:
        yield f"issuance {entry.reference}: was given up after its certificate was issued"


# From the tables to the journal. What is older than the journal's oldest entry is not in it.


def _check_attempts(
    db: Transaction, scratch: sqlite3.Connection, progress: Callable[[str, int], None]
) -> Iterator[str]:
    [(first,)] = scratch.execute("SELECT min(number) FROM attempts")
    if first is None:
        return
    after = first - 1
    while rows := db.execute(
        "SELECT number, device, label, status FROM issuances WHERE number > ? "
        "ORDER BY number LIMIT ?",
        (after, _PAGE),
    ).fetchall():
        for number, device, label, status in rows:
            told = scratch.execute(
                "SELECT device, label, issued FROM attempts WHERE number = ?", (number,)
            ).fetchone()
            if told is None or told[:2] != (device, label):
                yield f"issuance {number}: the journal knows nothing of it"
            elif (status == "issued") != told[2]:
                yield f"issuance {number}: is {status}; the journal says something else"
        after = rows[-1][0]
        progress("issuances", after)


def _check_status(db: Transaction) -> Iterator[str]:
    """Certificates that nobody would find."""
    for (number,) in db.execute(
        "SELECT number FROM issuances WHERE (status = 'issued') <> (sha256 IS NOT NULL)"
    ):
        yield f"issuance {number}: does not say whether it came to a certificate"


def _check_claims(db: Transaction, scratch: sqlite3.Connection) -> Iterator[str]:
    [(first,)] = scratch.execute("SELECT min(number) FROM attempts")
    if first is None:
        return
    after = first - 1
    while rows := db.execute(
        "SELECT issuance, device, label FROM claims WHERE issuance > ? ORDER BY issuance LIMIT ?",
        (after, _PAGE),
    ).fetchall():
        for row in rows:
            taken = scratch.execute(
                "UPDATE attempts SET claim = 0 "
                "WHERE number = ? AND device = ? AND label = ? AND claim = 1",
                row,
            ).rowcount
            if not taken:
                yield f"issuance {row[0]}: has a claim that the journal knows nothing of"
        after = rows[-1][0]
    for number, device, label in scratch.execute(
        "SELECT number, device, label FROM attempts WHERE claim = 1"
    ):
        yield f"issuance {number}: the claim of device {device} under label {label!r} is gone"


def _check_history(db: Transaction, scratch: sqlite3.Connection) -> Iterator[str]:
    [(first,)] = scratch.execute("SELECT min(id) FROM history")
    if first is None:
        return
    after = first - 1
    while rows := db.execute(
        "SELECT id, udid FROM device_history WHERE id > ? ORDER BY id LIMIT ?", (after, _PAGE)
    ).fetchall():
        for number, udid in rows:
            if scratch.execute("SELECT 1 FROM history WHERE id = ?", (number,)).fetchone() is None:
                yield f"device {udid}: the journal knows nothing of entry {number} of its history"
        after = rows[-1][0]


def _check_keys(db: Transaction, scratch: sqlite3.Connection) -> Iterator[str]:
    for key, device in scratch.execute("SELECT key, device FROM compromised"):
        row = db.execute(
            "SELECT device FROM compromised_keys WHERE spki_sha256 = ?", (key,)
        ).fetchone()
        if row != (device,):
            yield f"key {key.hex()} of device {device}: was reported as compromised; that is gone"


def _check_secrets(db: Transaction, scratch: sqlite3.Connection) -> Iterator[str]:
    for (number,) in scratch.execute("SELECT number FROM removed_secrets"):
        if db.execute("SELECT 1 FROM secrets WHERE number = ?", (number,)).fetchone() is not None:
            yield f"secret {number}: was removed, and is there"
    for issuance, secret in scratch.execute(
        "SELECT number, secret FROM attempts WHERE secret IS NOT NULL"
    ):
        row = db.execute(
            "SELECT secret FROM secret_uses WHERE issuance = ?", (issuance,)
        ).fetchone()
        if row != (secret,):
            yield f"secret {secret}: its use by issuance {issuance} is gone"
