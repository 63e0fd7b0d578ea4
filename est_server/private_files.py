"""Files that only their owner may read."""

from __future__ import annotations

import os
from pathlib import Path


def write_new(path: Path, content: bytes, *, private: bool = True) -> None:
    """Make the file ``path``, complete and on the disk when this returns; or nothing if it fails.

    :param private: mode 0600; else 0644.
    :raises FileExistsError: it is there already.
    """
    mode = 0o600 if private else 0o644
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            # The umask may have taken bits that a file for everybody needs.
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        _sync_directory(path.parent)
    except BaseException:
        path.unlink()
        raise


def replace_file(path: Path, content: bytes, *, private: bool = True) -> None:
    """Put another file in the place of ``path``, at once and on the disk, with the same owner.

    Whoever reads meanwhile finds either of them whole. A symbolic link stays one.

    :param private: mode 0600; else 0644.
    :raises OSError: there is none, it belongs to somebody else and may not be given to them, or
        somebody is replacing it.
    """
    path = path.resolve()
    owner = path.stat()
    new = _unfinished(path)
    write_new(new, content, private=private)
    try:
        written = new.stat()
        if (written.st_uid, written.st_gid) != (owner.st_uid, owner.st_gid):
            os.chown(new, owner.st_uid, owner.st_gid)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove what a :func:`replace_file` of ``path`` left that did not come to its end.

    Nobody may be replacing it.
    """
    _unfinished(path.resolve()).unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _sync_directory(directory: Path) -> None:
    """Have the names in it on the disk too, without which a file is lost with the power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
