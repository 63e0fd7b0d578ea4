"""``est-server devices``: the device lists."""

from __future__ import annotations

import argparse
import asyncio
import sys

from est_server.assembly import open_store
from est_server.commands import import_list, life_cycle, seal, sign_list, verify_store
from est_server.commands.options import OneLineParser, add_command
from est_server.config import ServerConfig, load_config
from est_server.device_records import OWNER_ATTRIBUTE


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    parser = commands.add_parser("devices", help="device lists and the devices on them")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    import_list.add_to(subcommands)
    sign_list.add_to(subcommands)
    seal.add_to(subcommands)
    verify_store.add_to(subcommands)
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
        help="show one device and its history",
        example="est-server devices show sensor-0001 --config est/est-server.toml",
    )
    show.add_argument("udid", metavar="UDID", help="the device's unique identifier")
    life_cycle.add_to(subcommands)


def _list(options: argparse.Namespace) -> int:
    asyncio.run(_print_all(load_config(options.config)))
    return 0


async def _print_all(config: ServerConfig) -> None:
    async with open_store(config, as_it_is=True) as store:
        async for device in store.devices():
            print(
                f"{device.udid}  {device.state.value:<14}  {device.changed_at:%Y-%m-%dT%H:%M:%SZ}"
            )


def _show(options: argparse.Namespace) -> int:
    return asyncio.run(_print_one(load_config(options.config), options.udid))


async def _print_one(config: ServerConfig, udid: str) -> int:
    async with open_store(config, as_it_is=True) as store:
        device = await store.find_by_udid(udid)
        history = await store.device_history(udid)
        names = {known.number: known.description.list_id for known in await store.lists()}
    if device is None:
        print(f"est-server: error: no device {udid!r} is listed", file=sys.stderr)
        return 1
    rows = {
        "udid": device.udid,
        "state": device.state.value,
        "since": f"{device.changed_at:%Y-%m-%dT%H:%M:%SZ}",
        "owner": device.owner or "-",
        "list": "-" if device.list_number is None else names[device.list_number],
        "spki_sha256": device.listed.spki_sha256.hex(),
        **{
            name: value
            for name, value in sorted(device.listed.attributes.items())
            if name != OWNER_ATTRIBUTE
        },
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    for entry in history:
        done = entry.step.value if entry.step else f"is {entry.after.value}"
        print(f"{entry.when:%Y-%m-%dT%H:%M:%SZ}  {done}, by {entry.actor}: {entry.reason}")
    return 0
