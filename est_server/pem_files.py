"""Certificates and keys in PEM files of the operator."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from est_protocol.errors import ConfigurationError
from est_protocol.keys import SigningKey

#: Larger files are no PEM files of ours.
_LARGEST = 1_000_000


def load_certificates(file: Path) -> tuple[x509.Certificate, ...]:
    """All certificates in ``file``, in its order; at least one.

    :raises ConfigurationError: it cannot be read, or has no certificate in it.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from error
    if len(content) > _LARGEST:
        raise ConfigurationError(f"{file}: larger than any file of certificates")
    try:
        return tuple(x509.load_pem_x509_certificates(content))
    except ValueError as error:
        raise ConfigurationError(f"{file}: no PEM certificate: {error}") from error


def certificates_pem(*certificates: x509.Certificate) -> bytes:
    """The certificates in PEM, in the order given."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def key_pem(key: SigningKey, *, passphrase: bytes | None = None) -> bytes:
    """The private key as PKCS#8 in PEM, encrypted if there is a passphrase."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
