"""The command line ``est-server``.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from est_server.commands import (
    approvals,
    ca,
    certificates,
    devices,
    explain,
    init,
    ledger,
    ra,
    secrets,
    serve,
    store,
    trust,
)
from est_server.commands.options import OneLineParser, add_debug
from est_server.commands.outcome import exit_status


def make_parser() -> OneLineParser:
    """All commands and their options."""
    parser = OneLineParser(
        prog="est-server",
        description="EST server: RFC 7030 over HTTPS, RFC 9148 over CoAPS, device lists.",
    )
    add_debug(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        init,
        serve,
        explain,
        ca,
        devices,
        certificates,
        approvals,
        ledger,
        secrets,
        store,
        trust,
        ra,
    ):
        module.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def run() -> int:
        options = make_parser().parse_args(arguments)
        return options.run(options)  # type: ignore[no-any-return]

    return exit_status(run, debug="--debug" in arguments)


if __name__ == "__main__":
    sys.exit(main())
