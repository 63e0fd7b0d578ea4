"""A whole device list in one transaction, with constant memory.

The rows are staged in a temporary table first, which is on disk and belongs to this connection
alone: as long as rows are read, nobody else waits. They are sealed there and then, for the number
that the list will have unless another list comes before it. Then one transaction takes over those
that fit. Nearly always all of them do, so that is tried first; only if it fails, the rows are
compared one by one with each other and with the devices that are there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice

from est_server.device_records import (
    AddOutcome,
    DeviceState,
    ListDescription,
    ListImport,
    ListRow,
    RowConflict,
)
from est_server.stores.rules import lists
from est_server.stores.rules.sealed_devices import NewDevices
from est_server.stores.rules.values import NEW_DEVICE_COLUMNS, to_column
from est_server.stores.sqlite.database import Connection
from est_server.stores.transaction import Value

#: For the devices and for sorting, and for what is staged; measured: more makes it no faster.
_CACHE_KIBIBYTES = 32 * 1024
_STAGED_KIBIBYTES = 4 * 1024
#: Rows that one statement inserts; a statement costs as much as a row does otherwise.
_BATCH = 500
#: Threads beside its own that SQLite may sort with: a sixth off the time of adding what is staged.
#: Four would take another sixth off it, and 75 MB more memory.
_SORTING_THREADS = 1
#: Rows of a list that are looked up to see whether it has been imported before.
_PROBE = 1000
#: Devices that may be there already for each row of the list, if building the index over the keys
#: again is to cost less than adding to it in no order.
_REBUILD_FACTOR = 8
#: Lists that are shorter are added in any case.
_REBUILD_ROWS = 20_000

_STAGED = """
CREATE TEMP TABLE staged (
    line        INTEGER PRIMARY KEY,
    udid        TEXT NOT NULL,
    spki_sha256 BLOB NOT NULL,
    attributes  TEXT NOT NULL,
    mac         BLOB
) STRICT
"""
_STAGE = "INSERT INTO staged (line, udid, spki_sha256, attributes, mac) VALUES"
_STAGE_ROW = f"{_STAGE} (?, ?, ?, ?, ?)"
_STAGE_BATCH = f"{_STAGE} " + ",".join(["(?, ?, ?, ?, ?)"] * _BATCH)
_NEXT_NUMBER = "SELECT coalesce(max(seq), 0) + 1 FROM main.sqlite_sequence WHERE name = 'lists'"
_INDEX = "CREATE UNIQUE INDEX device_keys ON devices (spki_sha256)"

_KNOWN = """
SELECT EXISTS (
    SELECT 1 FROM (SELECT udid, spki_sha256 FROM staged LIMIT ?) s
    WHERE EXISTS (SELECT 1 FROM main.devices d WHERE d.udid = s.udid)
       OR EXISTS (SELECT 1 FROM main.devices d WHERE d.spki_sha256 = s.spki_sha256))
"""

#: The first of several rows with one UDID or key counts.
_JUDGED = """
CREATE TEMP TABLE judged (
    line        INTEGER PRIMARY KEY,
    udid        TEXT NOT NULL UNIQUE,
    spki_sha256 BLOB NOT NULL UNIQUE,
    attributes  TEXT NOT NULL,
    outcome     TEXT
) STRICT
"""
_DISTINCT = """
INSERT INTO judged (line, udid, spki_sha256, attributes)
SELECT line, udid, spki_sha256, attributes FROM staged WHERE true ORDER BY line
ON CONFLICT (udid) DO NOTHING ON CONFLICT (spki_sha256) DO NOTHING
"""
_JUDGE = """
UPDATE judged SET outcome = coalesce(
    (SELECT CASE WHEN d.spki_sha256 <> judged.spki_sha256 THEN 'conflict-udid'
                 WHEN d.attributes <> judged.attributes THEN 'conflict-attributes'
                 ELSE 'unchanged' END
     FROM main.devices d WHERE d.udid = judged.udid),
    (SELECT 'conflict-key' FROM main.devices d WHERE d.spki_sha256 = judged.spki_sha256),
    'added')
