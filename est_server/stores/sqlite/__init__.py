"""The embedded store: device registry and enrollment ledger in one SQLite file."""

from est_server.stores.sqlite.database import SqliteOptions
from est_server.stores.sqlite.owner import stable_owner
from est_server.stores.sqlite.store import SqliteStore

__all__ = ["SqliteOptions", "SqliteStore", "stable_owner"]
