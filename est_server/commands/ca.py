"""``est-server ca``: the server's own certificates, and the next generation of a CA."""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from est_server.authorities.creation import SERVER_VALIDITY, hosts_of
from est_server.authorities.signers.file import passphrase_from_environment, read_private_key
from est_server.commands.init import KEY_KINDS
from est_server.commands.options import OneLineParser, add_command, days
from est_server.config import ServerConfig, load_config
from est_server.new_server import ROOT_NAME
from est_server.next_generation import NextGeneration, write_next_generation
from est_server.server_certificates import renew_server_certificates

_NUMBERED = re.compile(r"(.+)-([1-9][0-9]{0,3})")


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    parser = commands.add_parser(
        "ca", help="renew the server's certificates, replace a CA by its next generation"
    )
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    rollover = add_command(
        subcommands,
        "rollover",
        _rollover,
        help="make a new root and issuing CA, and what leads devices from the old ones to them",
        example="est-server ca rollover --root-key root.key --out est/ca-2 "
        "--config est/est-server.toml",
        note="""\
Writes everything into a new directory and changes nothing else. Prints what to change in the
configuration; a server does as before until it is started with that.""",
    )
    rollover.add_argument(
        "--root-key",
        type=Path,
        required=True,
        metavar="FILE",
        help="private key of the old root, in PEM; needed this once",
    )
    rollover.add_argument(
        "--root-key-passphrase-variable",
        metavar="NAME",
        help="environment variable with its passphrase, if it is encrypted",
    )
    rollover.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new directory for what is made"
    )
    rollover.add_argument(
        "--authority",
        default="default",
        metavar="NAME",
        help="the table under authorities that is rolled over (default: %(default)s)",
    )
    rollover.add_argument(
        "--key-type",
        choices=KEY_KINDS,
        help="kind of the new CA's keys (default: that of the old root)",
    )

    _add_server_certificate(subcommands)


def _add_server_certificate(subcommands: argparse._SubParsersAction[OneLineParser]) -> None:
    renew = add_command(
        subcommands,
        "server-certificate",
        _renew,
        help="make new certificates for HTTPS and CoAPS, for the same hosts",
        example="est-server ca server-certificate --config est/est-server.toml",
        note="""\
The CA of the configuration that has issued the old ones issues the new ones, which take their
place. Files keep their owners; keys have mode 0600. A server that runs goes on as before until
SIGHUP, which drops no session. Was it interrupted, give the command again, without --new-key.""",
    )
    renew.add_argument(
        "--transport", choices=("https", "coaps"), help="of this one only (default: both)"
    )
    renew.add_argument(
        "--new-key",
        action="store_true",
        help="make new keys of the same kind too, in place of those that there are",
    )
    renew.add_argument(
        "--days",
        type=days,
        default=SERVER_VALIDITY.days,
        metavar="N",
        help="days of validity (%(default)s); they end with the CA at the latest",
    )


def _renew(options: argparse.Namespace) -> int:
    now, validity = datetime.now(UTC).replace(microsecond=0), timedelta(days=options.days)
    renewed = renew_server_certificates(
        load_config(options.config),
        table=options.transport,
        new_key=options.new_key,
        validity=validity,
        now=now,
    )
    for made in renewed:
        hosts = ", ".join(hosts_of(made.chain[0]))
        cut = "; it ends with its CA" if made.end < now + validity else ""
        print(f"{made.file} is good until {made.end:%Y-%m-%d}, for {hosts}{cut}")
    print("A server that is running takes it over at SIGHUP, and drops no session.")
    return 0


def _rollover(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    passphrase = passphrase_from_environment(options.root_key_passphrase_variable)
    root_key = read_private_key(options.root_key, passphrase=passphrase)
    made = write_next_generation(
        config,
        options.authority,
        root_key,
        options.out,
        kind=options.key_type,
        now=datetime.now(UTC),
    )
    _explain(made, config, options)
    return 0


def _explain(made: NextGeneration, config: ServerConfig, options: argparse.Namespace) -> None:
    print(f"""\
The new CA is in {options.out}. Nothing that is served has changed yet.
  {options.out / ROOT_NAME} is what devices that are made from now on trust; its SHA-256
  fingerprint is {made.root.fingerprint(hashes.SHA256()).hex()}
  {options.out / "root.key"} is not needed to serve: keep it offline, as the old one.

Set these in {options.config}, leave the rest of each table, and start the server again:
""")
    print(_tables(made, config, options.authority))
    print(f"Devices follow at their next renewal. The old root ends on {made.until:%Y-%m-%d}.")


def _tables(made: NextGeneration, config: ServerConfig, authority: str) -> str:
    """What to set in the configuration, as TOML."""
    directory = config.file.resolve().parent
    tables = {
        table: {key: _shown(path, directory) for key, path in settings.items()}
        for table, settings in made.tables.items()
    }
    tables[f"authorities.{authority}"]["crl_name"] = _next_crl_name(authority, config)
    old = config.authorities[authority]
    before = {
        "certificate": _shown(old.certificate, directory),
        "key": _shown(old.key, directory),
        "crl_name": config.crl_name(authority),
    }
    if old.key_passphrase_variable is not None:
        before["key_passphrase_variable"] = old.key_passphrase_variable
    tables[f"authorities.{_free_name(authority, config)}"] = before
    lines = []
    for table, settings in tables.items():
        lines += [f"[{table}]", *(f"{k} = {json.dumps(v)}" for k, v in settings.items()), ""]
    return "\n".join(lines)


def _free_name(authority: str, config: ServerConfig) -> str:
    """A name for the table of the CA before."""
    name, number = f"{authority}-before", 2
    while name in config.authorities:
        name, number = f"{authority}-before-{number}", number + 1
    return name


def _next_crl_name(authority: str, config: ServerConfig) -> str:
    """``default-2`` after ``default``, then ``default-3``; the CA before keeps its own."""
    used = {config.crl_name(name) for name in config.authorities}
    found = _NUMBERED.fullmatch(config.crl_name(authority))
    name, number = (found[1], int(found[2])) if found else (config.crl_name(authority), 1)
    number += 1
    while f"{name}-{number}" in used:
        number += 1
    return f"{name}-{number}"


def _shown(path: Path, directory: Path) -> str:
    """``path`` as the configuration has it: relative to its own directory where it can be."""
    resolved = path.resolve()
    inside = resolved.is_relative_to(directory)
    return str(resolved.relative_to(directory) if inside else resolved)
