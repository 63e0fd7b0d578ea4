"""``est-server serve``: listen until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from functools import partial

from est_server import service_manager
from est_server.cautions import Cautions
from est_server.commands.options import OneLineParser, add_command
from est_server.commands.outcome import exit_status
from est_server.config import ServerConfig, load_config
from est_server.logs import configured_logging
from est_server.open_files import allow_open_files, files_needed
from est_server.server import EstServer
from est_server.serving import ready, reloaded, serve_until_stopped
from est_server.workers.sockets import WorkerSockets
from est_server.workers.supervisor import Supervisor
from est_server.workers.worker import run_worker

_log = logging.getLogger("est_server.serve")

#: More than this has a machine of today no use for.
MAXIMUM_WORKERS = 256


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "serve",
        _run,
        help="serve EST over HTTPS and CoAPS until SIGTERM or SIGINT",
        example="est-server serve --config est/est-server.toml",
        note="""\
Prints "ready https=HOST:PORT coaps=HOST:PORT" when it listens. SIGTERM lets the requests
under way finish and ends with exit status 0. SIGHUP has it read the configuration again, and
the certificates, keys and manufacturers that it names: new connections go by them, open ones
finish as they began. It prints "reloaded ..." then, with the tables of the configuration and
the server certificates that are others now. What does not load is reported, and nothing
changes.""",
    )
    parser.add_argument(
        "--workers",
        type=_worker_count,
        default=1,
        metavar="N",
        help="serve with N processes on the same ports, one for each core; one that dies is "
        "started again (default: 1, without a process that looks after it)",
    )


def _worker_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAXIMUM_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MAXIMUM_WORKERS}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    # Kept back until it can be dealt with; it would end the program before.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    config = load_config(options.config)
    # Each worker writes as many lines as it is let.
    lines = -(-config.log.refusals_per_second // options.workers)
    log = replace(config.log, refusals_per_second=lines)
    with configured_logging(log, debug="debug" in options):
        return _serve(config, options)


def _serve(config: ServerConfig, options: argparse.Namespace) -> int:
    cautions = Cautions(config)
    cautions.say()
    needed = files_needed(config)
    if (allowed := allow_open_files(needed)) < needed:
        _log.warning(
            "the limits allow connections for %d open files, the system allows %d: lower the "
            "max_connections, or raise the limit (LimitNOFILE of systemd, ulimit -n)",
            needed,
            allowed,
        )
    if options.workers == 1:
        serving = serve_until_stopped(
            config, _Console(cautions), watch=lambda stop: cautions.say_ends_daily()
        )
        asyncio.run(serving)
        return 0
    work = partial(_work, options)
    return Supervisor(config, options.workers, work, _announce, cautions).run()


def _work(
    options: argparse.Namespace,
    config: ServerConfig,
    sockets: WorkerSockets,
    channel: socket.socket,
) -> int:
    """What a worker does."""

    def run() -> int:
        run_worker(config, sockets, channel, workers=options.workers)
        return 0

    return exit_status(run, debug="debug" in options)


def _announce(what: str) -> None:
    try:
        print(what, flush=True)
    except BrokenPipeError:
        # Whoever started the server listens no more, which is no reason to end it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Console:
    """Tells whoever started the server; see :class:`est_server.serving.Reports`."""

    def __init__(self, cautions: Cautions) -> None:
        self._cautions = cautions

    def ready(self, server: EstServer) -> None:
        _announce(ready(str(server)))
        service_manager.notify_ready()

    def reloading(self) -> None:
        service_manager.notify_reloading()

    def reloaded(self, server: EstServer) -> None:
        _announce(reloaded(str(server), self._cautions.take_over(server.config)))
        service_manager.notify_ready()

    def not_reloaded(self) -> None:
        service_manager.notify_ready()

    def stopping(self) -> None:
        service_manager.notify_stopping()
