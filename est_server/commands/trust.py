"""``est-server trust``: whose birth certificates are believed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol.errors import ConfigurationError
from est_server.anchors import require_foreign
from est_server.commands.options import OneLineParser, add_command
from est_server.config import load_config
from est_server.pem_files import load_certificates
from est_server.private_files import write_new

_FROM_WHEN = "A server that is running believes it from SIGHUP on (systemctl reload)."


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("trust", help="manage whose birth certificates are believed")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = add_command(
        subcommands,
        "add-manufacturer",
        _add_manufacturer,
        help="trust a manufacturer's CA for birth certificates, from the next start or SIGHUP on",
        example="est-server trust add-manufacturer acme-root.pem --config est/est-server.toml",
    )
    add.add_argument(
        "certificate", type=Path, metavar="CERT.pem", help="CA certificate, or several, in PEM"
    )
    add.add_argument(
        "--name",
        type=_file_name,
        metavar="NAME",
        help="what the configuration calls the manufacturer (default: each certificate's SHA-256)",
    )


def _add_manufacturer(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    directory = config.trust.manufacturers
    if directory is None:
        raise ConfigurationError(f"{options.config}: [trust] manufacturers: is missing")
    certificates = load_certificates(options.certificate)
    for certificate in certificates:
        _require_ca(certificate, options.certificate)
    require_foreign(config, certificates)
    if options.name is not None:
        _add_named(directory, options.name, certificates)
        return 0
    for certificate in certificates:
        name = certificate.subject.rfc4514_string()
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        added = _add(directory / f"{fingerprint}.pem", certificate)
        print(f"{'added' if added else 'unchanged'} {name} sha256={fingerprint}")
    print(_FROM_WHEN)
    return 0


def _add_named(directory: Path, name: str, certificates: Sequence[x509.Certificate]) -> None:
    content = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    try:
        write_new(directory / f"{name}.pem", content, private=False)
    except FileExistsError as error:
        raise ConfigurationError(f"there is a manufacturer {name} already") from error
    print(f"added {name}")
    print(_FROM_WHEN)


def _file_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", text):
        raise argparse.ArgumentTypeError("1 to 64 of A-Z, a-z, 0-9, - and _ are needed")
    return text


def _add(path: Path, certificate: x509.Certificate) -> bool:
    try:
        write_new(path, certificate.public_bytes(Encoding.PEM), private=False)
    except FileExistsError:
        return False
    return True


def _require_ca(certificate: x509.Certificate, file: Path) -> None:
    name = certificate.subject.rfc4514_string()
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        is_ca = constraints.value.ca
    except (x509.ExtensionNotFound, ValueError):
        is_ca = False
    if not is_ca:
        raise ConfigurationError(f"{file}: {name} is not a CA certificate")
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise ConfigurationError(f"{file}: {name} has expired")
