"""``est-server serve``: listen until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
from datetime import UTC, datetime, timedelta

from est_server.commands.options import OneLineParser, add_command
from est_server.config import ServerConfig, load_config
from est_server.logs import configure_logging
from est_server.pem_files import load_certificates
from est_server.server import EstServer, stop_event

_log = logging.getLogger("est_server.serve")

#: A server certificate that ends sooner is worth a word at the start.
_SOON = timedelta(days=30)


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the command."""
    add_command(
        commands,
        "serve",
        _run,
        help="serve EST over HTTPS and CoAPS until SIGTERM or SIGINT",
        example="est-server serve --config est/est-server.toml",
        note="""\
Prints "ready https=HOST:PORT coaps=HOST:PORT" when it listens. SIGTERM lets the requests
under way finish and ends with exit status 0.""",
    )


def _run(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    configure_logging(config.log, debug="debug" in options)
    for warning in unsafe_settings(config, now=datetime.now(UTC)):
        _log.warning("%s", warning)
    asyncio.run(_serve(config))
    return 0


async def _serve(config: ServerConfig) -> None:
    stop = stop_event()
    async with EstServer.from_config(config) as server:
        print(f"ready {server}", flush=True)
        await stop.wait()


def unsafe_settings(config: ServerConfig, *, now: datetime) -> list[str]:
    """What an operator should know before the server listens, one sentence each."""
    warnings = []
    for transport in (config.https, config.coaps):
        if transport is None:
            continue
        end = load_certificates(transport.certificate)[0].not_valid_after_utc
        if end < now:
            warnings.append(f"{transport.certificate} has expired: devices will not connect")
        elif end < now + _SOON:
            warnings.append(f"{transport.certificate} expires on {end:%Y-%m-%d}")
    if config.devices.allow_unsigned:
        warnings.append(
            "[devices] allow_unsigned is on: anybody's device list can be imported; for real "
            "devices, configure [[list_signers]] and turn it off"
        )
    if config.store.integrity_key is None:
        warnings.append(
            "[store] integrity_key is missing: whoever can write the store can add devices; "
            "make a key and seal the rows with: est-server devices seal"
        )
    directory = config.trust.manufacturers
    if directory is not None and directory.stat().st_mode & 0o022:
        warnings.append(f"{directory} can be written by others, who could add a manufacturer")
    return warnings
