"""A list that is read once: what is parsed, what is hashed and what is signed are one stream.

A file that is replaced while it is read, or a pipe that says something else the second time, can
therefore not show one list to the signature and another one to the registry.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from est_protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK = 256 * 1024

Observer = Callable[[bytes], None]


class ListSource(io.RawIOBase):
    """A file that tells observers of each octet when it is read, exactly once and in order.

    :param file: the list; a pipe will do.
    :param observers: called with each chunk.
    """

    def __init__(self, file: BinaryIO, *observers: Observer) -> None:
        super().__init__()
        self._file = file
        self._observers = observers
        self._hash = hashlib.sha256()
        self.octets = 0
        """Octets read so far."""

    @property
    def sha256(self) -> bytes:
        """The digest of what was read so far."""
        return self._hash.digest()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read, hash and tell.

        :raises ConfigurationError: the list cannot be read.
        """
        view = memoryview(buffer).cast("B")
        try:
            chunk = self._file.read(len(view))
        except OSError as error:
            raise ConfigurationError(f"the list cannot be read: {error.strerror}") from error
        view[: len(chunk)] = chunk
        self.octets += len(chunk)
        self._hash.update(chunk)
        for observe in self._observers:
            observe(chunk)
        return len(chunk)

    def buffered(self) -> BinaryIO:
        """What the format reads; it may read ahead."""
        return cast(BinaryIO, io.BufferedReader(self, _CHUNK))
