"""The server that a fleet enrolls at: started for the run, or anybody's."""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, cast

from cryptography import x509

from est_protocol.errors import ConfigurationError
from est_protocol.messages import Transport
from est_protocol.secure_channel.tcp import StreamListenerFactory
from est_protocol.secure_channel.udp import DatagramTransportFactory

#: The server that is started for a run unless told otherwise. It is found by its name, as a
#: plug-in is: a client can be installed without any server.
DEFAULT_SERVER = "est_server.in_process:serve_in_process"


class ServerView(Protocol):
    """What a server saw of a run."""

    answers: Counter[tuple[str, str]]
    latencies: list[float]
    waits: list[float]
    most_working: int
    history: list[tuple[float, int, int]]

    @property
    def sessions(self) -> int:
        """DTLS sessions and TLS connections, handshakes included."""
        ...


class StartedServer(Protocol):
    """A server that was started for a run."""

    root: x509.Certificate
    host: str
    ports: Mapping[Transport, int]
    view: ServerView

    def certificates_per_device(self) -> Mapping[str, int]:
        """How many certificates its ledger holds for each device, by UDID."""
        ...


class ServerFactory(Protocol):
    """Starts a server within the simulation; :func:`est_server.in_process.serve_in_process`."""

    def __call__(
        self,
        directory: Path,
        listed: Sequence[tuple[str, bytes]],
        settings: Mapping[str, object],
        *,
        open_datagrams: DatagramTransportFactory,
        open_listener: StreamListenerFactory,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        standing_still: Callable[[], AbstractContextManager[None]],
    ) -> AbstractAsyncContextManager[StartedServer]:
        """Start a server that knows the devices in ``listed``."""
        ...


def server_factory(name: str = DEFAULT_SERVER) -> ServerFactory:
    """The factory with this name, ``package.module:function``.

    :raises ConfigurationError: it is not installed.
    """
    try:
        return cast(ServerFactory, pkgutil.resolve_name(name))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"no server to start for the run: {error}; install the extra 'server', or simulate "
            "against a server of yours with --url"
        ) from error
