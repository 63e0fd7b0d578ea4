"""The database file: how it is made, opened and recognized.

Every connection to it is made here, so that every one has the same durability and waits the same
time for its turn.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from est_protocol.errors import ConfigurationError
from est_server.journal import Chain
from est_server.stores.schema import MIGRATIONS, Dialect, Migration
from est_server.stores.seals import NO_SEALS, Seals
from est_server.stores.transaction import Value

#: "ESTS": marks the file as this program's (SQLite file format section 1.3.12).
APPLICATION_ID = 0x45535453

_PAGE_OCTETS = 4096

#: How often to look whether it is one's turn to write: that of another process is some milliseconds
#: long. With 0.002 two busy workers do 3 % less.
_TURN_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """Bounds and times of an SQLite file."""

    busy_timeout: timedelta = timedelta(seconds=5)
    """How long to wait for another process's transaction before the store is unavailable."""

    read_timeout: timedelta = timedelta(milliseconds=100)
    """The same for reads, which run on the event loop; WAL readers wait only in rare moments."""

    max_octets: int = 64 * 2**30
    """Size of the database file; beyond it writes are refused."""

    integrity_check: bool = True
    """Whether opening reads the whole file to find damage: 0.3 s for a million devices."""


def prepare(
    path: Path, options: SqliteOptions, migrations: Sequence[Migration] = MIGRATIONS
) -> None:
    """Make the database if it is not there, check it, and bring its schema up to date.

    :raises ConfigurationError: the file is not this program's, is newer than this program, is
        damaged, can be read by others, or cannot be made.
    """
    try:
        _make_private(path)
        with closing(connect(path, options)) as db:
            # In one transaction, or another process that makes the schema at this very moment is
            # seen half way.
            db.execute("BEGIN")
            _check_identity(db, path, newest=len(migrations))
            db.execute("COMMIT")
            _use_wal(db, options.busy_timeout)
            if options.integrity_check:
                _check_integrity(db, path)
            _migrate(db, path, migrations)
    except sqlite3.OperationalError as error:
        raise ConfigurationError(f"cannot open the store {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(f"the store {path} is damaged or no store: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"cannot open the store {path}: {error.strerror}") from error


def require_there(path: Path) -> None:
    """Check that there is a file: a command that makes one would speak of an empty store.

    :raises ConfigurationError: there is none.
    """
    if not path.exists():
        raise ConfigurationError(
            f"there is no store {path}; `est-server serve` or `devices import` makes one"
        )


def require_ready(path: Path, options: SqliteOptions) -> None:
    """Check that :func:`prepare` would have nothing to do.

    :raises ConfigurationError: there is no such file, or its schema is not up to date; else as
        for :func:`prepare`.
    """
    require_there(path)
    _require_private(path)
    try:
        with closing(connect(path, options, read_only=True)) as db:
            _check_identity(db, path, newest=len(MIGRATIONS))
            version = _pragma(db, "user_version")
            if options.integrity_check:
                _check_integrity(db, path)
    except sqlite3.OperationalError as error:
        raise ConfigurationError(f"cannot open the store {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(f"the store {path} is damaged or no store: {error}") from error
    if version < len(MIGRATIONS):
        raise ConfigurationError(
            f"the store {path} is of version {version} and not brought up to "
            f"{len(MIGRATIONS)} here: start the server first"
        )


class Connection(sqlite3.Connection):
    """A connection whose transactions are begun by hand."""

    seals: Seals = NO_SEALS
    journal_head: Chain | None = None
    patience: timedelta = timedelta()

    def begin(self) -> None:
        """Begin a transaction that may write: the only one, over all processes."""
        deadline = time.monotonic() + self.patience.total_seconds()
        while True:
            try:
                return self._begin()
            except sqlite3.OperationalError as error:
                if not _is_locked(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_TURN_SECONDS)

    def begin_at_once(self) -> bool:
        """The same if nobody else has such a transaction; whether it is begun."""
        try:
            self._begin()
        except sqlite3.OperationalError as error:
            if not _is_locked(error):
                raise
            return False
        return True

    def _begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")
        self.journal_head = None

    def insert(self, sql: str, parameters: Sequence[Value], /, *, numbered: str) -> int:
        """Insert one row; the number that the database gave it.

        :param numbered: the column that gets the number: the table's INTEGER PRIMARY KEY.
        """
        # Not by RETURNING: with it SQLite 3.40 searches all that could refer to the row, be it
        # new, and goes through all requests for approval to do so.
        number = self.execute(sql, parameters).lastrowid
        assert number is not None
        return number


def connect(
    path: Path, options: SqliteOptions, *, seals: Seals = NO_SEALS, read_only: bool = False
) -> Connection:
    """A connection to the existing file at ``path``.

    The caller keeps it to one thread at a time.

    :param seals: what its rows are sealed with.
    """
    # mode=rw: a file that vanished must be an error, not a new and empty ledger. A reader must
    # be able to make the WAL index too, so it is not opened read-only but told not to write.
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
    )
    db.seals = seals
    try:
        timeout = options.read_timeout if read_only else options.busy_timeout
        db.execute(f"PRAGMA busy_timeout = {int(timeout / timedelta(milliseconds=1))}")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute(f"PRAGMA max_page_count = {options.max_octets // _PAGE_OCTETS}")
        if read_only:
            db.execute("PRAGMA query_only = ON")
    except BaseException:
        db.close()
        raise
    return db


