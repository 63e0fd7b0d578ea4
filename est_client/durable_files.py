"""Files that are either as they were or as they should be, whenever the power fails.

Every change of the disk goes through :class:`FileSystem`, one method per step that can be
interrupted, so that the tests can interrupt each of them.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from est_protocol.errors import ConfigurationError

#: The end of the name of a file that is not finished; whoever finds one may remove it, unless it
#: was told that there is something in it.
UNFINISHED = ".unfinished"
#: Octets that a prepared file has room for: more than any key or certificate in PEM.
_ROOM = 16384


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

    def overwrite(self, path: Path, content: bytes) -> None:
        """Write a file that is there already, in the room that it has, and sync it."""
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.truncate()
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
    :raises OSError: it could not be written, and is what the error names; the old file is
        untouched.
    """
    steps = file_system or FileSystem()
    unfinished = _unfinished(path)
    try:
        steps.create(unfinished, content, mode)
        steps.rename(unfinished, path)
    except OSError as error:
        _remove(unfinished, steps)
        raise _naming(path, error) from error
    steps.sync_directory(path.parent)


class PreparedFile:
    """A file for what cannot be had a second time: made, with room, before there is anything to
    write, so that hardly anything is left that can fail then.

    A context manager that removes what was prepared if nothing was written.

    :param path: where the file is to be; one that is there stays until :meth:`write`.
    :param mode: permission bits of the file, whatever the umask.
    :raises OSError: it cannot be written there.
    """

    def __init__(self, path: Path, *, mode: int, file_system: FileSystem | None = None) -> None:
        self._path = path
        self._steps = file_system or FileSystem()
        self._unfinished = _unfinished(path)
        #: Where what was written is now; ``None`` before, and if it could not be written at all.
        self.written_to: Path | None = None
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        try:
            self._steps.create(self._unfinished, bytes(_ROOM), mode)
        except OSError as error:
            self._remove()
            raise _naming(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.written_to is None:
            self._remove()

    def write(self, content: bytes) -> None:
        """Replace the file; when this returns, it survives a power loss.

        :raises OSError: it does not, or not under its name: see :attr:`written_to`.
        """
        try:
            self._steps.overwrite(self._unfinished, content)
            self.written_to = self._unfinished
            self._steps.rename(self._unfinished, self._path)
            self.written_to = self._path
            self._steps.sync_directory(self._path.parent)
        except OSError as error:
            raise _naming(self._path, error) from error

    def _remove(self) -> None:
        _remove(self._unfinished, self._steps)


def require_writable(path: Path) -> None:
    """Check that a file can be written, by making one beside it and removing that again.

    :raises OSError: it cannot; ``path`` is what the error names.
    """
    with PreparedFile(path, mode=0o600):
        pass


def _unfinished(path: Path) -> Path:
    if not path.name:
        # "", "." and "/": directories, beside which nothing can be made.
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")


def _remove(unfinished: Path, steps: FileSystem) -> None:
    """Remove it if it is there; whoever does so has an error of more interest to report."""
    with suppress(OSError):
        steps.remove(unfinished)


def _naming(path: Path, error: OSError) -> OSError:
    """``error`` as one about ``path``, which is what the caller knows of."""
    return OSError(error.errno, error.strerror, str(path))


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
