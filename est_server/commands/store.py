"""``est-server store``: the store as a whole."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from est_protocol.errors import ConfigurationError
from est_server.commands.options import OneLineParser, add_command
from est_server.config import load_config
from est_server.stores.copying import copy_store
from est_server.stores.opening import Location
from est_server.stores.postgresql import PostgresqlAddress


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    parser = commands.add_parser("store", help="move from one database to another")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    copy = add_command(
        subcommands,
        "copy",
        _copy,
        help="copy everything to another store, which must be empty",
        example="est-server store copy --to postgresql://est@db.example.com/est "
        "--config est/est-server.toml",
        note="""\
Stop all servers of both stores first. Everything is copied in one transaction, or
nothing; the number of rows of each table is compared before it counts. A password
belongs into libpq's password file, not here, where other users can see it.""",
    )
    copy.add_argument(
        "--to",
        type=_location,
        required=True,
        metavar="STORE",
        help="URL of a PostgreSQL database, or path of an SQLite file",
    )


def _location(text: str) -> Location:
    if "://" not in text:
        return Path(text)
    try:
        return PostgresqlAddress(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _copy(options: argparse.Namespace) -> int:
    settings = load_config(options.config).store
    counts = copy_store(
        settings.location,
        options.to,
        sqlite=settings.sqlite,
        postgresql=settings.postgresql,
        progress=_report,
    )
    print(f"copied {sum(counts.values())} rows from {settings.location} to {options.to}")
    return 0


def _report(table: str, count: int) -> None:
    print(f"{table}: {count}", file=sys.stderr, flush=True)
