"""When a worker that died is started again, and when that is given up."""

from __future__ import annotations

from est_server.workers.limits import WorkerLimits


class Pace:
    """The pauses before one worker's successors; times are seconds of a clock that never jumps."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._pause = limits.first_pause

    def next_start(self, now: float, *, lived: float) -> float:
        """When to start the next one.

        :param lived: how long the one that died had listened.
        """
        if lived >= self._limits.settled_after:
            self._pause = self._limits.first_pause
        at = now + self._pause
        self._pause = min(2 * self._pause, self._limits.longest_pause)
        return at


class Despair:
    """Counts deaths in a row that no settled worker was there to make good for."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._deaths = 0

    def died(self, *, lived: float, another_is_settled: bool) -> bool:
        """Note a death; whether to give up.

        :param lived: how long the worker had listened.
        :param another_is_settled: whether one that goes on has listened for long enough.
        """
        if another_is_settled or lived >= self._limits.settled_after:
            self._deaths = 0
            return False
        self._deaths += 1
        return self._deaths >= self._limits.attempts
