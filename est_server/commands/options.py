"""Options that several commands share, and how a command is added."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

Command = Callable[[argparse.Namespace], int]

#: A host name, an IPv4 or an IPv6 address with or without a zone; the socket has the last word.
_ADDRESS = re.compile(r"[A-Za-z0-9._:%-]{1,253}")

#: A hundred years.
_MOST_DAYS = 36_525


class UsageError(Exception):
    """The command line makes no sense."""


class OneLineParser(argparse.ArgumentParser):
    """Reports a mistake in one line; the whole usage is what ``--help`` is for."""

    def error(self, message: str) -> NoReturn:
        """Raise :class:`UsageError` in place of printing and leaving."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def port_number(text: str) -> int:
    """A TCP or UDP port, 0 included."""
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port between 0 and 65535")
    return int(text)


def listen_address(text: str) -> str:
    """An address or a name that a socket can be bound to, in ASCII."""
    if not _ADDRESS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address and no host name")
    return text


def count(text: str, most: int) -> int:
    """A whole number from 1 to ``most``."""
    # Python does not read a number of more than 4300 digits.
    if not text.isascii() or not text.isdecimal() or len(text) > 18 or not 0 < int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
    return int(text)


def days(text: str) -> int:
    """A time in days, no longer than any in the configuration."""
    return count(text, _MOST_DAYS)


def add_command(
    subcommands: argparse._SubParsersAction[OneLineParser],
    name: str,
    run: Command,
    *,
    help: str,
    example: str,
    note: str = "",
    config: bool = True,
) -> OneLineParser:
    """Add the command ``name``, with an example in its help.

    :param note: what else the help says.
    :param config: whether it works on an existing server and so takes ``--config``.
    """
    parser = subcommands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"{note}\n\nexample:\n  {example}".lstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    add_debug(parser)
    if config:
        parser.add_argument(
            "--config",
            type=Path,
            required=True,
            metavar="FILE",
            help="the server's est-server.toml",
        )
    return parser


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Add ``--debug``."""
    parser.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show tracebacks and say more on standard error",
    )
