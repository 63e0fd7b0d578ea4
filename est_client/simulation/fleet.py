"""A fleet and its server in one event loop."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from cryptography import x509

from est_client.coaps import WELL_KNOWN_EST, CoapsClientLimits, CoapsConnector
from est_client.connection import Connector
from est_client.https import HttpsConnector
from est_client.simulation.device import FactoryIdentity, SimulatedDevice
from est_client.simulation.identities import Factory, derived_key
from est_client.simulation.link import Link, Medium
from est_client.simulation.microcontroller import Processor
from est_client.simulation.network import DevicePath, FarEnd, Internet
from est_client.simulation.openssl_clock import openssl_clock
from est_client.simulation.results import FleetResult, collect
from est_client.simulation.scenario import IdentityModel, Scenario
from est_client.simulation.server import ServerFactory, server_factory
from est_client.simulation.sockets import Sockets
from est_client.simulation.traffic import Meter
from est_client.simulation.virtual_time import VirtualLoop
from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.coap.session import block_exponent
from est_protocol.errors import ConfigurationError
from est_protocol.keys import SigningKey, spki_sha256
from est_protocol.messages import Transport

#: Told of every device whose outcome changes, with the simulated time.
Watcher = Callable[[SimulatedDevice, float], None]


def simulate(
    scenario: Scenario,
    *,
    server: ServerFactory | None = None,
    make_key: Callable[[], SigningKey] | None = None,
    watch: Watcher = lambda _device, _now: None,
) -> FleetResult:
    """Run a fleet against a server of its own, in virtual time.

    Everything that devices and server do is real: DTLS and TLS, CoAP and HTTP, certificates and
    the ledger. Sockets and time are not: minutes on the air pass in the milliseconds that the
    code needs for them. Not to be called while an event loop runs.

    :param server: starts the server; ours by default.
    :param make_key: makes the keys that devices leave the factory with, in a token for instance
        (:mod:`est_client.simulation.token`), for bare keys over HTTPS; by default they follow
        from the seed.
    :param watch: told of every device whose outcome changes.
    :raises ConfigurationError: the scenario makes no sense, there is no server to start, or this
        system's OpenSSL clock cannot be set.
    """
    if make_key is not None:
        _require_signatures_only(scenario)
    started = time.perf_counter()
    factory = server or server_factory()
    epoch = datetime.now(UTC).replace(microsecond=0)
    with (
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
        tempfile.TemporaryDirectory(prefix="est-simulation-", dir=_memory()) as directory,
        _repeatable(scenario.seed),
    ):
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        with openssl_clock(lambda: epoch.timestamp() + loop.time()):
            run = _VirtualRun(scenario, epoch, loop, make_key, watch)
            result = runner.run(run.run(factory, Path(directory)))
    result.real_seconds = time.perf_counter() - started
    return result


def _require_signatures_only(scenario: Scenario) -> None:
    """A key that is made elsewhere may be one that signs, but does not authenticate a channel."""
    if (
        scenario.transport is not Transport.HTTPS
        or scenario.identity is not IdentityModel.BARE_KEY
        or scenario.renewals
    ):
        raise ConfigurationError(
            "keys of a token are for first enrollments with bare keys over HTTPS: OpenSSL cannot "
            "authenticate a channel with them"
        )


def _memory() -> str | None:
    """A directory in memory, if there is one: a disk's flushes would cost most of the time."""
    shared = "/dev/shm"
    return shared if os.access(shared, os.W_OK) else None


def simulate_elsewhere(
    scenario: Scenario,
    target: Target,
    *,
    watch: Watcher = lambda _device, _now: None,
) -> FleetResult:
    """Run a fleet against a server that runs elsewhere, in real time.

    The links are emulated in this process; what crosses them goes on over real sockets. The server
    has to know the devices already. Not to be called while an event loop runs.

    :raises ConfigurationError: the scenario makes no sense.
    """
    started = time.perf_counter()
    with asyncio.Runner() as runner, _repeatable(scenario.seed):
        result = runner.run(_run_elsewhere(scenario, target, watch))
    result.real_seconds = time.perf_counter() - started
    return result


async def _run_elsewhere(scenario: Scenario, target: Target, watch: Watcher) -> FleetResult:
    loop, sockets = asyncio.get_running_loop(), Sockets()
    began = loop.time()
    fleet = Fleet(scenario, sockets, now=lambda: datetime.now(UTC), watch=watch)
    try:
        devices = await fleet.live(target)
        ended = loop.time() - began
        # What the last devices said at the end is still on its way.
        await asyncio.sleep(2 * scenario.profile.link.up.latency + 0.1)
    finally:
        await sockets.close()
    return collect(scenario, devices, None, ended)


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Let the time-outs of CoAP, which the libraries draw, be the same for the same seed."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@dataclass(frozen=True, slots=True)
class Target:
    """The server that a fleet enrolls at.

    :param host: DNS name or IP address.
    :param port: of the scenario's transport.
    :param anchors: what the devices trust.
    :param label: selects a CA and a profile.
    :param root: path segments in front of the label and the short name, over CoAP.
    """

    host: str
    port: int
    anchors: tuple[x509.Certificate, ...]
    label: str | None = None
    root: tuple[str, ...] = WELL_KNOWN_EST


