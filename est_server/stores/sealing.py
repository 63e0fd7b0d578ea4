"""With which key the rows of a store are sealed, and how those that are not become so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from est_protocol.errors import ConfigurationError, RequestRefused
from est_server.journal import Chain, Event, JournalBroken
from est_server.stores import sealed_version
from est_server.stores.rules import journal, tallies
from est_server.stores.rules.chained_rows import CHAINS, RowChain
from est_server.stores.rules.sealed_devices import COUNTED_CLAIMS, SEALED_COLUMNS, fault
from est_server.stores.rules.sealed_rows import FIRST, SEALED_TABLES, SealedTable
from est_server.stores.rules.tallies import Tally
from est_server.stores.rules.values import Row, to_column
from est_server.stores.schema import MIGRATIONS
from est_server.stores.seals import Seals, add_up, device_rest, tampered
from est_server.stores.transaction import Transaction

#: Rows that are sealed by one statement.
_PAGE = 500

#: Told how many devices have been sealed.
Progress = Callable[[int], None]


def require_key(db: Transaction, now: datetime) -> None:
    """Check that the store is sealed with the key at hand, or by nobody if there is none.

    An empty store is the key's from now on.

    :raises ConfigurationError: it is sealed with another key, or rows are not sealed.
    """
    key = db.seals.key
    row = db.execute("SELECT key_fingerprint FROM sealing").fetchone()
    if row is not None and key is None:
        raise ConfigurationError(
            "the store is sealed, but no integrity key is configured ([store] unsealed is on)"
        )
    if row is not None and key is not None and row[0] != key.fingerprint:
        raise ConfigurationError("the store is sealed with another integrity key")
    if row is not None:
        _require_up_to_date(db)
        _require_beginnings(db)
    if row is not None or key is None:
        return
    _require_never_sealed(db)
    if not _is_empty(db):
        raise ConfigurationError(
            "the store has rows that are not sealed; if they are what they should be, seal them "
            "with: est-server devices seal"
        )
    tallies.put(db, tallies.NO_LIST, Tally())
    for chain in CHAINS:
        chain.begin_anew(db)
    _take_over(db, now)


def _require_never_sealed(db: Transaction) -> None:
    """Require that a store which says that nobody has sealed it has no seals.

    :raises ConfigurationError: it has.
    """
    seals = (
        "SELECT 1 FROM list_seals LIMIT 1",
        "SELECT 1 FROM chained LIMIT 1",
        "SELECT 1 FROM devices WHERE mac IS NOT NULL LIMIT 1",
    )
    if any(db.execute(sql).fetchone() for sql in seals):
        raise ConfigurationError(
            "the record of which key the store is sealed with is gone, which no server removes; "
            "restore the store from a backup"
        )


def _require_up_to_date(db: Transaction) -> None:
    try:
        version = sealed_version.recorded(db, db.seals)
    except RequestRefused as refused:
        raise ConfigurationError(refused.detail) from refused
    if version is None or version < sealed_version.LATEST:
        raise ConfigurationError(
            "an earlier version of this program sealed the store, and not all that is sealed now; "
            "if all is what it should be, seal it anew with: est-server devices seal "
            "--previous-key FILE, naming the same key"
        )


def _require_beginnings(db: Transaction) -> None:
    """Require what every sealed store has."""
    there = {chain.name: chain.is_begun(db) for chain in CHAINS}
    there["journal"] = db.execute("SELECT 1 FROM journal LIMIT 1").fetchone() is not None
    gone = [name for name, begun in there.items() if not begun]
    if gone:
        raise ConfigurationError(
            f"the store's {', '.join(gone)} is gone, which no server removes; restore the store "
            "from a backup"
        )


def seal_store(
    db: Transaction, previous: Seals, now: datetime, *, progress: Progress = lambda _: None
) -> int:
    """Seal every row with the key at hand; how many devices there are.

    :param previous: what rows are sealed with so far; without a key, rows that are not sealed are
        taken for what they should be, and so are those that the version which sealed the rest left
        out.
    :raises ConfigurationError: they are not.
    :raises RequestRefused: ``RECORD_TAMPERED``: a row is not what a server with the previous key
        wrote.
    """
    row = db.execute("SELECT key_fingerprint FROM sealing").fetchone()
    known = None if previous.key is None else previous.key.fingerprint
    if (None if row is None else row[0]) != known:
        raise ConfigurationError(
            "the store is not sealed" if row is None else "the store is sealed with another key"
        )
    if row is None:
        _require_never_sealed(db)
    version = sealed_version.find(db, previous) if previous.is_keyed else 0
    found: dict[int, Tally] = {}
    after, count = "", 0
    while rows := _page(db, after):
        _seal_devices(db, previous, version, rows, found)
        after, count = rows[-1][0], count + len(rows)
        progress(count)
    lists = db.execute("SELECT number FROM lists").fetchall()
    for number in (tallies.NO_LIST, *(number for (number,) in lists)):
        found.setdefault(number, Tally())
    if previous.is_keyed:
        _require_complete(db, previous, found)
    db.execute("DELETE FROM list_seals")
    for number, tally in found.items():
        tallies.put(db, number, tally)
    # All are checked before any is sealed: the code of a secret counts the uses beside it.
    for table in SEALED_TABLES:
        _check_rows(db, previous, version, table)
    if version >= sealed_version.CHAINS_SINCE:
        for chain in CHAINS:
            _check_chain(db, previous, chain)
    for table in SEALED_TABLES:
        _seal_rows(db, table)
    for chain in CHAINS:
        chain.begin_anew(db)
    _seal_uses(db, previous, version)
    _seal_journal(db, previous, version)
    _take_over(db, now)
    return count


def _require_complete(db: Transaction, previous: Seals, found: dict[int, Tally]) -> None:
    """Require that each list has as many devices as its seal says.

    Which they are is known already: each of them had a seal under the previous key.
    """
    for number, tally in found.items():
        sealed, there = tallies.find(db, number, previous).devices, tally.devices
        if sealed != there:
            raise tampered(f"list {number} has {there} devices, its seal says {sealed}")


def _is_empty(db: Transaction) -> bool:
    sealed = (*SEALED_TABLES, *CHAINS)
    names = ("devices", "lists", "quota_uses", *(table.name for table in sealed))
    return not any(db.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() for name in names)


def _take_over(db: Transaction, now: datetime) -> None:
    assert db.seals.key is not None
    db.execute(
        "INSERT INTO sealing (id, key_fingerprint, sealed_at) VALUES (1, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET key_fingerprint = excluded.key_fingerprint, "
        "sealed_at = excluded.sealed_at",
        (db.seals.key.fingerprint, to_column(now)),
    )
    version = len(MIGRATIONS)
    sealed_version.record(db, version)
    latest = db.execute("SELECT number, hash FROM journal ORDER BY number DESC LIMIT 1").fetchone()
    before = journal.checkpoint(db) if latest is None else Chain(*latest)
    fingerprint = db.seals.key.fingerprint.hex()
    journal.append_after(db, before, Event.SEALED, now, key=fingerprint, version=version)


def _page(db: Transaction, after: str) -> list[Row]:
    return db.execute(
        f"SELECT {SEALED_COLUMNS}, {COUNTED_CLAIMS} FROM devices WHERE udid > ? "
        "ORDER BY udid LIMIT ?",
        (after, _PAGE),
    ).fetchall()


def _seal_devices(
    db: Transaction, previous: Seals, version: int, rows: list[Row], found: dict[int, Tally]
) -> None:
    seals = db.seals
    values: list[str | bytes | int | None] = []
    for *row, claims in rows:
        udid, spki, attributes, state, changed_at, list_number, owner, history = row[:8]
        finding = _device_fault(previous, version, tuple(row), claims)
        if finding is not None:
            raise tampered(f"device {udid}: {finding}", device=udid)
        rest = device_rest(list_number, state, owner, changed_at, history, claims)
        values += (udid, seals.device(udid, spki, attributes, rest), claims)
        number = list_number or tallies.NO_LIST
        tally = found.get(number, Tally())
        total = add_up((tally.total, seals.member(udid, spki)))
        found[number] = Tally(tally.devices + 1, total)
    places = ", ".join(["(?, ?, ?)"] * len(rows))
    db.execute(
        "UPDATE devices SET mac = sealed.column2, claims = sealed.column3 "
        f"FROM (VALUES {places}) AS sealed WHERE devices.udid = sealed.column1",
        values,
    )


def _device_fault(previous: Seals, version: int, row: Row, there: int) -> str | None:
    """What is wrong with a device.

    :param there: the number of its claims, which is believed if it was not sealed yet.
    """
    counts_claims = version >= sealed_version.CLAIM_COUNTS_SINCE
    finding = fault(previous, row, counts_claims=counts_claims)
    history, claims, _, latest = row[7:]
    if finding is None and history != (latest or 0):
        finding = "its history does not go with it"
    if finding is None and counts_claims and claims != there:
        finding = f"it holds {claims} claims, {there} are there"
    return finding


def _check_rows(db: Transaction, previous: Seals, version: int, table: SealedTable) -> None:
    after = FIRST
    while rows := table.page(db, after, _PAGE):
        for row in rows:
            # One that came to a table before the table was sealed has no seal; whatever has one
            # must have a good one.
            if row[-1] is not None or version >= table.since:
                table.require(previous, row)
        after = rows[-1][0]


def _check_chain(db: Transaction, previous: Seals, chain: RowChain) -> None:
    for finding in chain.findings(db, previous):
        raise tampered(finding)


def _seal_uses(db: Transaction, previous: Seals, version: int) -> None:
    is_sealed = version >= sealed_version.CHAINS_SINCE
    after: Row = (FIRST, "", 0)
    while uses := db.execute(
        "SELECT issuance, name, length, start, mac FROM quota_uses "
        "WHERE (issuance, name, length) > (?, ?, ?) ORDER BY issuance, name, length LIMIT ?",
        (*after, _PAGE),
    ).fetchall():
        for *use, mac in uses:
            if is_sealed and not previous.fits(previous.row("quota_uses", *use), mac):
                raise tampered(f"issuance {use[0]} has taken a quota that no server gave it")
            db.execute(
                "UPDATE quota_uses SET mac = ? WHERE issuance = ? AND name = ? AND length = ?",
                (db.seals.row("quota_uses", *use), *use[:-1]),
            )
        after = tuple(uses[-1][:3])


def _seal_rows(db: Transaction, table: SealedTable) -> None:
    after = FIRST
    while rows := table.page(db, after, _PAGE):
        values: list[int | bytes | None] = []
        for row in rows:
            values += (row[0], table.code(db.seals, *row[:-1]))
        places = ", ".join(["(?, ?)"] * len(rows))
        db.execute(
            f"UPDATE {table.name} SET mac = sealed.column2 FROM (VALUES {places}) AS sealed "
            f"WHERE {table.name}.{table.key} = sealed.column1",
            values,
        )
        after = rows[-1][0]


def _seal_journal(db: Transaction, previous: Seals, version: int) -> None:
    is_there = db.execute("SELECT 1 FROM journal LIMIT 1").fetchone() is not None
    if version >= sealed_version.JOURNAL_SINCE and not is_there:
        raise tampered("the journal is gone")
    chain = journal.checkpoint(db, previous)
    if chain.number:
        journal.put_checkpoint(db, chain)
    while page := journal.unchecked(db, chain.number, _PAGE):
        try:
            sealed = list(journal.chained(previous, chain, page))
        except JournalBroken as broken:
            raise tampered(f"journal: {broken}") from broken
        places = ", ".join(["(?, ?)"] * len(sealed))
        values: list[int | bytes | None] = []
        for entry in sealed:
            values += (entry.number, db.seals.entry(entry.hash))
        db.execute(
            f"UPDATE journal SET mac = sealed.column2 FROM (VALUES {places}) AS sealed "
            "WHERE journal.number = sealed.column1",
            values,
        )
