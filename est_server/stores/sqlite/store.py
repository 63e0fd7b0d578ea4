"""How a store on an SQLite file is opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from est_server.interfaces import Clock
from est_server.stores.options import StoreOptions
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
    ) -> AsyncIterator[SqliteStore]:
        """Open the store, making the file (mode 0600) if it is not there.

        Leaving the context carries out the writes that wait, then closes the file.

        :param clock: the machine's clock, which all processes on the file share.
        :param options: bounds of any store.
        :param sqlite: bounds of the file.
        :param owner: see :class:`~est_server.stores.store.Store`.
        :raises ConfigurationError: the file is not this program's, is newer than this program,
            is damaged, can be read by others, or cannot be made.
        """
        sqlite = sqlite or SqliteOptions()
        await asyncio.to_thread(database.prepare, path, sqlite)
        store = cls(
            SqliteEngine(path, sqlite),
            moment=lambda _: clock.now(),
            options=options or StoreOptions(),
            owner=owner,
        )
        try:
            yield store
        finally:
            await store.close()
