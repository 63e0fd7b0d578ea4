"""One worker process: what it does, and how it talks to the supervisor.

Over a pair of sockets the worker sends one word for each thing that happened. The supervisor sends
nothing; when its end closes because it is gone, the worker stops too, since nobody could stop it
any more.
"""

from __future__ import annotations

import asyncio
import socket
from enum import StrEnum

from est_server.config import ServerConfig
from est_server.server import EstServer
from est_server.serving import serve_until_stopped
from est_server.workers.sockets import WorkerSockets


class Word(StrEnum):
    """What a worker tells. ``ready`` is followed by where it listens."""

    READY = "ready"
    ALIVE = "alive"
    RELOADED = "reloaded"
    NOT_RELOADED = "not-reloaded"


def run_worker(
    config: ServerConfig, sockets: WorkerSockets, channel: socket.socket, *, workers: int
) -> None:
    """Serve on ``sockets`` until told to stop, or until the other end of ``channel`` closes.

    :param workers: how many there are.
    :raises ConfigurationError: the configuration, or a file that it names, is not usable.
    """
    channel.setblocking(False)
    teller = _Teller(channel)
    # Two of them may be lost in a moment of much work.
    pause = config.service.workers.silence / 4

    def watch(stop: asyncio.Event) -> None:
        asyncio.get_running_loop().add_reader(channel, _on_readable, channel, stop)
        _say_alive(teller, pause)

    asyncio.run(
        serve_until_stopped(config, teller, arrange=sockets.arrange, processes=workers, watch=watch)
    )


def _on_readable(channel: socket.socket, stop: asyncio.Event) -> None:
    """The supervisor is gone: it never sends anything."""
    asyncio.get_running_loop().remove_reader(channel)
    stop.set()


def _say_alive(teller: _Teller, pause: float) -> None:
    """Now and every ``pause`` seconds, as long as the event loop goes round."""
    teller.alive()
    asyncio.get_running_loop().call_later(pause, _say_alive, teller, pause)


class _Teller:
    """Tells the supervisor; see :class:`est_server.serving.Reports`."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def ready(self, server: EstServer) -> None:
        self._tell(f"{Word.READY} {server}")

    def alive(self) -> None:
        """The event loop goes round."""
        self._tell(Word.ALIVE)

    def reloading(self) -> None:
        pass

    def reloaded(self, server: EstServer) -> None:
        self._tell(Word.RELOADED)

    def not_reloaded(self) -> None:
        self._tell(Word.NOT_RELOADED)

    def stopping(self) -> None:
        pass

    def _tell(self, text: str) -> None:
        try:
            self._channel.send(f"{text}\n".encode())
        except (BrokenPipeError, ConnectionResetError):
            # The supervisor is gone, which ends this process by itself.
            return
        except BlockingIOError:
            # The supervisor has not read for hours, and will see that more was said.
            return
