"""The signals that a server is told with."""

from __future__ import annotations

import asyncio
import signal


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set from now on, in place of ending the program."""
    return _event(signal.SIGTERM, signal.SIGINT)


def reload_event() -> asyncio.Event:
    """An event that SIGHUP sets from now on, in place of ending the program."""
    return _event(signal.SIGHUP)


def _event(*numbers: signal.Signals) -> asyncio.Event:
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, event.set)
    return event
