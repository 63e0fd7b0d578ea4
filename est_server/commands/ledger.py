"""``est-server ledger``: the journal of what happened, to search, to keep and to check."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from est_protocol.errors import ConfigurationError
from est_server.assembly import load_integrity_key, open_store
from est_server.commands.options import OneLineParser, add_command
from est_server.commands.serial_numbers import read_serial_number
from est_server.config import ServerConfig, load_config
from est_server.journal import Entry, JournalBroken, head_line, read_export
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.journal_export import Comparison, check_export
from est_server.stores.rules.journal import Query
from est_server.stores.seals import Seals


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    parser = commands.add_parser("ledger", help="what happened, in a chain that shows changes")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    query = add_command(
        subcommands,
        "query",
        _query,
        help="show what happened to a device, a certificate, under a label or in a time",
        example="est-server ledger query --device sensor-0001 --config est/est-server.toml",
    )
    query.add_argument("--device", metavar="UDID", help="about this device")
    query.add_argument("--serial", metavar="HEX", type=_serial, help="about this certificate")
    query.add_argument("--label", metavar="LABEL", help="under this label, '' for the default")
    query.add_argument("--since", metavar="TIME", type=_time, help="from 2026-07-01[T12:00:00Z] on")
    query.add_argument("--until", metavar="TIME", type=_time, help="before that time")
    query.add_argument("--json", action="store_true", help="one JSON object per line")
    add_command(
        subcommands,
        "export",
        _export,
        help="write all of it as JSON Lines, which can be verified anywhere",
        example="est-server ledger export --config est/est-server.toml > journal.jsonl",
        note="""\
Keep exports where who can write the store cannot: they show later whether anything was
taken away, even by putting back an old copy of the whole store.""",
    )
    verify = add_command(
        subcommands,
        "verify",
        _verify,
        help="check an exported file, and the store against it",
        example="est-server ledger verify journal.jsonl --config est/est-server.toml",
        note="""\
Without --config and --key the file is checked against itself. With a key its codes are
checked too; with --config, that the store still has every entry that is in the file.""",
        config=False,
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="an exported journal")
    source = verify.add_mutually_exclusive_group()
    source.add_argument("--key", type=Path, metavar="FILE", help="the integrity key")
    source.add_argument("--config", type=Path, metavar="FILE", help="the server's est-server.toml")


def _query(options: argparse.Namespace) -> int:
    query = Query(
        device=options.device,
        label=options.label,
        serial=options.serial,
        since=options.since,
        until=options.until,
    )
    asyncio.run(_print_found(load_config(options.config), query, as_json=options.json))
    return 0


async def _print_found(config: ServerConfig, query: Query, *, as_json: bool) -> None:
    async with open_store(config, as_it_is=True) as store:
        async for entry in store.journal(query):
            print(entry.line() if as_json else _words(entry))


def _words(entry: Entry) -> str:
    fields = {
        "device": entry.device,
        "label": entry.label,
        "serial": entry.serial,
        **entry.known,
    }
    said = " ".join(
        f"{name}={value!r}" for name, value in fields.items() if value not in (None, "")
    )
    return f"{entry.moment:%Y-%m-%dT%H:%M:%SZ}  {entry.event:<14}  {said}"


def _export(options: argparse.Namespace) -> int:
    return asyncio.run(_print_all(load_config(options.config)))


async def _print_all(config: ServerConfig) -> int:
    async with open_store(config, as_it_is=True) as store:
        await store.export_journal(
            begin=lambda chain: print(head_line(chain)), tell=lambda entry: print(entry.line())
        )
    return 0


def _verify(options: argparse.Namespace) -> int:
    config = None if options.config is None else load_config(options.config)
    key = load_integrity_key(config) if config else None
    if options.key is not None:
        key = IntegrityKey.read(options.key)
    try:
        with options.file.open(encoding="utf-8") as file:
            count = _check(file, Seals(key), config)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{options.file}: {error}") from error
    except JournalBroken as broken:
        print(f"{options.file}: {broken}")
        return 1
    print(f"{options.file}: {count} entries, in order{_what_was_checked(key, config)}")
    return 0


def _what_was_checked(key: IntegrityKey | None, config: ServerConfig | None) -> str:
    sealed = ", sealed with the key" if key else "; the codes were not checked"
    return sealed + (", and in the store" if config else "")


def _check(file: TextIO, seals: Seals, config: ServerConfig | None) -> int:
    entries = check_export(read_export(_lines(file)), seals)
    if config is None:
        return sum(1 for _ in entries)
    return asyncio.run(_compare(config, entries))


async def _compare(config: ServerConfig, entries: Iterator[Entry]) -> int:
    async with open_store(config, as_it_is=True) as store:
        comparison = Comparison(await store.journal_beginning())
        for entry in entries:
            await comparison.compare(store, entry)
    return comparison.count


#: No entry has a longer line: what comes from outside is cut before it is written.
_LONGEST_LINE = 1_000_000


def _lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise JournalBroken("a line is too long")
        yield line


def _serial(text: str) -> str:
    try:
        return read_serial_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time in ISO 8601") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
