"""SQLite as the database of a store."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from est_server.device_records import ListDescription, ListImport, ListRow
from est_server.stores.engine import Session, unavailable
from est_server.stores.seals import NO_SEALS, Seals
from est_server.stores.sqlite import database, list_import
from est_server.stores.sqlite.database import SqliteOptions
from est_server.stores.transaction import Transaction

T = TypeVar("T")

#: Seconds for which reads do not look whether the file was replaced. To look takes 1.5 to 3 us, and
#: a lookup 6 to 16; the time of day takes 0.1 us.
LOOK_EVERY = 0.1

#: Tells one file from another: its device and inode.
_FileId = tuple[int, int]


class SqliteEngine:
    """One SQLite file, which :func:`~est_server.stores.sqlite.database.prepare` made ready.

    Implements :class:`~est_server.stores.engine.Engine`.

    :param path: the file.
    :param options: its bounds.
    :param seals: what its rows are sealed with.
    """

    def __init__(self, path: Path, options: SqliteOptions, seals: Seals = NO_SEALS) -> None:
        self._seals = seals
        self._path = path
        self._options = options
        self._written: _FileId | None = None
        self._reader: database.Connection | None = None
        self._read: _FileId | None = None
        self._look_again_at = 0.0

    def is_outage(self, error: Exception) -> bool:
        """Whether the file, the disk or a lock failed."""
        if isinstance(error, sqlite3.IntegrityError):
            return False
        return isinstance(error, (sqlite3.Error, OSError))

    def describe(self, error: Exception) -> str:
        """The error with its SQLite name."""
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return f"{error} ({name})"

    def writer(self, current: Session | None) -> Session:
        """A connection to the file that is at the path now.

        A file that was moved away or replaced is noticed here; transactions would otherwise be
        committed to where nobody finds them.
        """
        file = self._file()
        if current is not None and file == self._written:
            return current
        if current is not None:
            current.close()
        session = database.connect_writer(self._path, self._options, seals=self._seals)
        self._written = file
        # What is written now is to be read.
        self._look_again_at = 0.0
        return session

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run a query that only reads."""
        # On the event loop: a lookup takes 6 to 16 us among 100,000 to a million devices, where
        # handing it to a thread and back takes 85 to 100 us (measured).
        try:
            return query(self._reading())
        except (sqlite3.Error, OSError) as error:
            await self.close()
            raise unavailable(str(error)) from error

    def _reading(self) -> database.Connection:
        """A connection to the file that is at the path, or was a moment ago."""
        now = time.monotonic()
        if self._reader is not None and now < self._look_again_at:
            return self._reader
        file = self._file()
        if self._reader is not None and file != self._read:
            self._reader.close()
            self._reader = None
        if self._reader is None:
            self._reader = self._connect(read_only=True)
        self._read, self._look_again_at = file, now + LOOK_EVERY
        return self._reader

    def _file(self) -> _FileId:
        found = os.stat(self._path)
        return found.st_dev, found.st_ino

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """A reading transaction over a connection of its own."""
        try:
            with closing(self._connect(read_only=True)) as db:
                db.execute("BEGIN")
                yield db
        except sqlite3.Error as error:
            raise unavailable(str(error)) from error

    def import_rows(
        self,
        rows: Iterable[ListRow],
        describe: Callable[[], ListDescription],
        now: datetime,
        *,
        reported: int,
    ) -> ListImport:
        """Add a whole list over a connection of its own.

        The part in which other writes wait was measured as 0.6 s for 100,000 rows and 10 s for a
        million.
        """
        try:
            with closing(self._connect()) as db:
                return list_import.import_rows(db, rows, describe, now, reported=reported)
        except sqlite3.Error as error:
            raise unavailable(str(error)) from error

    def _connect(self, *, read_only: bool = False) -> database.Connection:
        return database.connect(self._path, self._options, seals=self._seals, read_only=read_only)

    async def close(self) -> None:
        """Close the connection of reads."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
