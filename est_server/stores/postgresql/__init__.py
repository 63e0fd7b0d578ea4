"""The store for several machines: device registry and enrollment ledger in PostgreSQL.

What needs psycopg is imported by those who open such a store, so that it is needed only there.
"""

from est_server.stores.postgresql.address import PostgresqlAddress
from est_server.stores.postgresql.options import PostgresqlOptions

__all__ = ["PostgresqlAddress", "PostgresqlOptions"]