"""


def import_rows(
    db: Connection,
    rows: Iterable[ListRow],
    describe: Callable[[], ListDescription],
    now: datetime,
    *,
    reported: int,
) -> ListImport:
    """See :meth:`est_server.interfaces.DeviceRegistry.import_devices`.

    :param db: a connection of its own for this import.
    :param reported: conflicts that are reported one by one.
    """
    db.execute("PRAGMA temp_store = FILE")
    db.execute(f"PRAGMA temp.cache_size = -{_STAGED_KIBIBYTES}")
    db.execute(f"PRAGMA main.cache_size = -{_CACHE_KIBIBYTES}")
    db.execute(f"PRAGMA threads = {_SORTING_THREADS}")
    # All rows refer to one list, which is recorded in the transaction that adds them; to look it
    # up for each of them costs a tenth of all the time.
    db.execute("PRAGMA foreign_keys = OFF")
    [expected] = db.execute(_NEXT_NUMBER).fetchone()
    added = NewDevices(db.seals, expected, now)
    db.execute("BEGIN")
    db.execute(_STAGED)
    staged = _stage(db, rows, added)
    description = describe()
    db.execute("COMMIT")
    db.begin()
    number = lists.record(db, description, now)
    if number == expected and _add_all(db, staged, added):
        result = ListImport(added=staged, unchanged=0, conflicting=0, conflicts=())
    else:
        added = NewDevices(db.seals, number, now)
        result = _add_what_fits(db, added, reported)
    lists.note_import(db, number, description, now, added=result.added, total=added.total)
    db.commit()
    return result


def _stage(db: Connection, rows: Iterable[ListRow], added: NewDevices) -> int:
    """Put all rows, sealed, into the temporary table; how many there are."""
    iterator = iter(rows)
    count = 0
    while len(batch := list(islice(iterator, _BATCH))) == _BATCH:
        db.execute(_STAGE_BATCH, _sealed(batch, added))
        count += _BATCH
    for row in batch:
        db.execute(_STAGE_ROW, _sealed([row], added))
    return count + len(batch)


def _sealed(rows: list[ListRow], added: NewDevices) -> list[Value]:
    """The values of rows, one after the other."""
    seal = added.seal
    values: list[Value] = []
    for line, udid, spki, attributes in rows:
        values += (line, udid, spki, attributes, seal(udid, spki, attributes))
    return values


def _add_all(db: Connection, staged: int, added: NewDevices) -> bool:
    """Add all rows, or nothing if one of them does not fit."""
    if db.execute(_KNOWN, (_PROBE,)).fetchone()[0]:
        return False
    rebuild = staged >= _REBUILD_ROWS and not _has_devices(db, staged * _REBUILD_FACTOR)
    db.execute("SAVEPOINT all_rows")
    try:
        if rebuild:
            db.execute("DROP INDEX device_keys")
        _insert(db, "staged", "mac", added)
        if rebuild:
            db.execute(_INDEX)
    except sqlite3.IntegrityError:
        db.execute("ROLLBACK TO all_rows")
        return False
    finally:
        if db.in_transaction:
            db.execute("RELEASE all_rows")
    return True


def _has_devices(db: Connection, count: int) -> bool:
    """Whether there are more than ``count`` devices."""
    row = db.execute("SELECT 1 FROM main.devices LIMIT 1 OFFSET ?", (count,)).fetchone()
    return row is not None


def _insert(db: Connection, rows: str, mac: str, added: NewDevices) -> None:
    """Add the rows of a table, or of a table and a condition, in the order in which they stay."""
    db.execute(
        f"INSERT INTO main.devices ({NEW_DEVICE_COLUMNS}) "
        f"SELECT udid, spki_sha256, attributes, ?, ?, ?, {mac} FROM {rows} ORDER BY udid",
        (DeviceState.LISTED.value, to_column(added.now), added.number),
    )


def _add_what_fits(db: Connection, added: NewDevices, reported: int) -> ListImport:
    db.execute(_JUDGED)
    db.execute(_DISTINCT)
    db.execute(_JUDGE)
    db.create_function("seal", 3, added.seal)
    _insert(db, "judged WHERE outcome = 'added'", "seal(udid, spki_sha256, attributes)", added)
    return _report(db, reported)


def _report(db: Connection, reported: int) -> ListImport:
    counts = dict(db.execute("SELECT outcome, count(*) FROM judged GROUP BY outcome").fetchall())
    added, unchanged = counts.get("added", 0), counts.get("unchanged", 0)
    [total] = db.execute("SELECT count(*) FROM staged").fetchone()
    conflicts = db.execute(
        "SELECT s.line, coalesce(j.outcome, ?) FROM staged s LEFT JOIN judged j USING (line) "
        "WHERE j.outcome IS NULL OR j.outcome NOT IN ('added', 'unchanged') "
        "ORDER BY s.line LIMIT ?",
        (AddOutcome.DUPLICATE.value, reported),
    )
    return ListImport(
        added=added,
        unchanged=unchanged,
        conflicting=total - added - unchanged,
        conflicts=tuple(RowConflict(line, AddOutcome(outcome)) for line, outcome in conflicts),
    )
