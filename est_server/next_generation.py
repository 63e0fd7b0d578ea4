"""The files of a CA's roll-over: everything new in one new directory, nothing old touched.

A server goes over to them when its configuration does, which is one file to replace; before that,
nothing has changed, and to go back is to put the old configuration back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from est_protocol.chain import is_self_signed
from est_protocol.errors import ConfigurationError
from est_protocol.keys import SigningKey, generate_key, key_kind
from est_server.authorities.creation import hosts_of, issue_server_certificate
from est_server.authorities.rollover import RolledOver, roll_over
from est_server.authorities.signers.key import KeySigner
from est_server.config import ServerConfig
from est_server.config.settings import CoapsSettings, HttpsSettings
from est_server.new_server import ROOT_NAME
from est_server.pem_files import certificates_pem, key_pem, load_certificates
from est_server.private_files import write_new


@dataclass(frozen=True, slots=True)
class NextGeneration:
    """What was written.

    :param root: the new root.
    :param until: when the old root ends, and the roll-over with it.
    :param tables: the new settings, by table of the configuration: key and path.
    """

    root: x509.Certificate
    until: datetime
    tables: dict[str, dict[str, Path]]


def write_next_generation(
    config: ServerConfig,
    authority: str,
    root_key: SigningKey,
    directory: Path,
    *,
    kind: str | None,
    now: datetime,
) -> NextGeneration:
    """Make the next generation of a CA, and server certificates of it, in ``directory``.

    Private keys have mode 0600, the directory 0700.

    :param authority: name of the table under ``authorities``.
    :param root_key: the key of the CA's root.
    :param directory: must not be there yet.
    :param kind: of the new CA keys; that of the old root by default.
    :raises ConfigurationError: there is no such CA, it has not two levels, the key is not its
        root's, or the directory cannot be made.
    """
    settings = config.authorities.get(authority)
    if settings is None:
        raise ConfigurationError(f"{config.file}: there is no table [authorities.{authority}]")
    chain = load_certificates(settings.certificate)
    if len(chain) != 2:
        raise ConfigurationError(
            f"{settings.certificate}: only a root with one issuing CA below it can be rolled over"
        )
    issuing, root = chain
    made = roll_over(root_key, root, issuing, now=now, key_kind=kind or key_kind(root.public_key()))
    try:
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"cannot make {directory}: {error.strerror}") from error
    tables = {f"authorities.{authority}": _write_ca(directory, made)}
    for name, transport in (("https", config.https), ("coaps", config.coaps)):
        if transport is not None and _is_issued_by(transport, issuing):
            tables[name] = _write_server(directory, name, transport, made, root, now)
    return NextGeneration(made.ca.root, root.not_valid_after_utc, tables)


def _write_ca(directory: Path, made: RolledOver) -> dict[str, Path]:
    certificate, key = directory / "issuing.pem", directory / "issuing.key"
    rollover = directory / "rollover.pem"
    write_new(directory / "root.key", key_pem(made.ca.root_key))
    write_new(key, key_pem(made.ca.issuing_key))
    write_new(directory / ROOT_NAME, certificates_pem(made.ca.root), private=False)
    write_new(certificate, certificates_pem(made.ca.issuing, made.ca.root), private=False)
    write_new(rollover, certificates_pem(*made.certificates), private=False)
    return {"certificate": certificate, "key": key, "rollover": rollover}


def _write_server(
    directory: Path,
    name: str,
    transport: HttpsSettings | CoapsSettings,
    made: RolledOver,
    old_root: x509.Certificate,
    now: datetime,
) -> dict[str, Path]:
    """A certificate of the new CA that clients of the old one verify by NewWithOld.

    Where the roots went along before, in front of who knows nothing but a fingerprint, both do.
    """
    old_chain = load_certificates(transport.certificate)
    key = generate_key(key_kind(old_chain[0].public_key()))
    certificate = issue_server_certificate(
        KeySigner(made.ca.issuing_key),
        made.ca.issuing,
        key.public_key(),
        hosts_of(old_chain[0]),
        now=now,
    )
    roots = (made.ca.root, old_root) if any(map(is_self_signed, old_chain)) else ()
    chain = certificates_pem(certificate, made.ca.issuing, made.new_with_old, *roots)
    files = {"certificate": directory / f"{name}.pem", "key": directory / f"{name}.key"}
    write_new(files["key"], key_pem(key))
    write_new(files["certificate"], chain, private=False)
    return files


def _is_issued_by(transport: HttpsSettings | CoapsSettings, issuing: x509.Certificate) -> bool:
    chain = load_certificates(transport.certificate)
    return issuing in chain[1:]
