"""A server that somebody else runs, described in a TOML file.

``[server]`` has ``url``, ``ca``, ``key`` and ``certificate``; ``issuer`` where that is another CA,
``user`` and ``password`` where there is HTTP authentication. A table named like a
:class:`~interop.server_peer.Mode`, such as ``[basic]``, says what is different where the server
asks for that, and that there is such a thing at all.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from interop.client_peer import CannotPlay, Credentials, User
from interop.server_peer import Mode, Served


class DescribedServer:
    """A server that listens already.

    :param described: how it is reached where it does what each mode says.
    """

    def __init__(self, described: Mapping[Mode, Served]) -> None:
        self._described = described

    @classmethod
    def read(cls, file: Path) -> Self:
        """The server that ``file`` describes; its paths are relative to the file."""
        tables = tomllib.loads(file.read_text())
        common = tables.pop("server")
        modes = {Mode(name): {**common, **table} for name, table in tables.items()}
        return cls({mode: _served(table, file.parent) for mode, table in modes.items()})

    @contextmanager
    def serve(self, mode: Mode) -> Iterator[Served]:
        served = self._described.get(mode)
        if served is None:
            raise CannotPlay(f"the server is described without [{mode.value}]")
        yield served

    def revoke(self, certificate: Path) -> None:
        raise CannotPlay("revoking is its operator's to do")


def _served(table: Mapping[str, Any], home: Path) -> Served:
    ca = home / table["ca"]
    return Served(
        url=table["url"],
        ca=ca,
        issuer=home / table["issuer"] if "issuer" in table else ca,
        credentials=Credentials(home / table["certificate"], home / table["key"]),
        user=User(table.get("user", ""), table.get("password", "")),
    )
