"""``est-server devices sign``: for those who make device lists."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from est_protocol.errors import ConfigurationError
from est_protocol.keys import SigningKey
from est_server.authorities.signers.file import passphrase_from_environment, read_private_key
from est_server.commands.import_list import add_format, open_list, print_rejections
from est_server.commands.options import OneLineParser, add_command
from est_server.devices.importer import check_list
from est_server.devices.refusals import ListRefused
from est_server.devices.signatures.signing import CmsSigning, JwsSigning, ListSigning
from est_server.pem_files import load_certificates
from est_server.private_files import write_new


def add_to(subcommands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the command."""
    parser = add_command(
        subcommands,
        "sign",
        _sign,
        help="sign a device list, once it is seen that it can be imported",
        example="est-server devices sign devices.csv --key lists.key --certificate lists.pem "
        "--out devices.csv.p7s",
        note="""\
Makes a detached signature beside FILE, which stays as it is. The same with OpenSSL:
openssl cms -sign -binary -md sha256 -in FILE -inkey KEY -signer CERT -outform PEM -out OUT""",
        config=False,
    )
    parser.add_argument("file", metavar="FILE", help="the list, - for standard input")
    parser.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="the signer's private key, PEM"
    )
    parser.add_argument(
        "--certificate",
        type=Path,
        required=True,
        metavar="FILE",
        help="the signer's certificate and those above it, PEM",
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--cms",
        dest="signing",
        action="store_const",
        const=CmsSigning,
        default=CmsSigning,
        help="CMS, RFC 5652 (default)",
    )
    kinds.add_argument(
        "--jws",
        dest="signing",
        action="store_const",
        const=JwsSigning,
        help="JWS, RFC 7515 and RFC 7797",
    )
    add_format(parser)
    parser.add_argument(
        "--key-passphrase-variable",
        metavar="NAME",
        help="environment variable with the passphrase of the key",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the new signature")


def _sign(options: argparse.Namespace) -> int:
    key, chain = _load(options)
    now = datetime.now(UTC)
    signing: ListSigning = options.signing(key, chain, now)
    with open_list(options.file) as file:
        try:
            rows = check_list(file, options.format, now, signing.update)
        except ListRefused as refused:
            print_rejections(refused.rejections)
            raise
    try:
        write_new(options.out, signing.finish(), private=False)
    except OSError as error:
        raise ConfigurationError(f"{options.out}: {error.strerror}") from error
    print(f"signed {rows} rows: {options.out}")
    return 0


def _load(options: argparse.Namespace) -> tuple[SigningKey, Sequence[x509.Certificate]]:
    variable = options.key_passphrase_variable
    passphrase = passphrase_from_environment(variable)
    key = read_private_key(options.key, passphrase=passphrase)
    return key, load_certificates(options.certificate)
