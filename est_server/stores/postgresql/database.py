"""The database: how it is recognized, and how its tables are made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import psycopg

from est_protocol.errors import ConfigurationError
from est_server.stores.postgresql.address import PostgresqlAddress
from est_server.stores.postgresql.options import PostgresqlOptions
from est_server.stores.postgresql.session import Connector, PostgresqlSession, describe
from est_server.stores.postgresql.watchdog import Watchdog
from est_server.stores.schema import MIGRATIONS, Dialect, Migration
from est_server.stores.seals import NO_SEALS, Seals

#: Marks the tables as this program's: the comment of the table ``migrations``.
IDENTITY = "est-server store"

_OLDEST_SERVER = 130000


def prepare(
    address: PostgresqlAddress,
    options: PostgresqlOptions,
    migrations: Sequence[Migration] = MIGRATIONS,
    *,
    existing: bool = False,
    as_it_is: bool = False,
) -> None:
    """Check the database, and bring its tables up to date.

    :param existing: refuse one without tables.
    :param as_it_is: refuse one that is not up to date instead.
    :raises ConfigurationError: it cannot be reached, is too old, holds tables of another program
        or those of a newer version of this one.
    """
    try:
        with one_session(address, options) as db:
            _check_server(db, address)
            version = _version(db, address, newest=len(migrations))
            if version < len(migrations):
                if as_it_is or (existing and version == 0):
                    raise ConfigurationError(
                        f"there is no store at {address}, or it is not brought up to version "
                        f"{len(migrations)}: start the server first"
                    )
                _migrate(db, address, migrations, options)
    except psycopg.Error as error:
        raise ConfigurationError(f"cannot open the store {address}: {describe(error)}") from error


@contextmanager
def one_session(
    address: PostgresqlAddress, options: PostgresqlOptions, seals: Seals = NO_SEALS
) -> Iterator[PostgresqlSession]:
    """A session for writing that nothing else uses, for as long as the context lasts."""
    with closing(Watchdog(options.answer_timeout.total_seconds())) as watchdog:
        connector = Connector(address, options, watchdog)
        with closing(PostgresqlSession(connector.writing, watchdog, seals)) as db:
            yield db


def _check_server(db: PostgresqlSession, address: PostgresqlAddress) -> None:
    version, encoding, schema = db.execute(
        "SELECT current_setting('server_version_num')::int, "
        "current_setting('server_encoding'), current_schema()"
    ).fetchall()[0]
    if version < _OLDEST_SERVER:
        raise ConfigurationError(f"{address}: PostgreSQL 13 or later is needed, not {version}")
    if encoding != "UTF8":
        raise ConfigurationError(f"{address}: the database's encoding is {encoding}, not UTF8")
    if schema is None:
        raise ConfigurationError(f"{address}: no schema of the search_path exists")


def _version(db: PostgresqlSession, address: PostgresqlAddress, newest: int) -> int:
    tables = db.execute(
        "SELECT c.relname, obj_description(c.oid) FROM pg_class c "
        "WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')"
    ).fetchall()
    if not tables:
        return 0
    if ("migrations", IDENTITY) not in tables:
        raise ConfigurationError(
            f"{address} has tables of another program: give the store a database of its own"
        )
    version = int(db.execute("SELECT max(version) FROM migrations").fetchall()[0][0])
    if version > newest:
        raise ConfigurationError(
            f"the store {address} has schema version {version}; this program knows {newest}: "
            "run the newer program"
        )
    return version


def _migrate(
    db: PostgresqlSession,
    address: PostgresqlAddress,
    migrations: Sequence[Migration],
    options: PostgresqlOptions,
) -> None:
    # Another server may have migrated while this one waited for its turn, so the version is read
    # inside the transaction.
    db.begin()
    db.take_longer(options.bulk_timeout)
    done = _version(db, address, newest=len(migrations))
    for version, migration in enumerate(migrations[done:], start=done + 1):
        for statement in migration.for_dialect(Dialect.POSTGRESQL):
            db.execute(statement)
        db.execute(
            "INSERT INTO migrations (version, name, applied_at) VALUES (?, ?, ?)",
            (version, migration.name, time.time_ns() // 1000),
        )
    db.execute(f"COMMENT ON TABLE migrations IS '{IDENTITY}'")
    db.commit()
