"""What becomes of a command: an exit status, and one line where it failed."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from est_protocol.errors import ConfigurationError, EstError, RequestRefused
from est_server.commands.options import UsageError

FAILED = 1
MISTAKEN = 2


def exit_status(run: Callable[[], int], *, debug: bool) -> int:
    """Run a command; its exit status, or the one of what it raises.

    :param debug: show where it was raised.
    """
    try:
        return run()
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
    text = str(error)
    if isinstance(error, RequestRefused) and error.detail:
        # Devices are not told; who gives commands has to know.
        text = f"{text} ({error.detail})"
    return " ".join(text.split())
