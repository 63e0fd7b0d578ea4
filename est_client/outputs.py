"""What ``est-client`` writes: each file by itself, and where it can be written.

Looked at before anything is sent, since a server may grant only once what then has no place.
"""

from __future__ import annotations

import argparse
import os
from itertools import combinations
from pathlib import Path

from est_client.durable_files import require_writable
from est_protocol.errors import ConfigurationError

#: The options that name a file to write; ``--report`` names a directory.
_WRITTEN = ("out", "key_out", "json", "junit", "csv", "write_list")
#: The options that name a file to make, if it is not there.
_MADE = ("new_key",)
#: The options that name a file to read; that of ``--key`` is made, if it is not there.
_READ = ("key", "cert", "ca_cert", "decrypt_key", "otp_file", "password_file")


def require_outputs(options: argparse.Namespace) -> None:
    """Refuse what would replace another file of the same command, or could not be kept.

    :param options: ``may_replace`` names the one that ``--out`` may be the same file as, if any.
    :raises ConfigurationError: two options name one file, or a file cannot be written.
    """
    _require_apart(options)
    _require_outside_store(options)
    for name, path in _given(options, _WRITTEN):
        _require_writable(name, path)
    for name, path in _given(options, _MADE):
        # A key that is there is only read, and be it from a pipe.
        if Path(path).is_dir() or not Path(path).exists():
            _require_writable(name, path)


def _require_apart(options: argparse.Namespace) -> None:
    """A key exists nowhere else, and whoever loses the CA certificates trusts no server."""
    meant = {("new_key", "key"), ("out", getattr(options, "may_replace", None))}
    for (name, path), (other, its_path) in combinations(
        _given(options, _WRITTEN + _MADE + _READ), 2
    ):
        if name not in _READ and (name, other) not in meant and _one_file(path, its_path):
            raise ConfigurationError(f"{_option(name)} and {_option(other)} are one file, {path}")


def _one_file(path: str, other: str) -> bool:
    # Neither has to be there yet, and on some file systems one has several names.
    if os.path.realpath(path) == os.path.realpath(other):
        return True
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def _require_outside_store(options: argparse.Namespace) -> None:
    store = getattr(options, "store", None)
    if store is None:
        return
    for name, path in _given(options, _WRITTEN):
        if Path(os.path.realpath(path)).parent == Path(os.path.realpath(store)):
            raise ConfigurationError(
                f"{_option(name)} {path} is in the key store, which keeps its files itself"
            )


def _require_writable(name: str, path: str) -> None:
    try:
        require_writable(Path(path))
    except OSError as error:
        raise ConfigurationError(
            f"{_option(name)} {path or repr(path)} cannot be written: {error.strerror}"
        ) from error


def _given(options: argparse.Namespace, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Those of the options that the command has and was given, with what they name."""
    given = ((name, getattr(options, name, None)) for name in names)
    return [(name, path) for name, path in given if path is not None]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
