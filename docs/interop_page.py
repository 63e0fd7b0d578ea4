"""The page ``docs/reference/interop.md``: which programs of others play which scenarios with us.

From ``interop/results.json``, which ``pytest interop --record`` writes.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEAD = """\
# Interoperability

{generated}
Found by `make interop`, which plays the scenarios of [interop/](../../interop/README.md) with
programs that other people wrote, and keeps what they come to in `interop/results.json`. A run
without a peer keeps what was found with it before; *made* says when that was. To play them with a
client or a server of yours: [how-to](../how-to/run-the-interop-scenarios.md).

A number says why a scenario cannot be played; an empty cell is a scenario that says nothing about
the peer.

The server does as it does by default, but for two peers that need
[switches of a label](../how-to/several-labels.md#for-old-peers): bouncycastle has
`content_transfer_encoding`, `empty_bodies` and `quoted_challenges` on throughout,
libest-estclient where the server makes the key.
"""

#: Role of its peers, title, and file of the scenarios, of each table.
_TABLES = (
    ("client", "Clients of est-server", "interop/test_clients.py"),
    ("server", "Servers for est-client", "interop/test_servers.py"),
    ("registrar", "Registration authorities", "interop/libest/test_proxy.py"),
)


def interop_page(root: Path, generated: str) -> str:
    """The page.

    :param root: the repository.
    :param generated: what says that the page is not to be edited.
    """
    record = json.loads((root / "interop/results.json").read_text())
    peers: dict[str, dict[str, Any]] = record["peers"]
    lines = [_HEAD.format(generated=generated)]
    lines += ["| peer | version | transport | made |", "|---|---|---|---|"]
    for name, peer in peers.items():
        lines.append(f"| {name} | {peer['version']} | {peer['transport']} | {peer['made']} |")
    for role, title, file in _TABLES:
        columns = {name: peer for name, peer in peers.items() if peer["role"] == role}
        lines += ["", f"## {title}", "", *_table(list(scenarios(root / file)), columns)]
    lines += ["", "## What is negotiated", "", "A suite: the handshake came to its end with it."]
    lines += ["", "| transport | offered | by | outcome |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in record["policy"]]
    return "\n".join(lines) + "\n"


def scenarios(file: Path) -> Iterator[str]:
    """The names of the scenarios in a module of tests, in their order."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "scenario":
                    yield ast.literal_eval(decorator.args[0])


def _table(rows: list[str], peers: dict[str, dict[str, Any]]) -> list[str]:
    columns = list(peers)
    reasons: list[str] = []

    def cell(row: str, column: str) -> str:
        result = peers[column]["scenarios"].get(row)
        if result is None:
            return ""
        if result in ("pass", "FAILED"):
            return str(result)
        if result not in reasons:
            reasons.append(result)
        return f"({reasons.index(result) + 1})"

    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(cell(row, column) for column in columns)} |" for row in rows]
    lines += [""]
    lines += [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return lines
