"""Which of the processes on a file has the identity that a restart keeps."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from est_protocol.errors import ConfigurationError


@contextmanager
def stable_owner(store: Path) -> Iterator[str | None]:
    """An owner id for the ledger that a restart keeps, or ``None`` if another server has it.

    The kernel lets go of the lock when the process ends, however it ends.

    :param store: the store's file; the lock is beside it.
    :raises ConfigurationError: the lock cannot be made.
    """
    path = store.with_name(f"{store.name}.owner")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    try:
        yield "first" if _is_locked_now(descriptor) else None
    finally:
        os.close(descriptor)


def _is_locked_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
