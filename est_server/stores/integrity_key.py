"""The key under which a server seals the rows of its store; never in the store itself."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from est_protocol.errors import ConfigurationError
from est_server.private_files import write_new

_OCTETS = 32
_FILE_LIMIT = 1024
_OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class IntegrityKey:
    """A secret of 32 octets, in a file as 64 hexadecimal digits.

    :raises ValueError: it has another length.
    """

    octets: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.octets) != _OCTETS:
            raise ValueError(f"an integrity key has {_OCTETS} octets, not {len(self.octets)}")

    @property
    def fingerprint(self) -> bytes:
        """Tells keys apart and gives nothing away of them."""
        return hashlib.blake2b(key=self.octets, person=b"est key id", digest_size=16).digest()

    @classmethod
    def generate(cls) -> IntegrityKey:
        """A new key."""
        return cls(secrets.token_bytes(_OCTETS))

    @classmethod
    def read(cls, path: Path) -> IntegrityKey:
        """The key in a file.

        :raises ConfigurationError: the file cannot be read, others have access to it, or it holds
            no such key.
        """
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(_FILE_LIMIT)
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from error
        if mode & _OTHERS_MAY:
            raise ConfigurationError(
                f"{path}: an integrity key with mode {stat.S_IMODE(mode):04o}; others must not "
                f"have access, run: chmod 600 {path}"
            )
        try:
            return cls(bytes.fromhex(text.decode("ascii").strip()))
        except ValueError:
            raise ConfigurationError(
                f"{path}: no integrity key, which is {2 * _OCTETS} hexadecimal digits"
            ) from None

    def write(self, path: Path) -> None:
        """Make a file with the key, mode 0600.

        :raises FileExistsError: it is there already.
        """
        write_new(path, self.octets.hex().encode() + b"\n")
