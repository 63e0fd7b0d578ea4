"""The ledger against a model of it, over sequences of events that hypothesis makes up.

Two processes share one store; each may crash and come back with the identity it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.device_records import DeviceState
from est_server.ledger_records import (
    CertificateState,
    EnrollmentIntent,
    IssuanceTicket,
    IssuedCertificate,
)
from est_server.life_cycle import LifeCycleStep, StepNotPossible, state_after
from est_server.stores.postgresql import PostgresqlAddress
from est_server.stores.postgresql.store import PostgresqlStore
from est_server.stores.sqlite import SqliteStore
from est_server.stores.store import Store
from tests.server.ledger_values import (
    FakeClock,
    certificate,
    first_enrollment,
    listed,
    order,
    renewal,
)
from tests.server.postgresql_server import empty

T = TypeVar("T")

LEASE = timedelta(seconds=30)
DEVICES = ("device-0", "device-1")
LABELS = (None, "vpn")
KEYS = ("a", "b")
PROCESSES = ("one", "two")

Place = tuple[str, str | None]


@dataclass
class Attempt:
    """An attempt that is open, as the model sees it."""

    ticket: IssuanceTicket
    owner: str
    until: datetime
    held: bool = True

    @property
    def place(self) -> Place:
        return self.ticket.intent.device, self.ticket.intent.label


@dataclass
class Record:
    """An issued certificate, as the model sees it."""

    issued: IssuedCertificate
    intent: EnrollmentIntent
    number: int
    state: CertificateState = CertificateState.ACTIVE


@dataclass
class Model:
    """What the ledger should hold."""

    devices: dict[str, DeviceState] = field(default_factory=dict)
    before_suspension: dict[str, DeviceState] = field(default_factory=dict)
    open: dict[Place, Attempt] = field(default_factory=dict)
    claims: dict[Place, int] = field(default_factory=dict)
    records: dict[bytes, Record] = field(default_factory=dict)

    def may_enroll(self, device: str) -> bool:
        return self.devices.get(device, DeviceState.LISTED).may_enroll

    def take(self, step: LifeCycleStep, device: str, now: datetime) -> None:
        before = self.before_suspension.get(device, DeviceState.LISTED)
        self.devices[device] = state_after(step, self.devices[device], before)
        if step in (LifeCycleStep.SUSPEND, LifeCycleStep.RESUME):
            return
        for attempt in [a for a in self.open.values() if a.place[0] == device]:
            self.give_up(attempt)
        if step in (LifeCycleStep.RESET, LifeCycleStep.TRANSFER):
            for place in [place for place in self.claims if place[0] == device]:
                del self.claims[place]
        for record in self.records.values():
            good = record.issued.certificate.not_valid_after_utc > now
            if record.issued.device == device and good and step is not LifeCycleStep.RESET:
                record.state = CertificateState.REVOKED

    def give_up(self, attempt: Attempt) -> None:
        if self.open.get(attempt.place) is attempt:
            del self.open[attempt.place]
            if self.claims.get(attempt.place) == attempt.ticket.number:
                del self.claims[attempt.place]

    def predecessor_refusal(self, intent: EnrollmentIntent) -> RefusalReason | None:
        assert intent.predecessor is not None
        state = self.records[intent.predecessor].state
        if state is CertificateState.REVOKED:
            return RefusalReason.CERTIFICATE_REVOKED
        if state is CertificateState.SUPERSEDED:
            return RefusalReason.CERTIFICATE_SUPERSEDED
        return None

    def begin(
        self, intent: EnrollmentIntent, owner: str, now: datetime
    ) -> Record | RefusalReason | None:
        """A record to replay, a refusal, or ``None`` for a ticket."""
        place = (intent.device, intent.label)
        if not self.may_enroll(intent.device):
            return RefusalReason.DEVICE_NOT_ACTIVE
        for record in self.records.values():
            if (
                record.intent.request_key == intent.request_key
                and record.state is CertificateState.ACTIVE
                and record.issued.certificate.not_valid_after_utc > now
                and (intent.predecessor or self.claims.get(place) == record.number)
            ):
                return record
        attempt = self.open.get(place)
        dead = attempt and (attempt.until <= now or (attempt.owner == owner and not attempt.held))
        if attempt and not dead and attempt.ticket.intent.request_key == intent.request_key:
            return RefusalReason.TRY_LATER
        refusal = (
            self.predecessor_refusal(intent)
            if intent.predecessor
            else self._claim_refusal(place, attempt if dead else None)
        )
        if refusal is None and attempt and not dead:
            return RefusalReason.TRY_LATER
        if refusal is None and attempt:
            self.give_up(attempt)
        return refusal

    def _claim_refusal(self, place: Place, dead: Attempt | None) -> RefusalReason | None:
        if place not in self.claims or (dead and self.claims[place] == dead.ticket.number):
            return None
        return RefusalReason.ALREADY_CLAIMED


class LedgerMachine(RuleBasedStateMachine):
    """Does the same to the store and to the model, and compares."""

    attempts: Bundle[Attempt] = Bundle("attempts")
    certificates: Bundle[bytes] = Bundle("certificates")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.clock = FakeClock()
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory()
        self.stores: dict[str, tuple[Store, AsyncExitStack]] = {}
        for name in PROCESSES:
            self.start(name)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def outcome(self, work: Coroutine[Any, Any, T]) -> T | RefusalReason:
        try:
            return self.run(work)
        except RequestRefused as refused:
            return refused.reason

    def start(self, name: str) -> None:
        stack = AsyncExitStack()
        opening = self.opening(name)
        self.stores[name] = self.run(stack.enter_async_context(opening)), stack

    def opening(self, name: str) -> AbstractAsyncContextManager[Store]:
        path = Path(self.directory.name) / "store.db"
        return SqliteStore.open(path, clock=self.clock, owner=name)

    def stop(self, name: str) -> None:
        self.run(self.stores.pop(name)[1].aclose())

    def store(self, name: str = "one") -> Store:
        return self.stores[name][0]

    def teardown(self) -> None:
        for name in list(self.stores):
            self.stop(name)
        self.runner.close()
        self.directory.cleanup()

    @rule(process=st.sampled_from(PROCESSES))
    def restart(self, process: str) -> None:
        self.stop(process)
        self.start(process)
        for attempt in self.model.open.values():
            attempt.held = attempt.held and attempt.owner != process

    @rule(seconds=st.sampled_from([1, 29, 30, 31, 3601]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds=seconds)

    @rule(number=st.sampled_from([0, 1]))
    def list_device(self, number: int) -> None:
        self.run(self.store().add_devices([listed(number)], now=self.clock.now()))
        self.model.devices.setdefault(DEVICES[number], DeviceState.LISTED)

    @rule(device=st.sampled_from(DEVICES), step=st.sampled_from(LifeCycleStep))
    def take_step(self, device: str, step: LifeCycleStep) -> None:
        if device not in self.model.devices:
            return
        before = self.model.devices[device]
        change = self.store().change_device(order(step, device), now=self.clock.now())
        try:
            self.model.take(step, device, self.clock.now())
        except StepNotPossible:
            with pytest.raises(StepNotPossible):
                self.run(change)
            return
        if step is LifeCycleStep.SUSPEND:
            self.model.before_suspension[device] = before
        assert self.run(change).device.state is self.model.devices[device]

    @rule(
        target=attempts,
        process=st.sampled_from(PROCESSES),
        device=st.sampled_from(DEVICES),
        label=st.sampled_from(LABELS),
        key=st.sampled_from(KEYS),
    )
    def enroll(self, process: str, device: str, label: str | None, key: str) -> Any:
        return self.begin(process, first_enrollment(device, key=key, label=label))

    @rule(
        target=attempts,
        process=st.sampled_from(PROCESSES),
        predecessor=certificates,
        key=st.sampled_from(KEYS),
    )
    def renew(self, process: str, predecessor: bytes, key: str) -> Any:
        issued = self.model.records[predecessor].issued
        return self.begin(process, renewal(predecessor, issued.device, key=key, label=issued.label))

    @rule(target=attempts, process=st.sampled_from(PROCESSES), sha256=certificates)
    def repeat(self, process: str, sha256: bytes) -> Any:
        return self.begin(process, self.model.records[sha256].intent)

    def begin(self, process: str, intent: EnrollmentIntent) -> Any:
        now = self.clock.now()
        expected = self.model.begin(intent, process, now)
        begun = self.outcome(self.store(process).begin(intent))
        if isinstance(begun, RefusalReason):
            assert begun is expected
            return multiple()
        if isinstance(begun, IssuedCertificate):
            assert isinstance(expected, Record)
            assert begun.sha256 == expected.issued.sha256
            return multiple()
        assert expected is None
        assert isinstance(begun, IssuanceTicket)
        attempt = Attempt(begun, process, now + LEASE)
        self.model.open[attempt.place] = attempt
        if intent.predecessor is None:
            self.model.claims[attempt.place] = begun.number
        return attempt

    @rule(
        target=certificates,
        attempt=consumes(attempts),
        lifetime=st.sampled_from([timedelta(hours=1), timedelta(days=90)]),
    )
    def complete(self, attempt: Attempt, lifetime: timedelta) -> Any:
        intent, place = attempt.ticket.intent, attempt.place
        key = next(k for k in KEYS if first_enrollment(key=k).spki_sha256 == intent.spki_sha256)
        leaf = certificate(key, lifetime=lifetime)
        completing = self.store(attempt.owner).complete(attempt.ticket, leaf, now=self.clock.now())
        expected = self.completion_refusal(attempt)
        issued = self.outcome(completing)
        if isinstance(issued, RefusalReason):
            assert issued is expected
            return multiple()
        assert expected is None
        for record in self.model.records.values():
            same = (record.issued.device, record.issued.label) == place
            if same and record.state is CertificateState.ACTIVE:
                record.state = CertificateState.SUPERSEDED
        self.model.records[issued.sha256] = Record(issued, intent, attempt.ticket.number)
        del self.model.open[place]
        if self.model.devices.get(intent.device) is DeviceState.LISTED:
            self.model.devices[intent.device] = DeviceState.ENROLLED
        return issued.sha256

    def completion_refusal(self, attempt: Attempt) -> RefusalReason | None:
        intent = attempt.ticket.intent
        if self.model.open.get(attempt.place) is not attempt:
            return RefusalReason.TRY_LATER
        if not self.model.may_enroll(intent.device):
            return RefusalReason.DEVICE_NOT_ACTIVE
        return self.model.predecessor_refusal(intent) if intent.predecessor else None

    @rule(attempt=consumes(attempts))
    def abandon(self, attempt: Attempt) -> None:
        self.run(self.store(attempt.owner).abandon(attempt.ticket, reason="", now=self.clock.now()))
        self.model.give_up(attempt)

    @rule(sha256=certificates)
    def revoke(self, sha256: bytes) -> None:
        self.run(
            self.store().revoke_certificate(
                sha256, actor="operator", reason="", now=self.clock.now()
            )
        )
        self.model.records[sha256].state = CertificateState.REVOKED

    @rule(device=st.sampled_from(DEVICES), label=st.sampled_from(LABELS))
    def release(self, device: str, label: str | None) -> None:
        place = (device, label)
        released = self.run(
            self.store().release_claim(
                device, label, actor="operator", reason="", now=self.clock.now()
            )
        )
        assert released == (place in self.model.claims)
        number = self.model.claims.pop(place, None)
        attempt = self.model.open.get(place)
        if attempt and attempt.ticket.number == number:
            del self.model.open[place]

    @invariant()
    def every_process_sees_every_certificate_in_its_state(self) -> None:
        for sha256, record in self.model.records.items():
            for store, _ in self.stores.values():
                found = self.run(store.find_certificate(sha256))
                assert found is not None
                assert found.state is record.state

    @invariant()
    def every_process_sees_every_device_in_its_state(self) -> None:
        for udid, state in self.model.devices.items():
            for store, _ in self.stores.values():
                device = self.run(store.find_by_udid(udid))
                assert device is not None
                assert device.state is state


LedgerMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)

TestLedger = LedgerMachine.TestCase


def test_a_ledger_on_postgresql(postgresql_database: PostgresqlAddress) -> None:
    class OnPostgresql(LedgerMachine):
        def __init__(self) -> None:
            empty(postgresql_database)
            super().__init__()

        def opening(self, name: str) -> AbstractAsyncContextManager[Store]:
            return PostgresqlStore.open(postgresql_database, clock=self.clock, owner=name)

    run_state_machine_as_test(
        OnPostgresql,
        settings=settings(LedgerMachine.TestCase.settings, max_examples=6),
    )
