"""A thread in which an event loop has things done that would make it wait."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")

_Order = tuple[Callable[..., Any], tuple[Any, ...], "asyncio.Future[Any]"]


class LoneThread:
    """Runs functions one after the other; belongs to the running event loop.

    :param name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        # A daemon, so that a program ends that does not close it, whatever is under way.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run ``function`` in the thread; it is carried out even if the caller is cancelled."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._orders.put((function, arguments, future))
        return await future

    def close(self) -> None:
        """End the thread once it has done what it was told to."""
        self._orders.put(None)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            function, arguments, future = order
            result, error = None, None
            try:
                result = function(*arguments)
            except Exception as raised:
                error = raised
            try:
                self._loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                _log.warning("the event loop ended before %s did", function.__name__)
                break


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
