"""Connections to PostgreSQL, and transactions over them in the words of the rules."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import psycopg
from psycopg import Connection, Cursor
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from est_server.journal import Chain
from est_server.stores.postgresql.address import PostgresqlAddress
from est_server.stores.postgresql.options import PostgresqlOptions
from est_server.stores.postgresql.watchdog import Watchdog
from est_server.stores.seals import NO_SEALS, Seals
from est_server.stores.transaction import Value

#: One lock for all writers of a database; the first number is "ESTS".
WRITE_LOCK = (0x45535453, 1)

#: Whoever may write holds this one, shared, as long as it is connected; a copy holds it alone.
USE_LOCK = (WRITE_LOCK[0], 2)

#: Each statement must see what was committed before it, not before the lock was waited for; so
#: the isolation level is not left to the database's configuration.
_BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
    f"SELECT pg_advisory_xact_lock({WRITE_LOCK[0]}, {WRITE_LOCK[1]}); "
    "SELECT clock_timestamp()"
).encode()

#: What a COMMIT reports must be on disk, and on the standbys where the database has such.
_DURABLE = """CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN 'on'
              ELSE current_setting('synchronous_commit') END"""

_SETTINGS = f"""
SELECT set_config('TimeZone', 'UTC', false),
       set_config('synchronous_commit', {_DURABLE}, false),
       set_config('default_transaction_read_only', %s, false),
       set_config('statement_timeout', %s, false),
       set_config('lock_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false)
""".encode()


class Connector:
    """Makes connections; after a failure it pauses, so that each caller is refused at once.

    :param address: the database.
    :param options: bounds and times.
    :param watchdog: cuts them when the database does not answer.
    :param exclusive: only if nobody else can write, and nobody else can meanwhile.
    """

    def __init__(
        self,
        address: PostgresqlAddress,
        options: PostgresqlOptions,
        watchdog: Watchdog,
        *,
        exclusive: bool = False,
    ) -> None:
        self._address = address
        self._options = options
        self._watchdog = watchdog
        self._exclusive = exclusive
        self._lock = threading.Lock()
        self._paused_until = -1.0
        self._failure = ""

    def writing(self) -> Connection[TupleRow]:
        """A connection that may write."""
        return self._connect("off")

    def reading(self) -> Connection[TupleRow]:
        """A connection on which nothing can be written."""
        return self._connect("on")

    def _connect(self, read_only: str) -> Connection[TupleRow]:
        with self._lock:
            if time.monotonic() < self._paused_until:
                raise psycopg.OperationalError(self._failure)
        try:
            return self._connect_now(read_only)
        except psycopg.Error as error:
            with self._lock:
                self._failure = str(error)
                pause = self._options.reconnect_pause.total_seconds()
                self._paused_until = time.monotonic() + pause
            raise

    def _connect_now(self, read_only: str) -> Connection[TupleRow]:
        connection = psycopg.connect(make_conninfo(**self._parameters()), autocommit=True)
        try:
            with self._watchdog.watching(connection, self._watchdog.patience):
                self._set_up(connection, read_only)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: Connection[TupleRow], read_only: str) -> None:
        options = self._options
        connection.execute(
            _SETTINGS,
            (
                read_only,
                _milliseconds(options.statement_timeout),
                _milliseconds(options.lock_timeout),
                _milliseconds(options.idle_in_transaction_timeout),
            ),
        )
        if read_only == "off":
            self._take_use_lock(connection)

    def _take_use_lock(self, connection: Connection[TupleRow]) -> None:
        if self._exclusive:
            try:
                # Those that were closed a moment ago may hold it still, so it is waited for.
                connection.execute("SELECT pg_advisory_lock(%s, %s)", USE_LOCK)
            except psycopg.errors.LockNotAvailable:
                raise psycopg.OperationalError("a server has it open; stop it first") from None
            return
        query = "SELECT pg_try_advisory_lock_shared(%s, %s)"
        if connection.execute(query, USE_LOCK).fetchone() != (True,):
            raise psycopg.OperationalError("it is being copied")

    def _parameters(self) -> dict[str, str]:
        silence = int(self._options.answer_timeout.total_seconds())
        defaults = {
            "application_name": "est-server",
            "connect_timeout": str(int(self._options.connect_timeout.total_seconds())),
            # Even reads go to the server that is written to: a standby lags behind, and would
            # not know yet of a certificate that was revoked.
            "target_session_attrs": "read-write",
            "keepalives_idle": str(max(1, silence // 3)),
            "keepalives_interval": str(max(1, silence // 6)),
            "keepalives_count": "3",
            "tcp_user_timeout": str(silence * 1000),
        }
        return {**defaults, **self._address.parameters(), "client_encoding": "UTF8"}


class PostgresqlSession:
    """A connection as the rules and the group writer use it.

    Implements :class:`~est_server.stores.engine.Session`.

    :param connect: makes a connection; called again by :meth:`begin` if it was lost since.
    :param watchdog: cuts it when the database does not answer.
    :param seals: what its rows are sealed with.
    """

    def __init__(
        self,
        connect: Callable[[], Connection[TupleRow]],
        watchdog: Watchdog,
        seals: Seals = NO_SEALS,
    ) -> None:
        self.seals = seals
        self.journal_head: Chain | None = None
        self._connect = connect
        self._watchdog = watchdog
        self._patience = watchdog.patience
        self._connection = connect()
        self._moment: datetime | None = None

    @property
    def moment(self) -> datetime:
        """When the transaction began to write, by the database's clock; now, for a reader."""
        if self._moment is not None:
            return self._moment
        row = self.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        moment: datetime = row[0]
        return moment.astimezone(UTC)

    @property
    def connection(self) -> Connection[TupleRow]:
        """For what the rules have no words for."""
        return self._connection

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it one that has failed."""
        status = self._connection.info.transaction_status
        return status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    @property
    def is_lost(self) -> bool:
        """Whether the connection is of no more use."""
        return self._connection.closed

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Cursor[TupleRow]:
        """Run one statement with ``?`` for each value."""
        with self.answering():
            if not parameters:
                return self._connection.execute(sql.encode())
            return self._connection.execute(_translated(sql), parameters)

    def insert(self, sql: str, parameters: Sequence[Value], /, *, numbered: str) -> int:
        """Insert one row; the number that the database gave it, in column ``numbered``."""
        row = self.execute(f"{sql} RETURNING {numbered}", parameters).fetchone()
        assert row is not None
        return int(row[0])

    def answering(self) -> AbstractContextManager[None]:
        """What is done inside of this takes a bounded time."""
        return self._watchdog.watching(self._connection, self._patience)

    def begin(self) -> None:
        """Begin a transaction once it is this session's turn to write."""
        try:
            self._begin()
        except psycopg.OperationalError:
            if not self.is_lost:
                raise
            # It was lost while nobody used it, and nothing was done yet.
            self._connection = self._connect()
            self._begin()

    def begin_at_once(self) -> bool:
        """Nothing is begun: every statement waits for an answer."""
        return False

    def _begin(self) -> None:
        self.journal_head = None
        with self.answering():
            cursor = self._connection.execute(_BEGIN, prepare=False)
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        assert row is not None
        self._moment = row[0].astimezone(UTC)

    def commit(self) -> None:
        """Make the transaction durable."""
        warnings: list[str] = []

        def note(diagnostic: psycopg.errors.Diagnostic) -> None:
            warnings.append(diagnostic.message_primary or "a warning without words")

        self._connection.add_notice_handler(note)
        try:
            status = self.execute("COMMIT").statusmessage
        finally:
            self._connection.remove_notice_handler(note)
        # PostgreSQL answers COMMIT without an error, but with another word, where a statement
        # had failed before, and with a warning, where it gave up waiting for a standby.
        if status != "COMMIT" or warnings:
            raise psycopg.OperationalError(f"COMMIT answered {status}: {'; '.join(warnings)}")

    def take_longer(self, time_out: timedelta) -> None:
        """Let statements of the open transaction, or all if there is none, take so long."""
        self._patience = max(self._patience, time_out.total_seconds())
        local = "true" if self.in_transaction else "false"
        self.execute(
            f"SELECT set_config('statement_timeout', ?, {local})", (_milliseconds(time_out),)
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def describe(error: Exception) -> str:
    """An error of PostgreSQL or libpq in one line: never a password, no values but keys."""
    name = getattr(error, "sqlstate", None) or type(error).__name__
    return f"{' '.join(str(error).split())} ({name})"


def _milliseconds(time: timedelta) -> str:
    return str(max(1, time // timedelta(milliseconds=1)))


@lru_cache(maxsize=512)
def _translated(sql: str) -> bytes:
    return sql.replace("%", "%%").replace("?", "%s").encode()
