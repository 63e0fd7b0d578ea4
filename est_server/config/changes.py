"""What has changed in a configuration, and what of it a running server cannot take over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from est_protocol.errors import ConfigurationError
from est_server.config.reader import settings_of
from est_server.config.settings import ServerConfig

#: Where a table says that it listens.
_ADDRESS = ("listen", "port", "unix_socket")


def require_no_restart(old: ServerConfig, new: ServerConfig) -> None:
    """Check that ``new`` listens where ``old`` does, on the same store and log.

    :raises ConfigurationError: it does not, so that the server has to be started again.
    """
    changed = [
        f"[{table}] {name}"
        for table in ("https", "coaps", "proxy", "crl")
        for name in _ADDRESS
        if _setting(old, table, name) != _setting(new, table, name)
    ]
    changed += [
        f"[{table}]"
        for table in ("https", "coaps", "proxy", "crl")
        if (getattr(old, table) is None) != (getattr(new, table) is None)
    ]
    changed += [f"[{table}]" for table in ("store", "log") if _differs(old, new, table)]
    if old.service.workers != new.service.workers:
        changed.append("[service.workers]")
    if changed:
        raise ConfigurationError(
            f"{new.file}: a restart is needed, since these have changed: {', '.join(changed)}"
        )


def changed_tables(old: ServerConfig, new: ServerConfig) -> list[str]:
    """The tables that say something else, such as ``[default]`` and ``[labels.fleet]``."""
    changed = []
    for setting in settings_of(ServerConfig):
        before, after = getattr(old, setting.name), getattr(new, setting.name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            names = sorted({*before, *after})
            differ = [name for name in names if before.get(name) != after.get(name)]
            changed += [f"[{setting.name}.{name}]" for name in differ]
        elif before != after:
            changed.append(f"[{setting.name}]")
    return changed


def _setting(config: ServerConfig, table: str, name: str) -> Any:
    return getattr(getattr(config, table), name, None)


def _differs(old: ServerConfig, new: ServerConfig, table: str) -> bool:
    return bool(getattr(old, table) != getattr(new, table))
