"""A new server from nothing: a CA, certificates for the server, a configuration, a store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from est_protocol.errors import ConfigurationError
from est_protocol.keys import generate_key
from est_server.authorities.creation import NewCa, create_ca, issue_server_certificate
from est_server.authorities.signers.key import KeySigner
from est_server.config.settings import INTEGRITY_KEY_NAME
from est_server.pem_files import certificates_pem, key_pem
from est_server.private_files import write_new
from est_server.stores.integrity_key import IntegrityKey

CONFIG_NAME = "est-server.toml"
STORE_NAME = "est.sqlite"
ROOT_NAME = "ca.pem"

#: The mandatory suite of RFC 9148 section 3 authenticates the server with ECDSA, whatever kind
#: of key signed its certificate.
_COAPS_KEYS = {"ec-p384": "ec-p384"}
_COAPS_DEFAULT_KEY = "ec-p256"

_TEMPLATE = """\
# EST server. Every setting, with its default: docs/reference/configuration.md.
# Paths are relative to this file.

[https]
listen = {listen}
port = {https_port}
certificate = "server/https.pem"
key = "server/https.key"

[coaps]
listen = {listen}
port = {coaps_port}
certificate = "server/coaps.pem"
key = "server/coaps.key"
# A device that knows nothing but the fingerprint of the root checks it against the root in the
# handshake. Where every device has ca.pem, false saves some 400 octets on the air.
send_root = true

[authorities.default]
certificate = "ca/issuing.pem"
key = "ca/issuing.key"

[store]
path = "{store}"
# Seals the rows: whoever writes the store without this key can add no device. Keep a copy.
integrity_key = "{integrity_key}"

# Birth certificates of these manufacturers are believed; add one with
# est-server trust add-manufacturer CERT.pem --config est-server.toml
[trust]
manufacturers = "manufacturers"

# Device lists are believed if one of these has signed them; see
# docs/how-to/import-a-signed-list.md. Any number of [[list_signers]] may follow each other.
# [[list_signers]]
# name = "acme"
# certificate = "acme-lists.pem"

# For a first try: lists without a signature can be imported with --allow-unsigned, so whoever
# can write such a file decides which devices are genuine. Set it to false for real devices.
[devices]
allow_unsigned = true

# Requests without a label. Only devices of an imported list get certificates.
[default]
authorizers = ["device-list"]

[default.profile]
subject = "CN={{udid}}"
validity = "90d"
"""


@dataclass(frozen=True, slots=True)
class NewServer:
    """What a new server is to be like.

    :param hosts: DNS names and IP addresses under which devices know it.
    :param listen: the address that both transports listen on.
    :param https_port: TCP port, 0 for any that is free when it starts.
    :param coaps_port: UDP port, likewise.
    :param ca_name: the name of the CA.
    :param key_kind: the kind of the CA's and the HTTPS server's keys.
    """

    hosts: Sequence[str] = ("localhost", "127.0.0.1", "::1")
    listen: str = "127.0.0.1"
    https_port: int = 8443
    coaps_port: int = 5684
    ca_name: str = "EST"
    key_kind: str = "ec-p256"


def provision(directory: Path, wishes: NewServer, *, now: datetime) -> x509.Certificate:
    """Make ``directory`` with everything in it but the store, and return the root certificate.

    Private keys and the configuration have mode 0600, the directories 0700. Nothing is left
    behind if it fails.

    :raises ConfigurationError: the directory is not empty or cannot be made, or a wish makes no
        sense.
    """
    _make_directory(directory)
    try:
        ca = create_ca(wishes.ca_name, now=now, key_kind=wishes.key_kind)
        _write_ca(directory, ca)
        _write_server(directory, "https", wishes.key_kind, (), ca, wishes, now)
        coaps_key = _COAPS_KEYS.get(wishes.key_kind, _COAPS_DEFAULT_KEY)
        _write_server(directory, "coaps", coaps_key, (ca.root,), ca, wishes, now)
        IntegrityKey.generate().write(directory / INTEGRITY_KEY_NAME)
        write_new(directory / CONFIG_NAME, _configuration(wishes).encode())
    except BaseException:
        _empty(directory)
        raise
    return ca.root


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigurationError(f"{directory} is not empty; nothing was changed")
        directory.chmod(0o700)
        for name in ("ca", "server", "manufacturers"):
            (directory / name).mkdir(mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"cannot make {directory}: {error.strerror}") from error


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_ca(directory: Path, ca: NewCa) -> None:
    write_new(directory / ROOT_NAME, certificates_pem(ca.root), private=False)
    write_new(directory / "ca" / "root.key", key_pem(ca.root_key))
    write_new(directory / "ca" / "issuing.key", key_pem(ca.issuing_key))
    write_new(
        directory / "ca" / "issuing.pem", certificates_pem(ca.issuing, ca.root), private=False
    )


def _write_server(
    directory: Path,
    name: str,
    key_kind: str,
    roots: tuple[x509.Certificate, ...],
    ca: NewCa,
    wishes: NewServer,
    now: datetime,
) -> None:
    key = generate_key(key_kind)
    certificate = issue_server_certificate(
        KeySigner(ca.issuing_key), ca.issuing, key.public_key(), wishes.hosts, now=now
    )
    write_new(directory / "server" / f"{name}.key", key_pem(key))
    chain = certificates_pem(certificate, ca.issuing, *roots)
    write_new(directory / "server" / f"{name}.pem", chain, private=False)


def _configuration(wishes: NewServer) -> str:
    return _TEMPLATE.format(
        listen=json.dumps(wishes.listen),
        https_port=wishes.https_port,
        coaps_port=wishes.coaps_port,
        store=STORE_NAME,
        integrity_key=INTEGRITY_KEY_NAME,
    )
