"""``est-server certificates``: what was issued, and taking it back."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_protocol.errors import ConfigurationError
from est_server.assembly import open_store
from est_server.commands.options import OneLineParser, add_command
from est_server.commands.orders import actor_of, add_actor, add_revocation_reason
from est_server.commands.serial_numbers import read_serial_number
from est_server.config import ServerConfig, load_config
from est_server.ledger_records import IssuedCertificate
from est_server.stores.store import Store

#: Larger files are no certificates.
_MAX_OCTETS = 256 * 1024


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    parser = commands.add_parser("certificates", help="look at and revoke issued certificates")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    lists = add_command(
        subcommands,
        "list",
        _list,
        help="list issued certificates, the oldest first: serial number, state, end, device, label",
        example="est-server certificates list --device sensor-0001 --config est/est-server.toml",
    )
    lists.add_argument("--device", metavar="UDID", help="those of this device only")
    revoke = add_command(
        subcommands,
        "revoke",
        _revoke,
        help="revoke a certificate",
        example="est-server certificates revoke device.pem --reason key-compromise "
        "--config est/est-server.toml",
        note="""\
A running server refuses the certificate from that moment, and the next CRL has it. With
--reason key-compromise all certificates for its key are revoked, and the key gets no other
until `est-server devices reset`. To shut out the device, use `est-server devices`.""",
    )
    revoke.add_argument(
        "certificate",
        metavar="SERIAL|FILE",
        help="whole serial number in hex, or a file with the certificate in PEM or DER",
    )
    add_revocation_reason(revoke)
    add_actor(revoke)


def _list(options: argparse.Namespace) -> int:
    asyncio.run(_print_all(load_config(options.config), options.device))
    return 0


async def _print_all(config: ServerConfig, device: str | None) -> None:
    async with open_store(config, as_it_is=True) as store:
        async for issued in store.certificates(device=device):
            print(_line(issued))


def _revoke(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    path = Path(options.certificate)
    # A file that is called as a serial number is taken for a file.
    if path.is_file():
        sha256, serial = _read_certificate(path).fingerprint(hashes.SHA256()), ""
    else:
        sha256, serial = None, _serial(options.certificate)
    try:
        revoked = asyncio.run(_take_back(config, options, sha256, serial))
    except KeyError:
        print(
            f"est-server: error: this server has not issued {options.certificate}", file=sys.stderr
        )
        return 1
    print(_line(revoked))
    return 0


async def _take_back(
    config: ServerConfig, options: argparse.Namespace, sha256: bytes | None, serial: str
) -> IssuedCertificate:
    async with open_store(config, existing=True) as store:
        return await store.revoke_certificate(
            sha256 or await _find(store, serial),
            actor=actor_of(options),
            reason=options.note or options.reason.value,
            code=options.reason,
            now=datetime.now(UTC),
        )


async def _find(store: Store, serial: str) -> bytes:
    """SHA-256 of the certificate with this serial number.

    :raises KeyError: no such certificate was issued.
    :raises ConfigurationError: there are several.
    """
    found = [issued async for issued in store.certificates(serial=serial)]
    if len(found) > 1:
        raise ConfigurationError(
            f"several CAs have issued a certificate with serial number {serial}: name its file"
        )
    if not found:
        raise KeyError(serial)
    return found[0].sha256


def _serial(text: str) -> str:
    try:
        return read_serial_number(text)
    except ValueError as error:
        raise ConfigurationError(f"there is no such file, and {error}") from error


def _read_certificate(path: Path) -> x509.Certificate:
    """The first certificate in ``path``, PEM or DER."""
    try:
        with path.open("rb") as file:
            octets = file.read(_MAX_OCTETS)
        if b"-----BEGIN" in octets:
            return x509.load_pem_x509_certificate(octets)
        return x509.load_der_x509_certificate(octets)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: no certificate in PEM or DER") from error


def _line(issued: IssuedCertificate) -> str:
    certificate = issued.certificate
    return (
        f"{certificate.serial_number:<40x}  {issued.state.value:<10}  "
        f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}  {issued.device}  "
        f"{issued.label or '-'}"
    )
