"""Alarms: who is told, how often, and what happens if they do not listen."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from est_protocol.errors import ConfigurationError
from est_server.alarm_webhook import Webhook, WebhookRefused
from est_server.alarms import Alarm, AlarmBell, AlarmKind, AlarmLimits, AlarmSink, to_all
from tests.loop_time import skip
from tests.pki import PRESENT

ALARM = Alarm(
    kind=AlarmKind.SECOND_KEY,
    device="device-1",
    label=None,
    peer="127.0.0.1:4711",
    detail="claimed by issuance 1",
    when=PRESENT,
)


class Ear:
    """Hears alarms."""

    def __init__(self) -> None:
        self.heard: list[Alarm] = []
        self.called = asyncio.Event()
        self.deaf_until = asyncio.Event()
        self.deaf_until.set()

    async def __call__(self, alarm: Alarm, /) -> None:
        self.called.set()
        await self.deaf_until.wait()
        self.heard.append(alarm)


async def fails(alarm: Alarm, /) -> None:
    raise OSError("no line")


async def test_alarms_are_heard_in_order() -> None:
    ear = Ear()
    bell = AlarmBell(ear)
    alarms = [replace(ALARM, device=f"device-{number}") for number in range(5)]
    for alarm in alarms:
        bell.ring(alarm)
    await bell.close()
    assert ear.heard == alarms


async def test_one_kind_about_one_device_sounds_once_in_a_while() -> None:
    ear = Ear()
    bell = AlarmBell(ear, AlarmLimits(interval=timedelta(minutes=10)))
    for minutes in (0, 1, 2, 11):
        bell.ring(replace(ALARM, when=PRESENT + timedelta(minutes=minutes)))
    bell.ring(replace(ALARM, kind=AlarmKind.OLD_CERTIFICATE))
    bell.ring(replace(ALARM, device="device-2"))
    await bell.close()
    assert [(alarm.kind, alarm.device, alarm.suppressed) for alarm in ear.heard] == [
        (AlarmKind.SECOND_KEY, "device-1", 0),
        (AlarmKind.SECOND_KEY, "device-1", 2),
        (AlarmKind.OLD_CERTIFICATE, "device-1", 0),
        (AlarmKind.SECOND_KEY, "device-2", 0),
    ]


async def test_memory_of_devices_is_bounded() -> None:
    ear = Ear()
    bell = AlarmBell(ear, AlarmLimits(remembered=2))
    for number in (1, 2, 3, 1):
        bell.ring(replace(ALARM, device=f"device-{number}"))
    await bell.close()
    assert len(ear.heard) == 4, "device-1 was forgotten in between"


async def test_what_a_sink_raises_is_logged_and_the_next_alarm_sounds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ear = Ear()
    bell = AlarmBell(to_all(fails, ear))
    bell.ring(ALARM)
    bell.ring(replace(ALARM, device="device-2"))
    await bell.close()
    assert [alarm.device for alarm in ear.heard] == ["device-1", "device-2"]
    assert caplog.text.count("an alarm was not passed on") == 2


async def test_a_sink_that_takes_too_long_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    ear = Ear()
    ear.deaf_until.clear()
    limits = AlarmLimits()
    bell = AlarmBell(ear, limits)
    bell.ring(ALARM)
    await ear.called.wait()
    skip(limits.timeout)
    while "not passed on" not in caplog.text:  # noqa: ASYNC110 - nothing else announces it
        await asyncio.sleep(0)
    ear.deaf_until.set()
    bell.ring(replace(ALARM, device="device-2"))
    await bell.close()
    assert [alarm.device for alarm in ear.heard] == ["device-2"]
    assert "TimeoutError" in caplog.text


async def test_the_queue_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    ear = Ear()
    ear.deaf_until.clear()
    bell = AlarmBell(ear, AlarmLimits(max_waiting=2))
    for number in range(5):
        bell.ring(replace(ALARM, device=f"device-{number}"))
    ear.deaf_until.set()
    await bell.close()
    assert [alarm.device for alarm in ear.heard] == ["device-0", "device-1"]
    assert caplog.text.count("too many alarms") == 3


@pytest.mark.parametrize("sink", [None, Ear()])
async def test_an_alarm_is_an_error_in_the_log_whoever_else_hears_of_it(
    caplog: pytest.LogCaptureFixture, sink: AlarmSink | None
) -> None:
    bell = AlarmBell(sink)
    bell.ring(ALARM)
    await bell.close()
    [record] = caplog.records
    assert (record.name, record.levelno) == ("est_server.alarm", logging.ERROR)
    assert "second-key" in record.getMessage()
    assert record.__dict__["alarm"]["device"] == "device-1"


async def test_closing_waits_no_longer_than_for_one_alarm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def endless(alarm: Alarm, /) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling() > 1:  # type: ignore[union-attr]
                    raise

    bell = AlarmBell(endless, AlarmLimits(timeout=0.02))
    bell.ring(ALARM)
    async with asyncio.timeout(60):
        await bell.close()
    assert "were not passed on" in caplog.text


# -- The webhook -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://example.com/alarm", "ftp://localhost/", "https://", "localhost", ""]
)
def test_an_alarm_leaves_the_machine_over_tls_only(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Webhook(url)


async def _listen(status: int) -> tuple[web.AppRunner, str, list[Any]]:
    received: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        received.append(await request.json())
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_post("/{anything:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    return runner, f"http://{host}:{port}/alarm", received


async def test_a_webhook_gets_the_alarm_as_json() -> None:
    runner, url, received = await _listen(204)
    await Webhook(url)(ALARM)
    await runner.cleanup()
    assert received == [
        {
            "kind": "second-key",
            "device": "device-1",
            "label": None,
            "peer": "127.0.0.1:4711",
            "detail": "claimed by issuance 1",
            "when": PRESENT.isoformat(),
            "suppressed": 0,
        }
    ]


@pytest.mark.parametrize("status", [307, 400, 500])
async def test_a_webhook_that_does_not_take_it_is_an_error(status: int) -> None:
    runner, url, received = await _listen(status)
    with pytest.raises(WebhookRefused):
        await Webhook(url)(ALARM)
    await runner.cleanup()
    assert len(received) == 1


def test_the_log_has_what_is_known(caplog: pytest.LogCaptureFixture) -> None:
    bell = AlarmBell()
    for minutes in (0, 1, 11):
        when = PRESENT + timedelta(minutes=minutes)
        bell.ring(replace(ALARM, device=None, when=when))
    assert [record.__dict__["alarm"].get("suppressed") for record in caplog.records] == [None, 1]
    assert "suppressed=1" in caplog.text
    assert "device" not in caplog.records[0].__dict__["alarm"]
