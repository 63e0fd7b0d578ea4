"""``est-server devices import`` and ``devices lists``: device lists come in."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from est_protocol.errors import ConfigurationError
from est_server.assembly import open_store
from est_server.commands.options import OneLineParser, add_command
from est_server.commands.progress import progress_of
from est_server.config import ServerConfig, load_config
from est_server.devices.importer import (
    ImportReport,
    ImportRules,
    ListFile,
    import_list,
)
from est_server.devices.list_format import RejectedRow
from est_server.devices.refusals import ListRefused, NotSigned, SignatureRejected
from est_server.devices.signatures.detached import (
    MAX_OCTETS,
    DetachedSignature,
    read_signature,
)
from est_server.list_signers import load_list_signers

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def add_to(subcommands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    parser = add_command(
        subcommands,
        "import",
        _import,
        help="add the devices of a signed list to the registry",
        example="est-server devices import devices.csv --signature devices.csv.p7s "
        "--config est/est-server.toml",
        note="""\
The signature has to be by one of the [[list_signers]] of the configuration. FILE is read
once; a list is imported as a whole or not at all: nothing is, if its signature does not
verify or a row is no good. Rows that contradict devices that are listed already, or
earlier rows, are reported and left out; the exit status is 1 if any was.""",
    )
    parser.add_argument("file", metavar="FILE", help="the list, - for standard input")
    parser.add_argument(
        "--signature",
        type=Path,
        metavar="FILE",
        help="detached signature over FILE: CMS (DER or PEM) or JWS",
    )
    add_format(parser)
    parser.add_argument(
        "--list-id",
        metavar="ID",
        help="what to call the list (default: its signer and its digest)",
    )
    parser.add_argument(
        "--allow-unsigned",
        action="store_true",
        help="take a list without a signature, if the configuration has allow_unsigned",
    )
    parser.add_argument(
        "--leave-out-bad-rows",
        action="store_true",
        help="import the good rows of a list that has bad ones",
    )
    add_command(
        subcommands,
        "lists",
        _lists,
        help="show the lists that were imported: id, devices, signer, dates, digest",
        example="est-server devices lists --config est/est-server.toml",
    )


def add_format(parser: OneLineParser) -> None:
    """Add ``--format``."""
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="csv, jsonl, microchip-manifest or one that is installed (default: as FILE begins)",
    )


def _import(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    rules = _rules(config, options)
    if options.list_id is not None and not _ID.fullmatch(options.list_id):
        raise ConfigurationError("a list's id is 1 to 128 letters, digits and . _ : -")
    with open_list(options.file) as file:
        given = ListFile(file, options.format, _signature(options.signature), options.list_id)
        try:
            report = asyncio.run(_import_into(config, given, rules))
        except NotSigned as refused:
            raise SignatureRejected(
                f"{refused}: give --signature FILE, or for a first try --allow-unsigned where the "
                "configuration has allow_unsigned"
            ) from refused
        except ListRefused as refused:
            print_rejections(refused.rejections)
            raise
    print_rejections(report.rejections, report.rejected)
    print(f"list {report.description.list_id}")
    print(f"added {report.added}, unchanged {report.unchanged}, rejected {report.rejected}")
    return 1 if report.rejected else 0


def _rules(config: ServerConfig, options: argparse.Namespace) -> ImportRules:
    if options.allow_unsigned and not config.devices.allow_unsigned:
        raise ConfigurationError(
            f"{config.file}: [devices] allow_unsigned is not on, so --allow-unsigned is refused"
        )
    return ImportRules(
        signers=load_list_signers(config),
        allow_unsigned=options.allow_unsigned,
        leave_out_bad_rows=options.leave_out_bad_rows,
        limits=config.devices.limits,
    )


async def _import_into(config: ServerConfig, given: ListFile, rules: ImportRules) -> ImportReport:
    async with open_store(config) as store:
        with progress_of(given.file, sys.stderr) as progress:
            return await import_list(store, given, rules, datetime.now(UTC), progress=progress)


def _signature(path: Path | None) -> DetachedSignature | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return read_signature(file.read(MAX_OCTETS + 1))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


@contextmanager
def open_list(name: str) -> Iterator[BinaryIO]:
    """Open a list to be read once; ``-`` is standard input.

    :raises ConfigurationError: it cannot be opened.
    """
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")
    except OSError as error:
        raise ConfigurationError(f"{name}: {error.strerror}") from error
    with file:
        yield file


def print_rejections(rejections: Iterable[RejectedRow], count: int = 0) -> None:
    """Print rows that were rejected, one per line.

    :param count: how many there are in all.
    """
    for rejection in rejections:
        print(f"line {rejection.line}: {rejection.reason}")
        count -= 1
    if count > 0:
        print(f"and {count} more lines")


def _lists(options: argparse.Namespace) -> int:
    asyncio.run(_print_lists(load_config(options.config)))
    return 0


async def _print_lists(config: ServerConfig) -> None:
    async with open_store(config, as_it_is=True) as store:
        for listed in await store.lists():
            description = listed.description
            signed_at = description.signed_at
            print(
                f"{description.list_id}  {listed.devices} devices"
                f"  signer {description.signer or '-'}"
                f"  signed {f'{signed_at:%Y-%m-%dT%H:%M:%SZ}' if signed_at else '-'}"
                f"  imported {listed.imported_at:%Y-%m-%dT%H:%M:%SZ}"
                f"  sha256 {description.sha256.hex()}"
            )
