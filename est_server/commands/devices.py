"""``est-server devices``: the device lists."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from est_protocol.errors import ConfigurationError
from est_server.assembly import open_store
from est_server.commands.options import OneLineParser, add_command
from est_server.config import ServerConfig, load_config
from est_server.devices.csv_list import read_csv
from est_server.devices.importer import ImportReport, import_list


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    parser = commands.add_parser("devices", help="import and look at device lists")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    imports = add_command(
        subcommands,
        "import",
        _import,
        help="add the devices of a CSV file to the registry",
        example="est-server devices import devices.csv --config est/est-server.toml",
        note="""\
The first line of FILE names the columns: udid; public_key (PEM, or base64 of the DER
SubjectPublicKeyInfo) or spki_sha256 (hex) or both; any other column is an attribute of
the device. Bad lines are reported and left out, good lines are added all the same; the
exit status is 1 if any line was left out.""",
    )
    imports.add_argument("file", metavar="FILE", help="CSV file, - for standard input")
    add_command(
        subcommands,
        "list",
        _list,
        help="list all devices: UDID, state, since when",
        example="est-server devices list --config est/est-server.toml",
    )
    show = add_command(
        subcommands,
        "show",
        _show,
        help="show one device",
        example="est-server devices show sensor-0001 --config est/est-server.toml",
    )
    show.add_argument("udid", metavar="UDID", help="the device's unique identifier")


def _import(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    with _list_file(options.file) as file:
        report = asyncio.run(_import_into(config, file))
    for rejection in report.rejections:
        print(f"line {rejection.line}: {rejection.reason}")
    unsaid = report.rejected - len(report.rejections)
    if unsaid:
        print(f"and {unsaid} more lines")
    print(f"added {report.added}, unchanged {report.unchanged}, rejected {report.rejected}")
    return 1 if report.rejected else 0


async def _import_into(config: ServerConfig, file: BinaryIO) -> ImportReport:
    async with open_store(config) as store:
        return await import_list(store, read_csv(file), datetime.now(UTC))


@contextmanager
def _list_file(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")
    except OSError as error:
        raise ConfigurationError(f"{name}: {error.strerror}") from error
    with file:
        yield file


def _list(options: argparse.Namespace) -> int:
    asyncio.run(_print_all(load_config(options.config)))
    return 0


async def _print_all(config: ServerConfig) -> None:
    async with open_store(config) as store:
        async for device in store.devices():
            print(
                f"{device.udid}  {device.state.value:<14}  {device.changed_at:%Y-%m-%dT%H:%M:%SZ}"
            )


def _show(options: argparse.Namespace) -> int:
    return asyncio.run(_print_one(load_config(options.config), options.udid))


async def _print_one(config: ServerConfig, udid: str) -> int:
    async with open_store(config) as store:
        device = await store.find_by_udid(udid)
    if device is None:
        print(f"est-server: error: no device {udid!r} is listed", file=sys.stderr)
        return 1
    rows = {
        "udid": device.udid,
        "state": device.state.value,
        "since": f"{device.changed_at:%Y-%m-%dT%H:%M:%SZ}",
        "spki_sha256": device.listed.spki_sha256.hex(),
        **dict(sorted(device.listed.attributes.items())),
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    return 0
