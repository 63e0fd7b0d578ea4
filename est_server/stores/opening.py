"""A store by where it is: a file, or a PostgreSQL database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from est_server.interfaces import Clock
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.options import StoreOptions
from est_server.stores.postgresql import PostgresqlAddress, PostgresqlOptions
from est_server.stores.sqlite import SqliteOptions, SqliteStore, stable_owner
from est_server.stores.store import Store

#: Where a store is.
Location = Path | PostgresqlAddress


@asynccontextmanager
async def open_store(
    location: Location,
    *,
    clock: Clock,
    options: StoreOptions | None = None,
    sqlite: SqliteOptions | None = None,
    postgresql: PostgresqlOptions | None = None,
    integrity_key: IntegrityKey | None = None,
    serves: bool = False,
    existing: bool = False,
    as_it_is: bool = False,
) -> AsyncIterator[Store]:
    """Open the store at ``location``, making its tables if they are not there.

    :param clock: the machine's clock; a store on PostgreSQL goes by the database's instead.
    :param options: bounds of any store.
    :param sqlite: bounds of a file.
    :param postgresql: bounds of the connections to PostgreSQL.
    :param integrity_key: seals the rows; see the stores' ``open``.
    :param serves: whether devices are served with it. The servers of a file have identities in
        the ledger that a restart keeps, so that what a crash left unfinished can be retried at
        once; elsewhere it can be after the lease.
    :param existing: make no store: refuse one that is not there.
    :param as_it_is: make nothing: refuse a store that is not there, or of an older version.
    :raises ConfigurationError: it cannot be opened, or is no store of this version.
    """
    if isinstance(location, PostgresqlAddress):
        # Its libraries are needed by nobody else.
        from est_server.stores.postgresql.store import PostgresqlStore

        async with PostgresqlStore.open(
            location,
            options=options,
            postgresql=postgresql,
            integrity_key=integrity_key,
            existing=existing,
            as_it_is=as_it_is,
        ) as database:
            yield database
        return
    with stable_owner(location) if serves else nullcontext() as owner:
        async with SqliteStore.open(
            location,
            clock=clock,
            options=options,
            sqlite=sqlite,
            owner=owner,
            integrity_key=integrity_key,
            existing=existing,
            as_it_is=as_it_is,
        ) as file:
            yield file
