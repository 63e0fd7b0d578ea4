"""Private keys and certificates of a device: made, written as PEM, read from PEM."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from est_protocol.errors import ConfigurationError
from est_protocol.keys import SigningKey


def key_to_pem(key: SigningKey) -> bytes:
    """The key as PKCS#8 PEM, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def chain_to_pem(chain: Sequence[x509.Certificate]) -> bytes:
    """The certificates as PEM, in the order given."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def key_from_pem(pem: bytes, where: str) -> SigningKey:
    """The private key in ``pem``; PKCS#8, SEC1 or PKCS#1, not encrypted.

    :param where: what to call it in an error.
    :raises ConfigurationError: there is none, or of a kind that cannot sign.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ConfigurationError(f"the private key in {where} is encrypted") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"there is no readable PEM private key in {where}") from error
    if not isinstance(key, SigningKey):
        raise ConfigurationError(f"the private key in {where} cannot sign")
    return key


def chain_from_pem(pem: bytes, where: str) -> tuple[x509.Certificate, ...]:
    """All certificates in ``pem``, in their order, at least one.

    :param where: what to call it in an error.
    :raises ConfigurationError: there is none, or one does not decode.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise ConfigurationError(f"there is no readable PEM certificate in {where}") from error
