"""Files that are either as they were or as they should be, whenever the power fails.

Every change of the disk goes through :class:`FileSystem`, one method per step that can be
interrupted, so that the tests can interrupt each of them.
"""

from __future__ import annotations

import os
from pathlib import Path


class FileSystem:
    """The steps of which durable changes are made; raises :class:`OSError`."""

    def create(self, path: Path, content: bytes, mode: int) -> None:
        """Write a new file and sync it; an old one of that name is emptied first."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            # A file left over from an interrupted run, or the umask, may have another mode.
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
    temporary = path.with_name(path.name + ".new")
    steps.create(temporary, content, mode)
    steps.rename(temporary, path)
    steps.sync_directory(path.parent)
