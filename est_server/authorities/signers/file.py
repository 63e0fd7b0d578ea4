"""A signer whose key is a PEM file that only its owner can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from est_protocol.errors import ConfigurationError
from est_protocol.keys import SigningKey
from est_server.authorities.signers.key import KeySigner

#: Larger files are no private keys.
MAX_OCTETS = 64 * 1024

_OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO

Passphrase = Callable[[], bytes]


class FileSigner(KeySigner):
    """Signs with the key in a PEM file, read once.

    The key lies on the disk of this machine: root and whoever copies the disk have it, unless it
    is encrypted. An HSM keeps it better.

    :param path: PKCS#8, SEC1 or PKCS#1 PEM, mode 0600 or stricter.
    :param passphrase: gives the passphrase of an encrypted key; called only if it is encrypted.
    :raises ConfigurationError: the file cannot be read, others may access it, it is encrypted and
        the passphrase is missing or wrong, or holds no key that signs.
    """

    def __init__(self, path: str | Path, *, passphrase: Passphrase | None = None) -> None:
        super().__init__(read_private_key(path, passphrase=passphrase))
        self.path = Path(path)


def passphrase_from_environment(variable: str | None) -> Passphrase | None:
    """A passphrase that is taken from an environment variable when it is needed.

    Without a variable there is none.

    The function that is returned raises :class:`~est_protocol.errors.ConfigurationError` if the
    variable is empty or not set.
    """
    if variable is None:
        return None

    def passphrase() -> bytes:
        value = os.environ.get(variable, "")
        if not value:
            raise ConfigurationError(f"the environment variable {variable} is not set")
        return value.encode()

    return passphrase


def read_private_key(path: str | Path, *, passphrase: Passphrase | None = None) -> SigningKey:
    """The private key in a PEM file; parameters and errors as for :class:`FileSigner`."""
    pem = _read_private_file(Path(path))
    try:
        try:
            key = load_pem_private_key(pem, password=None)
        except TypeError:
            # cryptography's way to say that the key is encrypted.
            if passphrase is None:
                raise ConfigurationError(f"{path}: encrypted, and no passphrase is given") from None
            key = load_pem_private_key(pem, password=passphrase())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path}: no usable PEM private key: {error}") from error
    if not isinstance(key, get_args(SigningKey)):
        raise ConfigurationError(f"{path}: a {type(key).__name__} cannot sign")
    return cast(SigningKey, key)


def _read_private_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"{path}: not a regular file")
            if status.st_mode & _OTHERS_MAY:
                mode = stat.S_IMODE(status.st_mode)
                raise ConfigurationError(
                    f"{path}: a private key with mode {mode:04o}; others must not have access, "
                    f"run: chmod 600 {path}"
                )
            content = file.read(MAX_OCTETS + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    if len(content) > MAX_OCTETS:
        raise ConfigurationError(f"{path}: larger than any private key")
    return content
