"""The command line ``est-server``.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from est_protocol.errors import ConfigurationError, EstError
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
from est_server.commands.options import OneLineParser, UsageError, add_debug

FAILED = 1
MISTAKEN = 2


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
    debug = "--debug" in arguments
    try:
        options = make_parser().parse_args(arguments)
        return options.run(options)  # type: ignore[no-any-return]
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has seen enough, such as `head`; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (UsageError, ConfigurationError) as error:
        return _report(error, MISTAKEN, debug)
    except (EstError, OSError) as error:
        return _report(error, FAILED, debug)
    except Exception as error:
        bug = RuntimeError(f"internal error: {error!r}; --debug shows where")
        bug.__cause__ = error
        return _report(bug, FAILED, debug)


def _report(error: Exception, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"est-server: error: {_one_line(error)}", file=sys.stderr)
    return status


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