def connect_writer(path: Path, options: SqliteOptions, *, seals: Seals = NO_SEALS) -> Connection:
    """The same for many short transactions, in which nothing but their beginning may wait."""
    db = connect(path, options, seals=seals)
    # SQLite itself would wait on the event loop too, and looks but every 100 ms in the end.
    db.patience = options.busy_timeout
    db.execute("PRAGMA busy_timeout = 0")
    # What a savepoint may have to undo would else go through a file: 80 us of an enrollment.
    db.execute("PRAGMA temp_store = MEMORY")
    return db


def _is_locked(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _make_private(path: Path) -> None:
    try:
        # SQLite gives the WAL and its index the mode of the database.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        _require_private(path)


def _require_private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(
            f"the store {path} is open to others (mode {mode:04o}); run: chmod 600 {path}"
        )


def _check_identity(db: sqlite3.Connection, path: Path, newest: int) -> None:
    application = _pragma(db, "application_id")
    version = _pragma(db, "user_version")
    if application == APPLICATION_ID:
        if version > newest:
            raise ConfigurationError(
                f"the store {path} has schema version {version}; this program knows {newest}: "
                "run the newer program"
            )
        return
    tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application or version or tables:
        raise ConfigurationError(f"{path} is the database of another program")


def _use_wal(db: sqlite3.Connection, patience: timedelta) -> None:
    # SQLite does not call the busy handler while it changes the journal mode, so two processes
    # that open a new store at the same moment must wait for each other here.
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise sqlite3.OperationalError(f"the file system allows journal mode {mode} only")
        return


def _check_integrity(db: sqlite3.Connection, path: Path) -> None:
    finding = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise ConfigurationError(f"the store {path} is damaged: {finding}")


def _migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    # Another process may have migrated while this one waited for its turn, so the version is
    # read inside the transaction. A table to which others refer can be replaced only while the
    # references are not watched; they are checked at the end instead.
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("BEGIN IMMEDIATE")
    try:
        _check_identity(db, path, newest=len(migrations))
        done = _pragma(db, "user_version")
        for version, migration in enumerate(migrations[done:], start=done + 1):
            for statement in migration.for_dialect(Dialect.SQLITE):
                db.execute(statement)
            db.execute(
                "INSERT INTO migrations (version, name, applied_at) VALUES (?, ?, ?)",
                (version, migration.name, time.time_ns() // 1000),
            )
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(migrations)}")
        if done < len(migrations) and db.execute("PRAGMA foreign_key_check").fetchone():
            raise ConfigurationError(f"the store {path} is damaged: a reference leads nowhere")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
