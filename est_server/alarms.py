"""Alarms: what an operator has to hear of at once, such as two devices with one identity.

An alarm follows an answer, nearly always a refusal, that is in the audit trail already. Sounding it
never changes or delays an answer: it is in the log at once, and waits in a bounded queue for
whoever else is to hear of it. One kind of alarm about one device sounds once in a while, and a sink
that fails is logged and forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from est_protocol.errors import RefusalReason, RequestRefused

_log = logging.getLogger("est_server.alarm")


class AlarmKind(StrEnum):
    """What happened.

    ``SECOND_KEY``: a first enrollment of a device that has made one, with another key; or a birth
    certificate that names a device that is known by another key.
    ``SECOND_ENROLLMENT``: the same with the key of the first, but by another client.
    ``OLD_CERTIFICATE``: a certificate that was renewed already came back.
    ``LATE_REPEAT``: a request that was answered long ago came again and got the same answer: a
    device that has lost its certificate, or a copy of its key.
    ``COMPROMISED_KEY``: somebody uses a key that was reported as compromised.
    ``RECORD_TAMPERED``: a row of the store was written by somebody without the integrity key.
    """

    SECOND_KEY = "second-key"
    SECOND_ENROLLMENT = "second-enrollment"
    OLD_CERTIFICATE = "old-certificate"
    LATE_REPEAT = "late-repeat"
    COMPROMISED_KEY = "compromised-key"
    RECORD_TAMPERED = "record-tampered"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm.

    :param device: UDID of the device that it is about, where known.
    :param label: the label that was asked, ``None`` for the default.
    :param peer: the address that it came from.
    :param detail: what happened, for people who may know everything.
    :param suppressed: how many of this kind about this device were left out before it.
    """

    kind: AlarmKind
    device: str | None
    label: str | None
    peer: str
    detail: str
    when: datetime
    suppressed: int = 0

    def fields(self) -> dict[str, str | int | None]:
        """The same as plain values, for a line of a log or JSON."""
        return {
            "kind": self.kind.value,
            "device": self.device,
            "label": self.label,
            "peer": self.peer,
            "detail": self.detail,
            "when": self.when.isoformat(),
            "suppressed": self.suppressed,
        }


class AlarmSink(Protocol):
    """Whoever is to hear of alarms beside the log; a plain ``async def`` will do.

    Called for one alarm after the other, outside of any request. What it raises is logged, and
    so is taking longer than :attr:`AlarmLimits.timeout`.
    """

    async def __call__(self, alarm: Alarm, /) -> None: ...


class AlarmingRefusal(RequestRefused):
    """A refusal that an operator has to hear of; parameters as for its base.

    :param alarm: what it is a sign of.
    """

    def __init__(
        self, alarm: AlarmKind, reason: RefusalReason, sentence: str, **known: Any
    ) -> None:
        super().__init__(reason, sentence, **known)
        self.alarm = alarm


@dataclass(frozen=True, slots=True)
class AlarmLimits:
    """The bounds of alarms.

    :param interval: one kind of alarm about one device sounds once in this time; the next one
        says how many were left out.
    :param remembered: devices of which the last alarm is remembered; the oldest go.
    :param max_waiting: alarms that may wait for a slow sink; those beyond it are left to the log.
    :param timeout: seconds that a sink may take for one alarm.
    :param late_repeat: how long a device may ask again for an answer that it has lost, without an
        alarm.
    """

    interval: timedelta = timedelta(minutes=10)
    remembered: int = 10_000
    max_waiting: int = 1000
    timeout: float = 10.0
    late_repeat: timedelta = timedelta(days=1)


def to_all(*sinks: AlarmSink) -> AlarmSink:
    """A sink that tells all of ``sinks``, whichever of them fail."""

    async def tell(alarm: Alarm, /) -> None:
        results = await asyncio.gather(*(sink(alarm) for sink in sinks), return_exceptions=True)
        failures = [result for result in results if isinstance(result, Exception)]
        if failures:
            raise ExceptionGroup("not all sinks heard of the alarm", failures)

    return tell


class AlarmBell:
    """Takes alarms and passes them on in order, without anybody waiting for it.

    Each one that sounds is an error of ``est_server.alarm``, with its fields as ``record.alarm``.

    :param sink: who is told besides.
    """

    def __init__(self, sink: AlarmSink | None = None, limits: AlarmLimits | None = None) -> None:
        self._sink = sink
        self.limits = limits or AlarmLimits()
        self._waiting: deque[Alarm] = deque()
        self._ringing: asyncio.Task[None] | None = None
        # When it last sounded, and how many were left out since.
        self._last: OrderedDict[tuple[AlarmKind, str | None], tuple[datetime, int]] = OrderedDict()

    def ring(self, alarm: Alarm) -> None:
        """Have ``alarm`` sounded; returns at once and raises nothing."""
        key = alarm.kind, alarm.device
        last = self._last.pop(key, None)
        if last is not None and alarm.when - last[0] < self.limits.interval:
            self._last[key] = last[0], last[1] + 1
            return
        self._last[key] = alarm.when, 0
        if len(self._last) > self.limits.remembered:
            self._last.popitem(last=False)
        alarm = replace(alarm, suppressed=last[1] if last else 0)
        _log_alarm(alarm)
        if self._sink is not None:
            self._pass_on(alarm, self._sink)

    async def close(self) -> None:
        """Pass on what waits, for as long as one alarm may take."""
        if self._ringing is None:
            return
        await asyncio.wait({self._ringing}, timeout=self.limits.timeout)
        if not self._ringing.done():
            self._ringing.cancel()
            _log.error("%d alarms were not passed on", len(self._waiting) + 1)

    def _pass_on(self, alarm: Alarm, sink: AlarmSink) -> None:
        if len(self._waiting) >= self.limits.max_waiting:
            _log.error("too many alarms are waiting; not passed on: %s", alarm.fields())
            return
        self._waiting.append(alarm)
        if self._ringing is None or self._ringing.done():
            self._ringing = asyncio.create_task(self._ring(sink))

    async def _ring(self, sink: AlarmSink) -> None:
        while self._waiting:
            alarm = self._waiting.popleft()
            try:
                async with asyncio.timeout(self.limits.timeout):
                    await sink(alarm)
            except Exception:
                _log.exception("an alarm was not passed on: %s", alarm.fields())


def _log_alarm(alarm: Alarm) -> None:
    known = {name: value for name, value in alarm.fields().items() if value}
    text = " ".join(f"{name}={value!r}" for name, value in known.items())
    _log.error("%s", text, extra={"alarm": known})
