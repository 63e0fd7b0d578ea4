"""How far a long import has come, on standard error."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

#: Seconds between two lines, on a terminal and elsewhere.
_ON_TERMINAL = 0.2
_ELSEWHERE = 10.0


@contextmanager
def progress_of(file: BinaryIO, out: TextIO) -> Iterator[Callable[[int, int], None]]:
    """Makes a function that takes octets and rows read so far, and shows them now and then.

    On a terminal it is one line that changes and goes away in the end, elsewhere a line every ten
    seconds.
    """
    terminal = out.isatty()
    pause = _ON_TERMINAL if terminal else _ELSEWHERE
    begun = last = time.monotonic()
    size = _size(file)

    def show(octets: int, rows: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < pause:
            return
        last = now
        part = f"{min(octets * 100 // size, 100)} %, " if size else ""
        text = f"{part}{rows} rows, {rows / (now - begun):.0f} rows/s"
        out.write(f"\r\x1b[K{text}" if terminal else f"{text}\n")
        out.flush()

    try:
        yield show
    finally:
        if terminal:
            out.write("\r\x1b[K")
            out.flush()


def _size(file: BinaryIO) -> int:
    """The octets of a regular file, 0 for anything else."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