class Fleet:
    """The devices of a scenario, made for one server.

    :param far_end: what their links lead to.
    :param now: the date and time.
    :param watch: told of every device whose outcome changes.
    :param make_key: makes the keys that devices leave the factory with.
    """

    def __init__(
        self,
        scenario: Scenario,
        far_end: FarEnd,
        *,
        now: Callable[[], datetime],
        watch: Watcher,
        make_key: Callable[[], SigningKey] | None = None,
    ) -> None:
        self.scenario = scenario
        self._far_end = far_end
        self._now = now
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._origin = self._loop.time()
        self.factory = Factory(scenario.seed, scenario.identity, now(), make_key)
        self.identities = list(self.factory.devices(scenario.devices))

    async def live(self, target: Target) -> list[SimulatedDevice]:
        """Let every device live its life."""
        scenario = self.scenario
        media: dict[int, Medium] = {}
        devices = []
        for number, identity in enumerate(self.identities):
            medium = None
            if scenario.cell > 1:
                medium = media.setdefault(number // scenario.cell, Medium())
            devices.append(self._device(number, identity, target, medium))
        moments = scenario.arrivals.moments(len(devices), Random(f"{scenario.seed}|arrivals"))
        Random(f"{scenario.seed}|order").shuffle(moments)
        async with asyncio.TaskGroup() as group:
            for device, moment in zip(devices, moments, strict=True):
                group.create_task(device.live(moment))
        return devices

    def _device(
        self,
        number: int,
        identity: FactoryIdentity,
        target: Target,
        medium: Medium | None,
    ) -> SimulatedDevice:
        scenario = self.scenario
        link = Link(scenario.profile.link, Random(f"{scenario.seed}|link|{number}"), medium)
        path = DevicePath(
            f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            link,
            self._far_end,
            Meter(),
            Processor(scenario.microcontroller, self._loop.time),
            origin=self._origin,
            receive_buffer=scenario.receive_buffer,
        )
        keys = _further_keys(scenario.seed, number)
        return SimulatedDevice(
            number,
            scenario,
            identity,
            path,
            self._connector(path, target),
            target.anchors,
            label=target.label,
            make_key=lambda: next(keys),
            random=Random(f"{scenario.seed}|device|{number}"),
            now=self._now,
            report=lambda device: self._watch(device, path.now()),
        )

    def _connector(self, path: DevicePath, target: Target) -> Connector:
        scenario = self.scenario
        if scenario.transport is Transport.HTTPS:
            return HttpsConnector(
                target.host,
                target.port,
                policy=scenario.tls,
                timeout=scenario.profile.patience,
                now=self._now,
                open_stream=path.connect,
            )
        return CoapsConnector(
            target.host,
            target.port,
            root=target.root,
            policy=scenario.dtls,
            block_size=scenario.effective_block_size,
            parameters=TransmissionParameters(ack_timeout=scenario.effective_ack_timeout),
            limits=CoapsClientLimits(handshake_timeout=scenario.profile.patience),
            transport_factory=path,
        )


def _further_keys(seed: int, number: int) -> Iterator[SigningKey]:
    count = 0
    while True:
        count += 1
        yield derived_key(seed, "device", number, "key", count)


class _VirtualRun:
    """One run in virtual time against a server that is started for it."""

    def __init__(
        self,
        scenario: Scenario,
        epoch: datetime,
        loop: VirtualLoop,
        make_key: Callable[[], SigningKey] | None,
        watch: Watcher,
    ) -> None:
        self._scenario = scenario
        self._epoch = epoch
        self._loop = loop
        self._make_key = make_key
        self._watch = watch

    def _now(self) -> datetime:
        return self._epoch + timedelta(seconds=self._loop.time())

    async def run(self, factory: ServerFactory, directory: Path) -> FleetResult:
        """Start the server, let the fleet live, and sum up."""
        internet = Internet()
        fleet = Fleet(
            self._scenario, internet, now=self._now, watch=self._watch, make_key=self._make_key
        )
        listed = [
            (device.udid, spki_sha256(device.credentials.key.public_key()))
            for device in fleet.identities
        ]
        async with factory(
            directory / "server",
            listed,
            self._settings(fleet),
            open_datagrams=internet.open_datagrams,
            open_listener=internet.listen,
            now=self._now,
            clock=self._loop.time,
            standing_still=self._loop.standing_still,
        ) as server:
            target = Target(server.host, server.ports[self._scenario.transport], (server.root,))
            devices = await fleet.live(target)
            ended_at = self._loop.time()
        return collect(self._scenario, devices, server, ended_at)

    def _settings(self, fleet: Fleet) -> Mapping[str, object]:
        scenario = self._scenario
        settings: dict[str, object] = {
            "validity": scenario.validity,
            "maximum_sessions": scenario.maximum_sessions,
            "mtu": scenario.effective_mtu,
            "block_size_exponent": block_exponent(scenario.effective_block_size),
            "ack_timeout": scenario.effective_ack_timeout,
            "handshake_timeout": scenario.profile.patience,
            "send_root": scenario.send_root,
            "workers": scenario.server_workers,
            "work_time": scenario.server_time,
            "secrets": {d.udid: d.secret for d in fleet.identities if d.secret is not None},
        }
        if scenario.identity is IdentityModel.BIRTH_CERTIFICATE:
            settings["manufacturers"] = (fleet.factory.manufacturer,)
        return settings
