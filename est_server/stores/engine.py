"""What a store asks of a database beside running SQL: connections, reads, whole lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol, TypeVar

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.device_records import ListDescription, ListImport, ListRow
from est_server.stores.transaction import Transaction

T = TypeVar("T")

#: Seconds after which a client may ask again when the store did not answer.
_RETRY_AFTER = 5


def unavailable(detail: str) -> RequestRefused:
    """The refusal for a store that cannot do what it should."""
    return RequestRefused(
        RefusalReason.STORE_UNAVAILABLE,
        "the server cannot reach its records; try again",
        detail=detail,
        retry_after=_RETRY_AFTER,
    )


class Session(Transaction, Protocol):
    """A connection for writing, used by one thread."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; not any more once an error ended it."""
        ...

    def begin(self) -> None:
        """Begin a transaction, as the only one that writes to the database."""
        ...

    def begin_at_once(self) -> bool:
        """The same, if neither it nor any statement but the last, the commit, has to wait.

        :return: whether the transaction is begun.
        """
        ...

    def commit(self) -> None:
        """Make the transaction durable; after an error nobody knows whether it is."""
        ...

    def close(self) -> None:
        """Close the connection, which undoes what is not committed."""
        ...


class Engine(Protocol):
    """One database. Methods that are not coroutines may block, and are called from threads."""

    def is_outage(self, error: Exception) -> bool:
        """Whether the database failed; a violated constraint, for one, is a bug instead."""
        ...

    def writer(self, current: Session | None) -> Session:
        """A session for writing: ``current`` if it is still good, else a new one."""
        ...

    def describe(self, error: Exception) -> str:
        """An error of the database in words for the log; nothing secret."""
        ...

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run a query that only reads.

        :raises RequestRefused: ``STORE_UNAVAILABLE``.
        """
        ...

    def snapshot(self) -> AbstractContextManager[Transaction]:
        """A transaction that only reads, as long as it takes, and sees one moment of the database.

        :raises RequestRefused: ``STORE_UNAVAILABLE``, then or later.
        """
        ...

    def import_rows(
        self,
        rows: Iterable[ListRow],
        describe: Callable[[], ListDescription],
        now: datetime,
        *,
        reported: int,
    ) -> ListImport:
        """See :meth:`est_server.interfaces.DeviceRegistry.import_devices`.

        :param reported: conflicts that are reported one by one.
        """
        ...

    async def close(self) -> None:
        """Close the connections that reads left open."""
        ...
