"""``est-server init``: a new server in an empty directory."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from est_server.commands.options import (
    OneLineParser,
    add_command,
    listen_address,
    port_number,
)
from est_server.config import load_config
from est_server.config.settings import INTEGRITY_KEY_NAME
from est_server.new_server import (
    CONFIG_NAME,
    ROOT_NAME,
    STORE_NAME,
    NewServer,
    provision,
)
from est_server.server_certificates import load_server_certificates
from est_server.service import SystemClock
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.sqlite import SqliteStore

#: Kinds of key that TLS and X.509 software at large understands.
KEY_KINDS = ("ec-p256", "ec-p384", "rsa-3072", "ed25519")

_DEFAULT = NewServer()


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "init",
        _run,
        help="make a CA, a server certificate, a configuration and an empty store",
        example="est-server init est --host est.example.com --listen 0.0.0.0",
        config=False,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="new or empty directory")
    parser.add_argument(
        "--https-port",
        type=port_number,
        default=_DEFAULT.https_port,
        metavar="N",
        help="TCP port, 0 for any that is free at serve (default: %(default)s)",
    )
    parser.add_argument(
        "--coaps-port",
        type=port_number,
        default=_DEFAULT.coaps_port,
        metavar="N",
        help="UDP port, 0 for any that is free at serve (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        dest="hosts",
        action="append",
        metavar="NAME",
        help="DNS name or IP address under which devices know the server; may be repeated "
        f"(default: {', '.join(_DEFAULT.hosts)})",
    )
    parser.add_argument(
        "--listen",
        type=listen_address,
        default=_DEFAULT.listen,
        metavar="ADDRESS",
        help="address to listen on; the default %(default)s is this machine only",
    )
    parser.add_argument(
        "--name", default=_DEFAULT.ca_name, help="name of the CA (default: %(default)s)"
    )
    parser.add_argument(
        "--key-type",
        choices=KEY_KINDS,
        default=_DEFAULT.key_kind,
        help="kind of the CA's and the HTTPS server's keys; the CoAPS server's is always an EC "
        "key, as RFC 9148 wants (default: %(default)s)",
    )


def _run(options: argparse.Namespace) -> int:
    wishes = NewServer(
        hosts=tuple(options.hosts or _DEFAULT.hosts),
        listen=options.listen,
        https_port=options.https_port,
        coaps_port=options.coaps_port,
        ca_name=options.name,
        key_kind=options.key_type,
    )
    root = provision(options.directory, wishes, now=datetime.now(UTC))
    asyncio.run(_make_store(options.directory))
    _explain(options.directory, wishes, root.fingerprint(hashes.SHA256()).hex())
    return 0


async def _make_store(directory: Path) -> None:
    key = IntegrityKey.read(directory / INTEGRITY_KEY_NAME)
    async with SqliteStore.open(directory / STORE_NAME, clock=SystemClock(), integrity_key=key):
        pass


def _ends(config: Path) -> str:
    """Until when the server certificates are good, and what to do then."""
    made = load_server_certificates(load_config(config))
    ends = [f"  {certificate.file} ends on {certificate.end:%Y-%m-%d}." for certificate in made]
    return (
        "\n".join(ends)
        + f"""
  Make new ones in time: est-server ca server-certificate --config {config}"""
    )


def _explain(directory: Path, server: NewServer, fingerprint: str) -> None:
    config = directory / CONFIG_NAME
    url = f"https://{server.hosts[0]}:{server.https_port or 'PORT'}"
    print(f"""\
A new EST server is in {directory}.

  {directory / ROOT_NAME} is the certificate that devices trust; its SHA-256 fingerprint is
  {fingerprint}
  {directory / "ca" / "root.key"} is not needed to serve: keep it offline.
  {directory / INTEGRITY_KEY_NAME} seals the rows of the store: keep a copy elsewhere.
{_ends(config)}

Next:
  est-server devices import DEVICES.csv --allow-unsigned --config {config}
  est-server serve --config {config}
  est-client enroll --url {url} --ca-cert {directory / ROOT_NAME} --key device.key \
--out device.pem""")
