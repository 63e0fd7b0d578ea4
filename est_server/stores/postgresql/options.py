"""Bounds and times of a store on PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class PostgresqlOptions:
    """Bounds and times of a store on PostgreSQL."""

    connect_timeout: timedelta = timedelta(seconds=5)
    """How long to wait for a connection, in whole seconds from 2 on; for each host of the URL."""

    reconnect_pause: timedelta = timedelta(seconds=1)
    """How long requests are refused at once after a connection could not be made."""

    lock_timeout: timedelta = timedelta(seconds=5)
    """How long to wait for the turn to write, which all servers take one after the other."""

    statement_timeout: timedelta = timedelta(seconds=10)
    """How long the database may take for one statement, waiting for its turn included. Must be
    longer than ``lock_timeout``."""

    idle_in_transaction_timeout: timedelta = timedelta(seconds=10)
    """After what silence inside a transaction the database ends it, so that a server that froze
    while it was its turn to write does not stop the others."""

    answer_timeout: timedelta = timedelta(seconds=15)
    """How long to wait for an answer at all; then the connection is cut and made anew. Must be
    longer than the other times."""

    bulk_timeout: timedelta = timedelta(hours=1)
    """How long one statement, and its answer, may take that moves a whole list or store."""

    readers: int = 4
    """Connections for reading, beside the one for writing."""

    max_waiting_reads: int = 1024
    """Reads that wait for a connection; those beyond it are refused."""

    def __post_init__(self) -> None:
        if self.statement_timeout <= self.lock_timeout:
            raise ValueError("statement_timeout must be longer than lock_timeout")
        others = (self.lock_timeout, self.statement_timeout, self.idle_in_transaction_timeout)
        if self.answer_timeout <= max(others):
            raise ValueError(
                "answer_timeout must be longer than lock_timeout, statement_timeout and "
                "idle_in_transaction_timeout"
            )
        if self.connect_timeout < timedelta(seconds=2):
            raise ValueError("connect_timeout must be at least 2 seconds")
