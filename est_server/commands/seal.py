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
"est-server devices verify --lists". All rows are sealed in one transaction, or none.""",
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
    previous = Seals(options.previous_key and IntegrityKey.read(options.previous_key))
    if options.new_key:
        _make_key(key_file)
    seals = Seals(load_integrity_key(config))
    with open_alone(settings.location, settings.sqlite, settings.postgresql, seals) as store:
        count = seal_store(store.transaction, previous, datetime.now(UTC), progress=_report)
        store.commit()
    print(f"sealed {count} devices with {key_file}")
    return 0


def _make_key(path: Path) -> None:
    try:
        IntegrityKey.generate().write(path)
    except FileExistsError:
        raise ConfigurationError(f"{path} is there already; leave out --new-key") from None


def _report(count: int) -> None:
    if count % _REPORT_EVERY == 0:
        print(f"{count} devices", file=sys.stderr, flush=True)
