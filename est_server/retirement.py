"""What becomes of connections that began before the configuration was read again.

They keep the settings that they began with: nobody's session is dropped, and no request is judged
by half of one configuration and half of another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

_log = logging.getLogger("est_server.reload")

#: How often is looked whether connections have ended, in seconds.
_INTERVAL = 0.25


@dataclass(frozen=True, slots=True)
class ReloadLimits:
    """How long connections keep settings that have been replaced. Times are in seconds.

    :param grace: for which connections that were open at a reload go by the settings before it;
        then what is under way on them is finished, and they are closed. Those that idle end much
        sooner, by the limits of their transport.
    :param generations: replaced configurations that may be in use at one time; one more closes
        the connections of the oldest.
    """

    grace: float = 600.0
    generations: int = 4


class Retired(Protocol):
    """The connections of one listener that began before it was renewed."""

    @property
    def in_use(self) -> bool:
        """Whether one of them goes on."""
        ...

    async def close(self) -> None:
        """Finish what is under way on them within bounds, and end them."""
        ...


class Retirement:
    """Waits for connections to end, or ends them, and then closes what they needed.

    :param retired: the connections.
    :param release: closes what they needed.
    :param grace: seconds after which they are ended.
    """

    def __init__(
        self, retired: Sequence[Retired], release: Callable[[], Awaitable[None]], grace: float
    ) -> None:
        self._retired = retired
        self._release = release
        self._hurry = asyncio.Event()
        self._task = asyncio.create_task(self._run(grace))

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self._task.done()

    def hurry(self) -> None:
        """End the connections now, without waiting for that."""
        self._hurry.set()

    async def close(self) -> None:
        """End the connections now."""
        self.hurry()
        await self._task

    async def _run(self, grace: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        # aiohttp and aiocoap do not announce the end of a connection.
        while not self._hurry.is_set() and loop.time() < end:
            if not any(retired.in_use for retired in self._retired):
                break
            try:
                async with asyncio.timeout(_INTERVAL):
                    await self._hurry.wait()
            except TimeoutError:
                continue
        closed = await asyncio.gather(
            *(retired.close() for retired in self._retired), return_exceptions=True
        )
        for error in closed:
            if isinstance(error, BaseException):
                _log.error("connections with former settings did not end well", exc_info=error)
        await self._release()
