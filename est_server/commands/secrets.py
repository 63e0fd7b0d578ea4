"""``est-server secrets``: one-time secrets for first enrollments."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from est_protocol.challenge_attributes import LONGEST, OneTimeSecret
from est_protocol.errors import ConfigurationError, MessageError
from est_server.assembly import open_store
from est_server.authorization.secret_hashes import hash_secret
from est_server.commands.options import OneLineParser, add_command, count, days
from est_server.config import ServerConfig, load_config
from est_server.user_credentials import EnrollmentSecret

#: 160 bits, which nobody guesses.
_OCTETS = 20
_MOST_USES = 1_000_000_000


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    parser = commands.add_parser("secrets", help="one-time secrets for first enrollments")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = add_command(
        subcommands,
        "add",
        _add,
        help="make a secret and print it; it is not shown again",
        example="est-server secrets add batch-7 --uses 500 --days 30 --config est/est-server.toml",
        note="""\
Prints NAME:SECRET, which is what goes into an otpChallenge; as HTTP Basic, NAME is the
user and SECRET the password. Only a slow hash is kept.""",
    )
    add.add_argument("name", metavar="NAME", help="what the device sends beside the secret")
    add.add_argument("--device", metavar="UDID", help="the one device that it is for")
    add.add_argument(
        "--uses", type=_uses, default=1, metavar="N", help="certificates it is good for (1)"
    )
    add.add_argument("--days", type=days, metavar="N", help="days until it ends (never)")
    add.add_argument(
        "--secret-file", type=Path, metavar="FILE", help="take the secret in FILE, not a random one"
    )
    add_command(
        subcommands,
        "list",
        _list,
        help="list the secrets: name, uses, end, device",
        example="est-server secrets list --config est/est-server.toml",
    )
    remove = add_command(
        subcommands,
        "remove",
        _remove,
        help="remove a secret; what was issued for it stays",
        example="est-server secrets remove batch-7 --config est/est-server.toml",
    )
    remove.add_argument("name", metavar="NAME", help="its name")


def _add(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    if options.secret_file is None:
        text = f"{options.name}:{secrets.token_urlsafe(_OCTETS)}"
    else:
        text = f"{options.name}:{_read(options.secret_file)}"
    try:
        given = OneTimeSecret.parse(text)
    except MessageError as error:
        raise ConfigurationError(str(error)) from error
    if len(text) > LONGEST or ":" in options.name or not given.secret:
        raise ConfigurationError(
            f"a name has no colon, a secret is not empty, and both have {LONGEST - 1} characters "
            "at most"
        )
    now = datetime.now(UTC)
    secret = EnrollmentSecret(
        given.name,
        hash_secret(given.secret),
        device=options.device,
        max_uses=options.uses,
        expires_at=None if options.days is None else now + timedelta(days=options.days),
    )
    asyncio.run(_store(config, secret, now))
    print(given)
    return 0


async def _store(config: ServerConfig, secret: EnrollmentSecret, now: datetime) -> None:
    async with open_store(config) as store:
        try:
            await store.add_secret(secret, now=now)
        except KeyError:
            raise ConfigurationError(f"there is a secret {secret.name!r} already") from None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error


def _list(options: argparse.Namespace) -> int:
    for secret in asyncio.run(_all(load_config(options.config))):
        end = "-" if secret.expires_at is None else f"{secret.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        device = secret.device or "-"
        print(f"{secret.name}  {secret.uses}/{secret.max_uses}  {end}  {device}")
    return 0


async def _all(config: ServerConfig) -> list[EnrollmentSecret]:
    async with open_store(config, as_it_is=True) as store:
        return await store.secrets()


def _remove(options: argparse.Namespace) -> int:
    if not asyncio.run(_drop(load_config(options.config), options.name)):
        print(f"est-server: error: there is no secret {options.name!r}", file=sys.stderr)
        return 1
    return 0


async def _drop(config: ServerConfig, name: str) -> bool:
    async with open_store(config, existing=True) as store:
        return await store.remove_secret(name)


def _uses(text: str) -> int:
    return count(text, _MOST_USES)
