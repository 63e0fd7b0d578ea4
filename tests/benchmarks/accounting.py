"""What processes cost, by the operating system's own books (Linux, ``/proc``)."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """CPU seconds and resident octets of a process and all its descendants."""

    cpu: float
    resident: int


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Run this thread on ``cores`` for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree(pid: int) -> list[int]:
    """``pid`` and its living descendants."""
    found = [pid]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):
                found += [int(child) for child in task.read_text().split()]
    return found


def cost_of(pid: int) -> Cost:
    """What the process tree of ``pid`` has cost so far, with those of it that have ended.

    CPU time comes from the scheduler, in nanoseconds, where the kernel tells it per thread, since
    the ticks of ``stat`` are 10 ms long.
    """
    cpu, resident = 0.0, 0
    for process in tree(pid):
        # Those that end meanwhile are in the books of their parents.
        with suppress(FileNotFoundError, ProcessLookupError):
            cpu += _cpu(process) + sum(_times(process)[2:])
            resident += _resident(process)
    return Cost(cpu, resident)


def idle(cores: Collection[int]) -> float:
    """Seconds, all of ``cores`` together, in which nobody had anything to do there so far."""
    wanted = {f"cpu{core}" for core in cores}
    total = 0.0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in wanted:
            # The fourth is idle; the fifth is the same with somebody waiting for the disk.
            total += (int(ticks[3]) + int(ticks[4])) / _TICKS
    return total


def _cpu(pid: int) -> float:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            return _ticks(pid)
    # Threads that have ended are in the process's ticks only.
    return max(total / 1e9, _ticks(pid) - 1 / _TICKS)


def _ticks(pid: int) -> float:
    return sum(_times(pid)[:2])


def _times(pid: int) -> list[float]:
    """Seconds of a process in user and in kernel mode, and those of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) / _TICKS for field in fields[11:15]]


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
