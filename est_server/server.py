"""The server as one object: both transports over one service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from est_protocol.errors import ConfigurationError
from est_server.alarms import AlarmSink
from est_server.assembly import open_service, open_store
from est_server.coaps.server import CoapsEndpoint
from est_server.config import ServerConfig, load_config
from est_server.config.changes import require_no_restart
from est_server.crl_server import CrlEndpoint
from est_server.https import HttpsEndpoint, PlainHttpEndpoint, ProxyTrust
from est_server.https.peers import NO_PROXIES
from est_server.interfaces import Authorizer
from est_server.listeners import Listeners, Served
from est_server.retirement import Retirement
from est_server.service import EnrollmentService
from est_server.stores.store import Store

#: Changes where a server listens, or whether, before it does.
Arrangement = Callable[[Served], Served]


@dataclass(slots=True)
class _Source:
    """What a server was made from, and is made from again at a reload.

    :param generation: closes the service that new connections go by.
    """

    config: ServerConfig
    store: Store
    authorizer: Authorizer | None
    alarm_sink: AlarmSink | None
    arrange: Arrangement
    processes: int
    generation: AsyncExitStack

    async def open(self, config: ServerConfig) -> tuple[Served, AsyncExitStack]:
        """What ``config`` describes, and what closes its service."""
        async with AsyncExitStack() as stack:
            service = open_service(
                config,
                authorizer=self.authorizer,
                alarm_sink=self.alarm_sink,
                store=self.store,
                processes=self.processes,
            )
            served = self.arrange(Served.of(await stack.enter_async_context(service)))
            return served, stack.pop_all()


class EstServer:
    """An EST server; an async context manager that listens inside and drains at its end.

    :param service: answers the requests of both transports.
    :param https: where and how to serve HTTPS, or ``None``.
    :param coaps: where and how to serve CoAPS, or ``None``.
    :param crls: which CRLs to publish and where, or ``None``.
    :param proxied: where to serve TLS-terminating proxies over plain HTTP, or ``None``.
    :param proxies: whose word is taken for who the client is.
    :raises ConfigurationError: there is nothing to serve.
    """

    def __init__(
        self,
        service: EnrollmentService,
        *,
        https: HttpsEndpoint | None = None,
        coaps: CoapsEndpoint | None = None,
        crls: CrlEndpoint | None = None,
        proxied: PlainHttpEndpoint | None = None,
        proxies: ProxyTrust = NO_PROXIES,
    ) -> None:
        self._served = Served(service, https, coaps, crls, proxied, proxies)
        self._source: _Source | None = None
        self._listeners = Listeners()
        self._retirements: list[Retirement] = []
        self._reloading = asyncio.Lock()
        #: Where HTTPS listens, as ``host:port``; ``None`` where it does not.
        self.https_address: str | None = None
        #: Where CoAPS listens, as ``host:port``; ``None`` where it does not.
        self.coaps_address: str | None = None
        #: Where CRLs are served, as ``host:port``; ``None`` where they are not.
        self.crl_address: str | None = None
        #: Where proxies are served, as ``host:port`` or ``unix:PATH``; ``None`` where they are not.
        self.proxy_address: str | None = None

    @classmethod
    @asynccontextmanager
    async def from_config(
        cls,
        config: ServerConfig | Path | str,
        *,
        authorizer: Authorizer | None = None,
        alarm_sink: AlarmSink | None = None,
        arrange: Arrangement = lambda served: served,
        processes: int = 1,
    ) -> AsyncIterator[Self]:
        """A server that listens as its configuration says; its store is closed at the end.

        :param config: a configuration, or the path of an ``est-server.toml``.
        :param authorizer: decides for every label, in place of the configured authorizers.
        :param alarm_sink: hears of alarms, beside the log and the webhook of the configuration.
        :param arrange: has the last word on where to listen.
        :param processes: how many serve on the same ports; they share what may be guessed.
        :raises ConfigurationError: the configuration, or a file that it names, is not usable.
        :raises OSError: an address cannot be listened on.
        """
        if not isinstance(config, ServerConfig):
            config = load_config(Path(config))
        async with open_store(config, serves=True) as store:
            source = _Source(
                config, store, authorizer, alarm_sink, arrange, processes, AsyncExitStack()
            )
            served, source.generation = await source.open(config)
            try:
                server = cls._of(served)
                server._source = source
                async with server:
                    yield server
            finally:
                await source.generation.aclose()

    @property
    def config(self) -> ServerConfig:
        """The configuration that new connections go by.

        :raises ConfigurationError: it was not made by :meth:`from_config`.
        """
        return self._configured().config

    def _configured(self) -> _Source:
        if self._source is None:
            raise ConfigurationError("this server was not made from a configuration")
        return self._source

    @classmethod
    def _of(cls, served: Served) -> Self:
        return cls(
            served.service,
            https=served.https,
            coaps=served.coaps,
            crls=served.crls,
            proxied=served.proxied,
            proxies=served.proxies,
        )

    def __str__(self) -> str:
        """Where it listens, such as ``https=127.0.0.1:8443 coaps=127.0.0.1:5684``."""
        addresses = {
            "https": self.https_address,
            "coaps": self.coaps_address,
            "crl": self.crl_address,
            "proxy": self.proxy_address,
        }
        return " ".join(f"{name}={address}" for name, address in addresses.items() if address)

    async def reload(self, config: ServerConfig | Path | str | None = None) -> None:
        """Go by the configuration as it is now, files that it names included.

        That holds for new connections and sessions. Those that are open keep what they began
        with, for as long as ``[service.reload]`` lets them. Counts of wrong secrets begin anew.

        :param config: a configuration, or the path of one; by default the file is read again.
        :raises ConfigurationError: it is not usable, or asks for what only a restart can change,
            or this server was not made by :meth:`from_config`. Nothing has changed then.
        """
        source = self._configured()
        async with self._reloading:
            if not isinstance(config, ServerConfig):
                config = load_config(Path(config or source.config.file))
            require_no_restart(source.config, config)
            served, generation = await source.open(config)
            try:
                retired = await self._listeners.renew(served)
            except BaseException:
                await generation.aclose()
                raise
            limits = config.service.reload
            self._retirements = [known for known in self._retirements if not known.over]
            previous, source.generation = source.generation, generation
            self._retirements.append(Retirement(retired, previous.aclose, limits.grace))
            for oldest in self._retirements[: -limits.generations]:
                oldest.hurry()
            source.config = config

    async def __aenter__(self) -> Self:
        try:
            listeners = await Listeners.open(self._served)
        except BaseException:
            await self._served.service.close()
            raise
        self._listeners = listeners
        self.https_address = listeners.https.addresses[0] if listeners.https else None
        self.coaps_address = listeners.coaps.addresses[0] if listeners.coaps else None
        self.proxy_address = listeners.proxied.addresses[0] if listeners.proxied else None
        self.crl_address = listeners.crls.addresses[0] if listeners.crls else None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        async with asyncio.TaskGroup() as closing:
            closing.create_task(self._listeners.close())
            for retirement in self._retirements:
                closing.create_task(retirement.close())
        if self._source is None:
            await self._served.service.close()
