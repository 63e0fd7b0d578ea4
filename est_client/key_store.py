"""The key store in files: one directory, at most four files.

- ``identity.pem``: the private key and the certificate chain, together, so that one rename
  replaces both and no moment shows a key beside the certificate of another;
- ``pending-key.pem``: the key that a request was, or is about to be, sent for;
- ``pending-request.json``: a request that the server has put off, and when to ask again;
- ``trust-anchors.pem``: what the server has to be verified by, and when it was asked for that.

A new key is on the disk before the request that names it is sent; the old identity is untouched
until the new certificate has been verified. One process at a time may use a directory, which
:meth:`FileKeyStore.locked` sees to.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from est_client.device_keys import (
    chain_from_pem,
    chain_to_pem,
    key_from_pem,
    key_to_pem,
)
from est_client.durable_files import (
    UNFINISHED,
    FileSystem,
    require_private,
    write_durably,
)
from est_client.pending_request import PendingRequest
from est_protocol.errors import ConfigurationError
from est_protocol.keys import SigningKey, generate_key, spki_der
from est_protocol.secure_channel.context import LocalCredentials

_log = logging.getLogger(__name__)

_PRIVATE = 0o600
_FETCHED_AT = "Fetched at: "
_Result = TypeVar("_Result")


class FileKeyStore:
    """A :class:`~est_client.interfaces.KeyStore` in a directory of its own.

    :param directory: made with mode 0700 if it is not there; its parent must be.
    :param key_kind: the kind of key to make, see :data:`~est_protocol.keys.KEY_KINDS`.
    :param make_key: makes the keys instead.
    :param file_system: makes the changes.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        key_kind: str = "ec-p256",
        make_key: Callable[[], SigningKey] | None = None,
        file_system: FileSystem | None = None,
    ) -> None:
        self._directory = Path(directory)
        self._identity = self._directory / "identity.pem"
        self._pending = self._directory / "pending-key.pem"
        self._request = self._directory / "pending-request.json"
        self._anchors = self._directory / "trust-anchors.pem"
        self._key_kind = key_kind
        self._make_key = make_key
        self._file_system = file_system or FileSystem()
        self._opened = False

    async def identity(self) -> LocalCredentials | None:
        """The current key and certificate chain; see the protocol."""
        return await asyncio.to_thread(self._attempt, self._load_identity)

    async def pending_key(self, kind: str | None = None) -> SigningKey:
        """The key to certify next; see the protocol."""
        return await asyncio.to_thread(self._attempt, lambda: self._load_or_make_pending_key(kind))

    async def replace_identity(self, key: SigningKey, chain: Sequence[x509.Certificate]) -> None:
        """Make ``key`` and ``chain`` the identity; see the protocol."""
        if chain and spki_der(chain[0].public_key()) != spki_der(key.public_key()):
            raise ConfigurationError("the certificate is not for the key")
        await asyncio.to_thread(self._attempt, lambda: self._store_identity(key, chain))

    async def discard_pending_key(self) -> None:
        """Forget the pending key; see the protocol."""
        await asyncio.to_thread(self._attempt, lambda: self._remove(self._pending))

    async def pending_request(self) -> PendingRequest | None:
        """The request that the server has put off; see the protocol."""
        return await asyncio.to_thread(self._attempt, self._load_request)

    async def remember_request(self, request: PendingRequest) -> None:
        """Keep ``request``; see the protocol."""
        content = request.encode()
        await asyncio.to_thread(self._attempt, lambda: self._write(self._request, content))

    async def forget_request(self) -> None:
        """Forget the pending request; see the protocol."""
        await asyncio.to_thread(self._attempt, lambda: self._remove(self._request))

    async def trust_anchors(self) -> tuple[x509.Certificate, ...]:
        """The trust anchors that were learned; see the protocol."""
        return await asyncio.to_thread(self._attempt, self._load_anchors)

    async def trust_fetched_at(self) -> datetime | None:
        """When the server was asked for them last; see the protocol."""
        return await asyncio.to_thread(self._attempt, self._load_fetched_at)

    async def replace_trust_anchors(
        self, anchors: Sequence[x509.Certificate], fetched_at: datetime
    ) -> None:
        """Trust ``anchors``; see the protocol."""
        if not anchors:
            raise ConfigurationError("there is no trust anchor to keep")
        # In the same file, where PEM has room for words (RFC 7468 section 5.2).
        words = f"{_FETCHED_AT}{fetched_at.astimezone(UTC).isoformat(timespec='seconds')}\n"
        content = words.encode() + chain_to_pem(anchors)
        await asyncio.to_thread(self._attempt, lambda: self._write(self._anchors, content))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the directory that do the same, until the context ends or
        the process does.

        :raises ConfigurationError: another one is in there, or the directory cannot be made.
        """
        with ExitStack() as stack:
            try:
                if not self._directory.exists():
                    self._make_directory()
                descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigurationError(
                    f"the key store {self._directory} is in use by another process"
                ) from error
            except OSError as error:
                raise self._unusable(error) from error
            yield

    def _attempt(self, action: Callable[[], _Result]) -> _Result:
        try:
            if not self._opened:
                self._open()
                self._opened = True
            return action()
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"the key store {self._directory}: {error.strerror} ({error.filename})"
        )

    def _make_directory(self) -> None:
        self._file_system.make_directory(self._directory)
        self._file_system.sync_directory(self._directory.parent)

    def _open(self) -> None:
        """Make the directory, or recover what an interruption left in it."""
        if not self._directory.exists():
            self._make_directory()
        for path in (self._directory, self._identity, self._pending):
            if path.exists():
                require_private(path)
        for path in self._directory.glob(f"*{UNFINISHED}"):
            self._file_system.remove(path)
        identity, pending = self._load_identity(), self._load_pending_key()
        if identity and pending and _same_key(identity.key, pending):
            # Interrupted after the identity was replaced and before the pending key was removed.
            self._remove(self._request)
            self._remove(self._pending)

    def _load_identity(self) -> LocalCredentials | None:
        pem = _read(self._identity)
        if pem is None:
            return None
        key = key_from_pem(pem, str(self._identity))
        bare = b"-----BEGIN CERTIFICATE-----" not in pem
        return LocalCredentials(key, () if bare else chain_from_pem(pem, str(self._identity)))

    def _load_pending_key(self) -> SigningKey | None:
        pem = _read(self._pending)
        return None if pem is None else key_from_pem(pem, str(self._pending))

    def _load_or_make_pending_key(self, kind: str | None) -> SigningKey:
        key = self._load_pending_key()
        if key is None:
            key = self._make_key() if self._make_key else generate_key(kind or self._key_kind)
            self._write(self._pending, key_to_pem(key))
        return key

    def _load_request(self) -> PendingRequest | None:
        content = _read(self._request)
        try:
            return None if content is None else PendingRequest.decode(content, str(self._request))
        except ConfigurationError as error:
            # It says when to ask again, and what; no reason to stop asking.
            _log.warning("%s", error)
            return None

    def _load_anchors(self) -> tuple[x509.Certificate, ...]:
        pem = _read(self._anchors)
        return () if pem is None else chain_from_pem(pem, str(self._anchors))

    def _load_fetched_at(self) -> datetime | None:
        first, _, _ = (_read(self._anchors) or b"").partition(b"\n")
        try:
            return datetime.fromisoformat(first.decode().removeprefix(_FETCHED_AT)).astimezone(UTC)
        except (ValueError, OverflowError):
            # Somebody else has made the file, or has edited it.
            return None

    def _store_identity(self, key: SigningKey, chain: Sequence[x509.Certificate]) -> None:
        self._write(self._identity, key_to_pem(key) + chain_to_pem(chain))
        # Only now that the directory is synced: the pending key may be the identity's.
        self._remove(self._request)
        self._remove(self._pending)

    def _remove(self, path: Path) -> None:
        if path.exists():
            self._file_system.remove(path)
            self._file_system.sync_directory(self._directory)

    def _write(self, path: Path, content: bytes) -> None:
        write_durably(path, content, mode=_PRIVATE, file_system=self._file_system)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _same_key(one: SigningKey, other: SigningKey) -> bool:
    return spki_der(one.public_key()) == spki_der(other.public_key())
