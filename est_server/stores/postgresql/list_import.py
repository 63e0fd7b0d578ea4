"""A whole device list in one transaction, with constant memory.

The rows are copied into temporary tables of this connection first: as long as rows are read,
nobody else waits. Then one transaction compares them with the devices and takes over those that
fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from est_server.device_records import (
    AddOutcome,
    DeviceState,
    ListDescription,
    ListImport,
    ListRow,
    RowConflict,
)
from est_server.stores.postgresql.session import PostgresqlSession
from est_server.stores.rules import lists
from est_server.stores.rules.sealed_devices import NewDevices
from est_server.stores.rules.values import NEW_DEVICE_COLUMNS, to_column

#: COPY fails at the first row that an index refuses, so the rows go where there is none first.
_COPIED = """
CREATE TEMP TABLE copied (
    line        BIGINT NOT NULL,
    udid        TEXT COLLATE "C" NOT NULL,
    spki_sha256 BYTEA NOT NULL,
    attributes  TEXT COLLATE "C" NOT NULL
)
"""

_STAGED = """
CREATE TEMP TABLE staged (
    line        BIGINT PRIMARY KEY,
    udid        TEXT COLLATE "C" NOT NULL UNIQUE,
    spki_sha256 BYTEA NOT NULL UNIQUE,
    attributes  TEXT COLLATE "C" NOT NULL,
    outcome     TEXT
)
"""

#: Line by line: of two rows that do not go together, the earlier one counts.
_STAGE = """
INSERT INTO staged (line, udid, spki_sha256, attributes)
SELECT line, udid, spki_sha256, attributes FROM copied ORDER BY line ON CONFLICT DO NOTHING
"""

_DUPLICATES = """
SELECT c.line FROM copied c WHERE NOT EXISTS (SELECT 1 FROM staged s WHERE s.line = c.line)
ORDER BY c.line LIMIT ?
"""

_JUDGE = """
UPDATE staged SET outcome = judged.outcome FROM (
    SELECT s.line, CASE
        WHEN u.udid IS NULL AND k.udid IS NULL THEN 'added'
        WHEN u.udid IS NULL THEN 'conflict-key'
        WHEN u.spki_sha256 <> s.spki_sha256 THEN 'conflict-udid'
        WHEN u.attributes <> s.attributes THEN 'conflict-attributes'
        ELSE 'unchanged' END AS outcome
    FROM staged s
    LEFT JOIN devices u ON u.udid = s.udid
    LEFT JOIN devices k ON k.spki_sha256 = s.spki_sha256
) judged WHERE judged.line = staged.line
"""

#: The rows come to where the key is before they are added.
_ADDED = """
DECLARE added NO SCROLL CURSOR FOR
SELECT udid, spki_sha256, attributes FROM staged WHERE outcome = 'added' ORDER BY udid
"""
_FETCHED = 2000
_FETCH = f"FETCH {_FETCHED} FROM added"
_ADD = f"COPY devices ({NEW_DEVICE_COLUMNS}) FROM STDIN (FORMAT BINARY)".encode()
_ADDED_TYPES = ["text", "bytea", "text", "text", "int8", "int8", "bytea"]


def import_rows(
    db: PostgresqlSession,
    rows: Iterable[ListRow],
    describe: Callable[[], ListDescription],
    now: datetime,
    *,
    reported: int,
    time_out: timedelta,
) -> ListImport:
    """See :meth:`est_server.interfaces.DeviceRegistry.import_devices`.

    :param db: a session of its own for this import.
    :param reported: conflicts that are reported one by one.
    :param time_out: for each statement.
    """
    db.take_longer(time_out)
    db.execute(_COPIED)
    db.execute(_STAGED)
    copied = _copy(db, rows)
    description = describe()
    staged = db.execute(_STAGE).rowcount
    duplicates = [
        RowConflict(line, AddOutcome.DUPLICATE) for (line,) in db.execute(_DUPLICATES, (reported,))
    ]
    db.execute("ANALYZE staged")
    db.begin()
    number = lists.record(db, description, now)
    db.execute(_JUDGE)
    added = NewDevices(db.seals, number, now)
    count = _add(db, added)
    lists.note_import(db, number, description, now, added=count, total=added.total)
    db.commit()
    return _report(db, copied - staged, duplicates, reported)


def _copy(db: PostgresqlSession, rows: Iterable[ListRow]) -> int:
    count = 0
    statement = b"COPY copied (line, udid, spki_sha256, attributes) FROM STDIN (FORMAT BINARY)"
    with db.connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["int8", "text", "bytea", "text"])
        for row in rows:
            with db.answering():
                copy.write_row(row)
            count += 1
    return count


def _add(db: PostgresqlSession, added: NewDevices) -> int:
    same = (DeviceState.LISTED.value, to_column(added.now), added.number)
    count = 0
    db.execute(_ADDED)
    while rows := db.execute(_FETCH).fetchall():
        with db.connection.cursor() as cursor, cursor.copy(_ADD) as copy:
            copy.set_types(_ADDED_TYPES)
            for row in rows:
                with db.answering():
                    copy.write_row((*row, *same, added.seal(*row)))
        count += len(rows)
    return count


def _report(
    db: PostgresqlSession, duplicating: int, duplicates: list[RowConflict], reported: int
) -> ListImport:
    counts: dict[str, int] = dict(
        db.execute("SELECT outcome, count(*) FROM staged GROUP BY outcome").fetchall()
    )
    added = counts.pop(AddOutcome.ADDED, 0)
    unchanged = counts.pop(AddOutcome.UNCHANGED, 0)
    conflicts = duplicates + [
        RowConflict(line, AddOutcome(outcome))
        for line, outcome in db.execute(
            "SELECT line, outcome FROM staged WHERE outcome NOT IN ('added', 'unchanged') "
            "ORDER BY line LIMIT ?",
            (reported,),
        )
    ]
    conflicts.sort(key=lambda conflict: conflict.line)
    return ListImport(
        added=added,
        unchanged=unchanged,
        conflicting=duplicating + sum(counts.values()),
        conflicts=tuple(conflicts[:reported]),
    )
