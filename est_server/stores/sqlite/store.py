"""How a store on an SQLite file is opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path

from est_server.interfaces import Clock
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.options import StoreOptions
from est_server.stores.sealing import require_key
from est_server.stores.seals import Seals
from est_server.stores.sqlite import database
from est_server.stores.sqlite.database import SqliteOptions
from est_server.stores.sqlite.engine import SqliteEngine
from est_server.stores.store import Store


class SqliteStore(Store):
    """A store on one SQLite file, which any number of processes of one machine may have open."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock,
        options: StoreOptions | None = None,
        sqlite: SqliteOptions | None = None,
        owner: str | None = None,
        integrity_key: IntegrityKey | None = None,
        existing: bool = False,
        as_it_is: bool = False,
    ) -> AsyncIterator[SqliteStore]:
        """Open the store, making the file (mode 0600) if it is not there.

        Leaving the context carries out the writes that wait, then closes the file.

        :param clock: the machine's clock, which all processes on the file share.
        :param options: bounds of any store.
        :param sqlite: bounds of the file.
        :param owner: see :class:`~est_server.stores.store.Store`.
        :param integrity_key: seals the rows; without it, whoever writes the file can add devices.
        :param existing: make no file, but refuse one that is not there.
        :param as_it_is: make no file, and bring none up to date, but refuse such ones.
        :raises ConfigurationError: the file is not this program's, is newer than this program,
            is damaged, can be read by others, cannot be made, or is not sealed with this key.
        """
        sqlite = sqlite or SqliteOptions()
        seals = Seals(integrity_key)
        await asyncio.to_thread(_prepare, path, sqlite, seals, clock.now(), existing, as_it_is)
        store = cls(
            SqliteEngine(path, sqlite, seals),
            moment=lambda _: clock.now(),
            options=options or StoreOptions(),
            owner=owner,
        )
        try:
            yield store
        finally:
            await store.close()


def _prepare(
    path: Path,
    options: SqliteOptions,
    seals: Seals,
    now: datetime,
    existing: bool,
    as_it_is: bool,
) -> None:
    if existing:
        database.require_there(path)
    if as_it_is:
        database.require_ready(path, options)
    else:
        database.prepare(path, options)
    with closing(database.connect(path, options, seals=seals)) as db:
        db.begin()
        require_key(db, now)
        db.commit()
