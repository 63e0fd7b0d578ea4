"""Files that are either as they were or as they should be, whenever the power fails.

Every change of the disk goes through :class:`FileSystem`, one method per step that can be
interrupted, so that the tests can interrupt each of them.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from est_protocol.errors import ConfigurationError

#: The end of the name of a file that is not finished; whoever finds one may remove it.
UNFINISHED = ".unfinished"


class FileSystem:
    """The steps of which durable changes are made; each raises :class:`OSError`."""

    def create(self, path: Path, content: bytes, mode: int) -> None:
        """Write a file that is not there yet, and sync it."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            # The umask may have taken bits away.
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Put ``source`` in the place of ``target``, atomically."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file; it may be gone already."""
        path.unlink(missing_ok=True)

    def make_directory(self, path: Path) -> None:
        """Make a directory that only its owner may enter; it may be there already."""
        path.mkdir(mode=0o700, exist_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_durably(
    path: Path, content: bytes, *, mode: int, file_system: FileSystem | None = None
) -> None:
    """Replace the file at ``path``; when this returns, it survives a power loss.

    :param mode: permission bits of the file, whatever the umask.
    :raises OSError: it could not be written; the old file is untouched.
    """
    steps = file_system or FileSystem()
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        steps.create(unfinished, content, mode)
        steps.rename(unfinished, path)
    except OSError:
        steps.remove(unfinished)
        raise
    steps.sync_directory(path.parent)


def require_private(path: Path) -> None:
    """Check that nobody but its owner can get at what is in a file or directory.

    :raises ConfigurationError: others have access.
    :raises OSError: it is not there, or cannot be looked at.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        wanted = "700" if path.is_dir() else "600"
        raise ConfigurationError(
            f"{path} has mode {mode:04o}; others must not have access, run: chmod {wanted} {path}"
        )
