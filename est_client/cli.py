"""The command ``est-client``: its exit status and its errors."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import traceback
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager

from est_client.options import parser
from est_client.outputs import require_outputs
from est_protocol.errors import (
    CertificateRejected,
    ChannelError,
    ConfigurationError,
    EstError,
    MessageError,
    ServerRefused,
    StillPending,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``est-client``.

    :param arguments: the command line without the program's name; ``sys.argv`` by default.
    :return: the exit status.
    :raises SystemExit: the command line is wrong (2), or asks for help (0).
    """
    options = parser().parse_args(arguments)
    with _log_to_standard_error(options):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        require_outputs(options)
        # None is success; what it is otherwise is the command's to know.
        work: Coroutine[None, None, int | None] | int | None = options.command(options)
        status = asyncio.run(work) if isinstance(work, Coroutine) else work
    except KeyboardInterrupt:
        print("est-client: interrupted", file=sys.stderr)
        return 130
    except (EstError, OSError) as error:
        return _report(error, options)
    except Exception as error:
        # A bug; the operator gets one line all the same, and whoever mends it the rest.
        if options.debug:
            traceback.print_exception(error)
        print(
            f"est-client: internal error: {type(error).__name__}: {error} (--debug shows where)",
            file=sys.stderr,
        )
        return 2
    return status or 0


def _report(error: EstError | OSError, options: argparse.Namespace) -> int:
    if options.debug:
        traceback.print_exception(error)
    status, words = _classify(error)
    print(f"est-client: {words}", file=sys.stderr)
    return status


def _classify(error: EstError | OSError) -> tuple[int, str]:
    if isinstance(error, ServerRefused):
        return 1, f"refused by the server: {error}"
    if isinstance(error, StillPending):
        return 1, f"{error} (--wait SECONDS waits for it)"
    if isinstance(error, ConfigurationError):
        return 2, str(error)
    if isinstance(error, ChannelError):
        return 3, str(error)
    if isinstance(error, MessageError):
        return 3, f"the server's answer makes no sense: {error}"
    if isinstance(error, CertificateRejected):
        return 3, f"the server's answer is not accepted: {error}"
    return 2, str(error)


@contextmanager
def _log_to_standard_error(options: argparse.Namespace) -> Iterator[None]:
    """Log for as long as the command runs, and leave the process as it was."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    own = logging.INFO if options.verbose else logging.WARNING
    levels = {
        logging.getLogger(): logging.DEBUG if options.debug else logging.ERROR,
        logging.getLogger("est_client"): logging.DEBUG if options.debug else own,
    }
    before = {logger: logger.level for logger in levels}
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        for logger, level in levels.items():
            logger.setLevel(level)
        yield
    finally:
        root.removeHandler(handler)
        for logger, level in before.items():
            logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
