"""The embedded store: device registry and enrollment ledger in one SQLite file."""

from est_server.stores.sqlite.database import StoreOptions
from est_server.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore", "StoreOptions"]
