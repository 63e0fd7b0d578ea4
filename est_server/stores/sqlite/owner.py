"""Identities in the ledger that a restart keeps, for the processes that serve from one file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from est_protocol.errors import ConfigurationError

#: Processes of one file that have an identity of this kind; further ones go without.
_IDENTITIES = ("first", *(f"server-{number}" for number in range(2, 257)))


@contextmanager
def stable_owner(store: Path) -> Iterator[str | None]:
    """The first identity that no other process has; ``None`` if there are too many processes.

    The process that takes the place of one that died gets its identity, and so may go on with what
    that one left unfinished. The kernel lets go of the lock when a process ends, however it ends.

    :param store: the store's file; the locks are beside it.
    :raises ConfigurationError: the lock cannot be made.
    """
    for identity in _IDENTITIES:
        descriptor = _lock(_path(store, identity))
        if descriptor is not None:
            try:
                yield identity
            finally:
                os.close(descriptor)
            return
    yield None


@contextmanager
def no_servers(store: Path) -> Iterator[bool]:
    """Whether no process has an identity; as long as the context lasts none gets the first."""
    with ExitStack() as held:
        for identity in _IDENTITIES:
            path = _path(store, identity)
            if identity != _IDENTITIES[0] and not path.exists():
                continue
            descriptor = _lock(path)
            if descriptor is None:
                yield False
                return
            held.callback(os.close, descriptor)
        yield True


def _path(store: Path, identity: str) -> Path:
    suffix = ".owner" if identity == _IDENTITIES[0] else f".owner-{identity}"
    return store.with_name(f"{store.name}{suffix}")


def _lock(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
