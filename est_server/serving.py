"""One process that serves until it is told to stop, and reads its configuration when told to."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from est_protocol.errors import EstError
from est_server.config import ServerConfig
from est_server.server import Arrangement, EstServer
from est_server.signals import reload_event, stop_event

_log = logging.getLogger("est_server.serve")


class Reports(Protocol):
    """Who is told how it goes."""

    def ready(self, server: EstServer) -> None:
        """It listens."""
        ...

    def reloading(self) -> None:
        """It has been told to read its configuration."""
        ...

    def reloaded(self, server: EstServer) -> None:
        """It goes by the new configuration."""
        ...

    def not_reloaded(self) -> None:
        """It goes by the old configuration; the log says why."""
        ...

    def stopping(self) -> None:
        """It finishes what is under way."""
        ...


def ready(addresses: str) -> str:
    """The line that says that a server listens at ``addresses``."""
    return f"ready {addresses}"


def reloaded(addresses: str, changes: Sequence[str]) -> str:
    """The line that says that it goes by its configuration as it is now.

    :param changes: what is different, as far as is known.
    """
    return f"reloaded {addresses}{' changed: ' if changes else ''}{', '.join(changes)}"


async def serve_until_stopped(
    config: ServerConfig,
    reports: Reports,
    *,
    arrange: Arrangement = lambda served: served,
    processes: int = 1,
    watch: Callable[[asyncio.Event], None] = lambda stop: None,
) -> None:
    """Serve until SIGTERM or SIGINT, and read the configuration again at SIGHUP.

    :param arrange: has the last word on where to listen.
    :param processes: how many serve on the same ports.
    :param watch: given the event that ends it.
    :raises ConfigurationError: the configuration, or a file that it names, is not usable.
    :raises OSError: an address cannot be listened on.
    """
    stop, reload = stop_event(), reload_event()
    # They were kept back until here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    watch(stop)
    async with EstServer.from_config(config, arrange=arrange, processes=processes) as server:
        reports.ready(server)
        while await _first_of(stop, reload) is reload:
            reload.clear()
            await _reload(server, reports)
        reports.stopping()


async def _reload(server: EstServer, reports: Reports) -> None:
    reports.reloading()
    try:
        await server.reload()
    except (EstError, OSError) as error:
        _log.error("the configuration was not reloaded, the old one goes on: %s", error)
        reports.not_reloaded()
    except Exception:
        _log.exception("the configuration was not reloaded, the old one goes on")
        reports.not_reloaded()
    else:
        reports.reloaded(server)


async def _first_of(stop: asyncio.Event, reload: asyncio.Event) -> asyncio.Event:
    waiting = {asyncio.create_task(event.wait()) for event in (stop, reload)}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancelled(waiting)
    return stop if stop.is_set() else reload


async def _cancelled(tasks: Iterable[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
