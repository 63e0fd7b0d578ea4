"""From the configuration to what the import of device lists believes."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from est_protocol.errors import ConfigurationError
from est_protocol.keys import PublicKey
from est_server.config import ServerConfig
from est_server.config.settings import ListSignerSettings
from est_server.devices.signatures.signers import ListSigner
from est_server.pem_files import load_certificates

#: Larger files are no public keys.
_LARGEST = 64 * 1024


def load_list_signers(config: ServerConfig) -> tuple[ListSigner, ...]:
    """Who may sign device lists.

    :raises ConfigurationError: a file has not in it what it should have, two signers have one
        name, or something about a signer makes no sense.
    """
    names = [settings.name for settings in config.list_signers]
    for name in names:
        if not name or not name.isprintable() or names.count(name) > 1:
            raise ConfigurationError(
                f"{config.file}: [[list_signers]] {name!r}: names are printable, and each is "
                "there once"
            )
    return tuple(_signer(settings) for settings in config.list_signers)


def _signer(settings: ListSignerSettings) -> ListSigner:
    certificate, ca, key = settings.certificate, settings.ca, settings.public_key
    return ListSigner(
        settings.name,
        certificates=load_certificates(certificate) if certificate else (),
        public_key=_load_public_key(key) if key else None,
        anchors=load_certificates(ca) if ca else (),
        extended_key_usages=settings.extended_key_usages,
        subject=None if settings.subject is None else _subject(settings),
        judge_at_signing_time=settings.judge_at_signing_time,
    )


def _load_public_key(file: Path) -> PublicKey:
    try:
        with file.open("rb") as stream:
            return load_pem_public_key(stream.read(_LARGEST))
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{file}: no PEM public key: {error}") from error


def _subject(settings: ListSignerSettings) -> x509.Name:
    try:
        return x509.Name.from_rfc4514_string(settings.subject or "")
    except ValueError as error:
        raise ConfigurationError(
            f"list signer {settings.name!r}: {settings.subject!r} is no subject such as "
            "CN=lists,O=Acme"
        ) from error
