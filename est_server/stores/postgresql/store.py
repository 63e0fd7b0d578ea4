"""How a store on PostgreSQL is opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import psycopg

from est_protocol.errors import ConfigurationError
from est_server.interfaces import Clock
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.options import StoreOptions
from est_server.stores.postgresql import database
from est_server.stores.postgresql.address import PostgresqlAddress
from est_server.stores.postgresql.engine import PostgresqlEngine
from est_server.stores.postgresql.options import PostgresqlOptions
from est_server.stores.postgresql.session import PostgresqlSession, describe
from est_server.stores.sealing import require_key
from est_server.stores.seals import Seals
from est_server.stores.store import Store
from est_server.stores.transaction import Transaction


class PostgresqlStore(Store):
    """A store in one PostgreSQL database, which servers on any number of machines may share."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        address: PostgresqlAddress,
        *,
        clock: Clock | None = None,
        options: StoreOptions | None = None,
        postgresql: PostgresqlOptions | None = None,
        owner: str | None = None,
        integrity_key: IntegrityKey | None = None,
        existing: bool = False,
        as_it_is: bool = False,
    ) -> AsyncIterator[PostgresqlStore]:
        """Open the store, making its tables if they are not there.

        Leaving the context carries out the writes that wait, then closes the connections.

        :param address: the database.
        :param clock: measures leases and tells whether a certificate or secret has expired; left
            out, it is the database's clock, the only one that all machines share.
        :param options: bounds of any store.
        :param postgresql: bounds of the connections.
        :param owner: see :class:`~est_server.stores.store.Store`.
        :param integrity_key: seals the rows; all servers of the database have the same. Without
            it, whoever writes the database can add devices.
        :param existing: make no tables where there are none, but refuse such databases.
        :param as_it_is: make no tables, and bring none up to date, but refuse such databases.
        :raises ConfigurationError: the database cannot be reached, is too old, holds tables of
            another program or of a newer version of this one, or is not sealed with this key.
        """
        postgresql = postgresql or PostgresqlOptions()
        address.warn_of_weakness()
        seals = Seals(integrity_key)
        await asyncio.to_thread(_prepare, address, postgresql, seals, clock, existing, as_it_is)
        store = cls(
            PostgresqlEngine(address, postgresql, seals),
            moment=_moment if clock is None else lambda _: clock.now(),
            options=options or StoreOptions(),
            owner=owner,
        )
        try:
            yield store
        finally:
            await store.close()


def _prepare(
    address: PostgresqlAddress,
    options: PostgresqlOptions,
    seals: Seals,
    clock: Clock | None,
    existing: bool,
    as_it_is: bool,
) -> None:
    database.prepare(address, options, existing=existing, as_it_is=as_it_is)
    try:
        with database.one_session(address, options, seals) as db:
            db.begin()
            require_key(db, db.moment if clock is None else clock.now())
            db.commit()
    except psycopg.Error as error:
        raise ConfigurationError(f"cannot open the store {address}: {describe(error)}") from error


def _moment(db: Transaction) -> datetime:
    assert isinstance(db, PostgresqlSession)
    return db.moment
