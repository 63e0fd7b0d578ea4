"""The whole store against its seals, its journal and the lists that devices came with.

Everything is read once, in pages, in one snapshot. What has to be remembered meanwhile is in a
database on disk that is thrown away, so memory does not grow with the store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, Protocol

from est_protocol.errors import RequestRefused
from est_server.device_records import ListDescription, ListRow
from est_server.stores.journal_verification import journal_findings
from est_server.stores.rules import tallies
from est_server.stores.rules.chained_rows import CHAINS
from est_server.stores.rules.sealed_devices import COUNTED_CLAIMS, SEALED_COLUMNS, fault
from est_server.stores.rules.sealed_rows import FIRST, SEALED_TABLES
from est_server.stores.rules.tallies import NO_LIST, Tally
from est_server.stores.rules.values import Row
from est_server.stores.seals import add_up
from est_server.stores.transaction import Transaction

_PAGE = 2000

#: Told what is being checked and how many of it have been.
Progress = Callable[[str, int], None]

_SCRATCH = """
CREATE TABLE listed (
    udid       TEXT PRIMARY KEY,
    spki       BLOB NOT NULL,
    attributes TEXT NOT NULL,
    list       INTEGER,
    seen       INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID
"""


class ListReading(Protocol):
    """One pass over a list."""

    def rows(self) -> Iterator[ListRow]:
        """Its rows."""
        ...

    def describe(self) -> ListDescription:
        """The list as a whole, after its last row."""
        ...


class GivenList(NamedTuple):
    """A list that is given again, to compare the store with.

    :param name: what to call it in findings.
    :param sha256: SHA-256 (32 octets) of its octets.
    :param read: reads it; told whether it was imported as one that somebody signed.
    """

    name: str
    sha256: bytes
    read: Callable[[bool], ListReading]


def findings(
    db: Transaction, given: Sequence[GivenList] = (), *, progress: Progress = lambda what, n: None
) -> Iterator[str]:
    """What is wrong with a store, one sentence for each.

    :param db: a snapshot.
    :param given: lists to compare the devices with.
    """
    with closing(sqlite3.connect("", isolation_level=None)) as scratch:
        # An unnamed database is a temporary file that is gone when it is closed.
        scratch.execute("PRAGMA journal_mode = OFF")
        scratch.execute("BEGIN")
        scratch.execute(_SCRATCH)
        numbers: set[int] = set()
        for one in given:
            yield from _read_given(db, scratch, one, numbers, progress)
        found: dict[int, Tally] = {}
        yield from _check_devices(db, scratch, numbers, found, progress)
        yield from _check_lists(db, found)
        yield from _missing(scratch)
        yield from _check_sealed_rows(db)
        yield from _check_chains(db)
        yield from journal_findings(db, scratch, progress=progress)


def _read_given(
    db: Transaction,
    scratch: sqlite3.Connection,
    given: GivenList,
    numbers: set[int],
    progress: Progress,
) -> Iterator[str]:
    reading = given.read(_was_signed(db, given.sha256))
    # What the list is called is known after its last row only.
    for count, row in enumerate(reading.rows(), start=1):
        taken = scratch.execute(
            "INSERT INTO listed (udid, spki, attributes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (row.udid, row.spki_sha256, row.attributes),
        ).rowcount
        if not taken:
            yield f"{given.name}: line {row.line}: {row.udid!r} is on another line or list too"
        if count % _PAGE == 0:
            progress(given.name, count)
    described = reading.describe()
    known = db.execute(
        "SELECT number FROM lists WHERE sha256 = ? AND signer = ?",
        (described.sha256, described.signer or ""),
    ).fetchone()
    if known is None:
        yield f"{given.name}: this list was not imported"
        scratch.execute("DELETE FROM listed WHERE list IS NULL")
        return
    numbers.add(known[0])
    scratch.execute("UPDATE listed SET list = ? WHERE list IS NULL", known)


def _was_signed(db: Transaction, sha256: bytes) -> bool:
    """Whether a list was imported with a signature; as most of its devices came, if both ways."""
    row = db.execute(
        "SELECT signer FROM lists WHERE sha256 = ? ORDER BY devices DESC LIMIT 1", (sha256,)
    ).fetchone()
    return row is not None and row != ("",)


def _check_devices(
    db: Transaction,
    scratch: sqlite3.Connection,
    numbers: set[int],
    found: dict[int, Tally],
    progress: Progress,
) -> Iterator[str]:
    count, after = 0, ""
    while rows := _page(db, after):
        for row in rows:
            finding = fault(db.seals, row[:-1])
            if finding is not None:
                yield f"device {row[0]}: {finding}"
            if row[8] != row[-1]:
                yield f"device {row[0]}: it holds {row[8]} claims, {row[-1]} are there"
            _add(db, row, found)
            if row[5] in numbers:
                yield from _compare(scratch, row)
        after, count = rows[-1][0], count + len(rows)
        progress("devices", count)


def _page(db: Transaction, after: str) -> list[Row]:
    return db.execute(
        f"SELECT {SEALED_COLUMNS}, {COUNTED_CLAIMS} FROM devices WHERE udid > ? "
        "ORDER BY udid LIMIT ?",
        (after, _PAGE),
    ).fetchall()


def _add(db: Transaction, row: Row, found: dict[int, Tally]) -> None:
    number = row[5] or NO_LIST
    before = found.get(number, Tally())
    member = db.seals.member(row[0], row[1]) if db.seals.is_keyed else 0
    found[number] = Tally(before.devices + 1, add_up((before.total, member)))


def _compare(scratch: sqlite3.Connection, row: Row) -> Iterator[str]:
    udid, spki, attributes, _, _, number = row[:6]
    listed = scratch.execute(
        "UPDATE listed SET seen = 1 WHERE udid = ? RETURNING spki, attributes, list", (udid,)
    ).fetchall()
    if not listed:
        yield f"device {udid}: is not on list {number}"
    elif listed != [(spki, attributes, number)]:
        yield f"device {udid}: list {listed[0][2]} says something else of it"


def _missing(scratch: sqlite3.Connection) -> Iterator[str]:
    """Rows of a list that are not there. Some may never have been, as the import reported."""
    for udid, number in scratch.execute("SELECT udid, list FROM listed WHERE seen = 0"):
        yield f"device {udid}: is on list {number}, and is not there as such"


def _check_lists(db: Transaction, found: dict[int, Tally]) -> Iterator[str]:
    rows = db.execute("SELECT number, devices FROM lists ORDER BY number").fetchall()
    counted = dict(rows)
    for number in sorted({NO_LIST, *counted, *found}):
        there = found.get(number, Tally())
        if number != NO_LIST and counted.get(number) != there.devices:
            yield f"list {number}: {there.devices} devices are there, {counted.get(number)} came"
        if not db.seals.is_keyed:
            continue
        try:
            sealed = tallies.find(db, number)
        except RequestRefused as refused:
            yield refused.detail
            continue
        if sealed.devices != there.devices:
            yield f"list {number}: {there.devices} devices are there, sealed are {sealed.devices}"
        elif sealed.total != there.total:
            yield f"list {number}: its devices are not those that came with it"


def _check_chains(db: Transaction) -> Iterator[str]:
    for chain in CHAINS:
        try:
            yield from chain.findings(db)
        except RequestRefused as refused:
            yield refused.detail


def _check_sealed_rows(db: Transaction) -> Iterator[str]:
    for table in SEALED_TABLES:
        after = FIRST
        while rows := table.page(db, after, _PAGE):
            for row in rows:
                finding = table.fault(db.seals, row)
                if finding is not None:
                    yield finding
            after = rows[-1][0]
