"""Every bound of the supervisor of worker processes, in one documented object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """The bounds of ``est-server serve --workers``. Times are in seconds.

    :param start_timeout: that a worker may take until it listens; then it is killed.
    :param stop_timeout: that workers may take to finish what is under way when the server is
        asked to stop; those that are not done are killed.
    :param silence: that a worker may keep; one that is stuck, or stopped by a signal, is killed
        after that, and a quarter of it more.
    :param first_pause: before a worker that died is started again; it doubles from one to the
        next.
    :param longest_pause: which that grows to.
    :param settled_after: after which a worker counts as working: the pause begins anew.
    :param attempts: workers that may die in a row, none of them settled, while no other worker is
        settled either; then the server gives up.
    """

    start_timeout: float = 60.0
    stop_timeout: float = 60.0
    silence: float = 60.0
    first_pause: float = 0.1
    longest_pause: float = 10.0
    settled_after: float = 10.0
    attempts: int = 6
