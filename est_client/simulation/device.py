"""One simulated device: it boots, enrolls, works, renews, and sometimes loses its power."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from random import Random
from typing import Any

from cryptography import x509

from est_client.client import EstClient
from est_client.connection import Connector
from est_client.lifecycle import Waiting, enroll_device, renew_device
from est_client.simulation.flash import Flash, FlashKeyStore
from est_client.simulation.metered import MeteredConnector
from est_client.simulation.microcontroller import Processor
from est_client.simulation.network import DevicePath
from est_client.simulation.scenario import IdentityModel, Scenario
from est_client.simulation.traffic import Meter
from est_client.trust import TrustDatabase
from est_protocol.errors import (
    CertificateRejected,
    ChannelError,
    EstError,
    MessageError,
    PeerNotTrusted,
    ServerRefused,
    StillPending,
)
from est_protocol.keys import SigningKey
from est_protocol.secure_channel.context import LocalCredentials

#: Steps within which a device whose power goes at a random moment loses it.
_STEPS = 60
_LONGEST_PAUSE = 3600.0
_MOST_FAILURES_KEPT = 8


class Outcome(StrEnum):
    """What became of a device."""

    WAITING = "waiting"
    ENROLLING = "enrolling"
    ENROLLED = "enrolled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class FactoryIdentity:
    """What a device has when it leaves the factory.

    :param udid: what the server's list calls it.
    :param credentials: its key, and its birth certificate if it has one.
    :param secret: its one-time secret, if it has one.
    """

    udid: str
    credentials: LocalCredentials
    secret: str | None = None


@dataclass(slots=True)
class Life:
    """What is noted of one device. Moments are in seconds from the start of the simulation.

    :param arrived_at: when it switched on.
    :param enrolled_at: when its first certificate was in its memory.
    :param attempts: how often it tried to enroll.
    :param failures: why attempts failed, the first few.
    :param power_losses: how often it lost its power.
    :param renewals: how often it renewed.
    :param failed_renewals: how often it could not.
    """

    outcome: Outcome = Outcome.WAITING
    arrived_at: float = 0.0
    enrolled_at: float | None = None
    attempts: int = 0
    failures: list[str] = field(default_factory=list)
    power_losses: int = 0
    renewals: int = 0
    failed_renewals: int = 0

    @property
    def seconds_to_certificate(self) -> float | None:
        """From switching on to the certificate."""
        return None if self.enrolled_at is None else self.enrolled_at - self.arrived_at


class PowerSupply:
    """Counts the steps of a device, and fails at one of them.

    :param fails_at: the step, from 1; ``None``: it does not fail.
    :param fail: called when it does.
    """

    def __init__(self, fails_at: int | None, fail: Callable[[], None]) -> None:
        self._fails_at = fails_at
        self._fail = fail
        #: Steps so far.
        self.steps = 0

    def step(self) -> None:
        """One step more."""
        self.steps += 1
        if self.steps == self._fails_at:
            self._fail()


class SimulatedDevice:
    """One device.

    :param number: its place in the fleet, from 0.
    :param scenario: how it behaves.
    :param factory: what it has when it leaves the factory.
    :param path: its way to the server.
    :param connector: makes connections over ``path``.
    :param anchors: the certificates that it trusts.
    :param label: selects a CA and a profile.
    :param make_key: makes its further keys.
    :param random: draws its moments.
    :param now: the date and time of its clock.
    :param report: called whenever its outcome changes.
    """

    def __init__(
        self,
        number: int,
        scenario: Scenario,
        factory: FactoryIdentity,
        path: DevicePath,
        connector: Connector,
        anchors: Sequence[x509.Certificate],
        *,
        label: str | None,
        make_key: Callable[[], SigningKey],
        random: Random,
        now: Callable[[], datetime],
        report: Callable[[SimulatedDevice], None] = lambda _: None,
    ) -> None:
        self._scenario = scenario
        self.factory = factory
        self._path = path
        self._anchors = tuple(anchors)
        self._label = label
        self._loop = asyncio.get_running_loop()
        self._random = random
        self._now = now
        self._report = report
        self._make_key = make_key
        self._connector = MeteredConnector(connector, path.meter, path.processor, self._loop.time)
        self.life = Life()
        self.power = PowerSupply(self._power_loss_step(number), self._lose_power)
        path.on_packet = self.power.step
        self.flash = Flash(scenario.flash, self.power.step)
        self._store = FlashKeyStore(self.flash, self._new_key)
        self._running: asyncio.Task[None] | None = None
        self._powerless = False

    @property
    def meter(self) -> Meter:
        """What it sent and received."""
        return self._path.meter

    @property
    def processor(self) -> Processor:
        """What it computed."""
        return self._path.processor

    def _power_loss_step(self, number: int) -> int | None:
        steps = self._scenario.power_loss_steps
        if self._random.random() >= self._scenario.power_losses:
            return None
        return steps[number % len(steps)] if steps else self._random.randint(1, _STEPS)

    def _new_key(self, _kind: str | None) -> SigningKey:
        self.processor.make_key()
        return self._make_key()

    async def live(self, arrives_at: float) -> None:
        """Live a whole life: arrive, enroll, work and renew."""
        await asyncio.sleep(arrives_at - self._path.now())
        self.life.arrived_at = self._path.now()
        await self._store.replace_identity(
            self.factory.credentials.key, self.factory.credentials.chain
        )
        self._become(Outcome.ENROLLING)
        try:
            async with asyncio.timeout(self._scenario.gives_up_after):
                await self._through_power_losses(self._enroll)
        except TimeoutError:
            self._note_failure("no certificate in time")
        except EstError as error:
            self._note_failure(describe(error))
        else:
            self.life.enrolled_at = self._path.now()
            self._become(Outcome.ENROLLED)
            await self._work()
            return
        self._become(Outcome.FAILED)

    def _become(self, outcome: Outcome) -> None:
        self.life.outcome = outcome
        self._report(self)

    def _note_failure(self, why: str) -> None:
        if len(self.life.failures) < _MOST_FAILURES_KEPT:
            self.life.failures.append(why)

    # -- power ----------------------------------------------------------------------------------

    def _lose_power(self) -> None:
        self._powerless = True
        self.life.power_losses += 1
        self._path.lose_power()
        if self._running is not None:
            self._running.cancel()

    async def _through_power_losses(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do ``work``; after each power loss boot and begin again with what the flash holds."""
        while True:
            self._powerless = False
            self._running = asyncio.create_task(work())
            try:
                await self._running
                return
            except asyncio.CancelledError:
                if not self._powerless:
                    raise
            finally:
                self._running = None
            await asyncio.sleep(self._scenario.reboot)

    # -- enrolling ------------------------------------------------------------------------------

    @property
    def _is_enrolled(self) -> bool:
        identity: LocalCredentials | None = self.flash.read("identity")
        return (
            identity is not None
            and bool(identity.chain)
            and (identity.chain != self.factory.credentials.chain)
        )

    async def _client(self) -> EstClient:
        factory = self.factory
        return EstClient(
            self._connector,
            label=self._label,
            trust=TrustDatabase(explicit=await self._store.trust_anchors() or self._anchors),
            otp_challenge=factory.secret and f"{factory.udid}:{factory.secret}",
            retry=self._scenario.retry,
            monotonic=self._loop.time,
            now=self._now,
        )

    async def _enroll(self) -> None:
        """Try until there is a certificate, or no sense in trying.

        :raises EstError: there is no sense in trying again.
        """
        pause = self._scenario.comes_back_after
        while not self._is_enrolled:
            self.life.attempts += 1
            try:
                async with await self._client() as client:
                    await enroll_device(
                        client,
                        self._store,
                        fresh_key=self._scenario.identity is IdentityModel.BIRTH_CERTIFICATE,
                        wait=Waiting(now=self._now),
                    )
            except EstError as error:
                if not _may_pass(error):
                    raise
                self._note_failure(describe(error))
                await asyncio.sleep(pause * (1 + self._random.random()))
                pause = min(pause * 2, _LONGEST_PAUSE)

    # -- working --------------------------------------------------------------------------------

    async def _work(self) -> None:
        for _ in range(self._scenario.renewals):
            await self._wait_for_renewal()
            try:
                await self._through_power_losses(self._renew)
                self.life.renewals += 1
            except EstError as error:
                self._note_failure(f"renewal: {describe(error)}")
                self.life.failed_renewals += 1
            self._report(self)
        if self._scenario.factory_reset:
            await self._reset()

    async def _wait_for_renewal(self) -> None:
        identity: LocalCredentials = self.flash.read("identity")
        due = self._scenario.renewal.renew_at(identity.chain[0], self._random.random())
        await asyncio.sleep(max(0.0, (due - self._now()).total_seconds()))

    async def _renew(self) -> None:
        pause = self._scenario.comes_back_after
        before: LocalCredentials = self.flash.read("identity")
        while self.flash.read("identity").chain == before.chain:
            try:
                async with await self._client() as client:
                    await renew_device(client, self._store, wait=Waiting(now=self._now))
            except EstError as error:
                if not _may_pass(error) or self._now() > before.chain[0].not_valid_after_utc:
                    raise
                self._note_failure(f"renewal: {describe(error)}")
                await asyncio.sleep(pause * (1 + self._random.random()))
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _reset(self) -> None:
        """A factory reset: the operational identity is gone, the factory's is still there."""
        self.flash.erase("identity", "pending", "request", "anchors")
        credentials = self.factory.credentials
        await self._store.replace_identity(credentials.key, credentials.chain)
        try:
            await self._through_power_losses(self._enroll)
        except EstError as error:
            self._note_failure(f"after the factory reset: {describe(error)}")
            self._become(Outcome.FAILED)


def _may_pass(error: EstError) -> bool:
    """Whether the same may work later."""
    if isinstance(error, PeerNotTrusted | CertificateRejected | MessageError):
        return False
    if isinstance(error, ServerRefused):
        return error.retry_after is not None
    return isinstance(error, ChannelError | StillPending)


def describe(error: EstError) -> str:
    """An error in one line, for people and for counting."""
    if isinstance(error, ServerRefused):
        return f"refused: {error}"
    return str(error) or type(error).__name__
