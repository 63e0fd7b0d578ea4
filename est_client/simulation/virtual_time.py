"""An asyncio event loop whose time is computed: when nothing is ready it jumps to the next timer.

Minutes of radio time pass in the milliseconds that the real code needs for them, in an order that
depends on nothing but that code. Time stands still while anything outside the loop is at work:
what is given to an executor is run at once, and :meth:`VirtualLoop.standing_still` keeps the time
for threads that report back by ``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_Result = TypeVar("_Result")

#: Seconds of real time after which a loop is stuck in which nothing can happen any more.
STALL_LIMIT = 60.0


class NothingCanHappen(RuntimeError):
    """Every task waits, and there is no timer and nobody outside who could end that."""


class _JumpingSelector(selectors.BaseSelector):
    """Instead of waiting for the next timer, says that its time has come."""

    def __init__(self, jump: Callable[[float], None], holds: Callable[[], bool]) -> None:
        self._real = selectors.DefaultSelector()
        self._jump = jump
        self._holds = holds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; see :meth:`selectors.BaseSelector.select`."""
        if timeout is None or (timeout > 0 and self._holds()):
            events = self._real.select(STALL_LIMIT)
            if not events:
                raise NothingCanHappen(f"nothing happened for {STALL_LIMIT:g} s")
            return events
        events = self._real.select(0)
        if not events and timeout > 0:
            self._jump(timeout)
        return events

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See :class:`selectors.BaseSelector`."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """See :class:`selectors.BaseSelector`."""
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See :class:`selectors.BaseSelector`."""
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Any:
        """See :class:`selectors.BaseSelector`."""
        return self._real.get_map()

    def close(self) -> None:
        """See :class:`selectors.BaseSelector`."""
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 0."""

    def __init__(self) -> None:
        self._now = 0.0
        self._held = 0
        super().__init__(_JumpingSelector(self._jump, lambda: self._held > 0))

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        return self._now

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let no time pass inside."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., _Result], *args: Any
    ) -> asyncio.Future[_Result]:
        """Run ``func`` at once: a thread would make the order of events depend on the machine."""
        future: asyncio.Future[_Result] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _jump(self, seconds: float) -> None:
        self._now += seconds


def run_virtually(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``main`` to its end in a :class:`VirtualLoop`, as :func:`asyncio.run` would.

    :raises NothingCanHappen: everything waits for something that cannot come.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
