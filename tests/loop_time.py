"""Time-outs that fall due when a test says so, and never because the machine is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def skip(seconds: float) -> None:
    """Let ``seconds`` pass at once on the clock of the running event loop."""
    loop = asyncio.get_running_loop()
    _set_clock(loop, _ahead_of(loop.time, seconds))


def stop_time() -> None:
    """Let no more time pass on the clock of the running event loop, save by :func:`skip`."""
    loop = asyncio.get_running_loop()
    moment = loop.time()
    _set_clock(loop, lambda: moment)


def _ahead_of(clock: Callable[[], float], seconds: float) -> Callable[[], float]:
    return lambda: clock() + seconds


def _set_clock(loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
    # Its own loop for every test, so there is nothing to undo.
    loop.time = clock  # type: ignore[method-assign]
