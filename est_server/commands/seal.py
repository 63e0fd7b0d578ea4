"""``est-server devices seal``: seal the rows of a store with the integrity key."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from est_protocol.errors import ConfigurationError
from est_server.assembly import load_integrity_key
from est_server.commands.options import OneLineParser, add_command
from est_server.config import load_config
from est_server.stores.copying import open_alone
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.sealing import seal_store
from est_server.stores.seals import Seals

_REPORT_EVERY = 100_000


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "seal",
        _run,
        help="seal a store that is not sealed yet, or with another key",
        example="est-server devices seal --new-key --config est/est-server.toml",
        note="""\
Stop all servers of the store first. Whatever is in a store that is not sealed yet is
taken for what it should be: compare it with the signed lists before, by
"est-server devices verify --lists". A store that an earlier version sealed is sealed
anew with --previous-key naming the same key; what that version did not seal is then
taken for what it should be. All rows are sealed in one transaction, or none. If it was
interrupted with --new-key and the key is there, give the same command without --new-key; where
that says that the store is sealed with another key, all was done.""",
    )
    parser.add_argument(
        "--new-key",
        action="store_true",
        help="make the key that [store] integrity_key names; its file must not be there",
    )
    parser.add_argument(
        "--previous-key",
        type=Path,
        metavar="FILE",
        help="the key that the rows are sealed with so far",
    )


def _run(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    settings = config.store
    key_file = config.integrity_key
    if key_file is None:
        raise ConfigurationError(f"{config.file}: [store]: take out unsealed = true first")
    if options.new_key and key_file.exists():
        raise _is_there(key_file)
    previous = Seals(options.previous_key and IntegrityKey.read(options.previous_key))
    key = IntegrityKey.generate() if options.new_key else load_integrity_key(config)
    with open_alone(settings.location, settings.sqlite, settings.postgresql, Seals(key)) as store:
        count = seal_store(store.transaction, previous, datetime.now(UTC), progress=_report)
        if options.new_key and key is not None:
            # After all that can be refused, so that a failure leaves no key that is nobody's. Yet
            # before the commit, whoever may be killed in between: a key that nothing is sealed with
            # is taken by the same command without --new-key, while rows that are sealed with a key
            # that is lost are lost too. A commit that fails leaves it there for the same reason:
            # nobody knows whether a database that went away has carried it out.
            _write(key, key_file)
        store.commit()
    print(f"sealed {count} devices with {key_file}")
    return 0


def _write(key: IntegrityKey, path: Path) -> None:
    try:
        key.write(path)
    except FileExistsError:
        raise _is_there(path) from None


def _is_there(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} is there already; leave out --new-key")


def _report(count: int) -> None:
    if count % _REPORT_EVERY == 0:
        print(f"{count} devices", file=sys.stderr, flush=True)
