"""The rows of a long list, read by several processes at once.

To check a key takes a processor as long as all else that a row takes, and the threads of one
Python process take turns. So blocks of lines go round processes that do nothing else, each of
which has one block at a time; what they answer comes back in the order of the list.
"""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from est_protocol.errors import ConfigurationError
from est_server.devices import plain_rows
from est_server.devices.plain_rows import ANSWER, REQUEST, PlainRow, PlainTable

#: Lines that are read before it is worth while to start processes: what takes 0.1 s.
_SHORT = 20_000
#: A block of fewer octets is read sooner than sent.
_SMALL = 16 * 1024


class RowReading:
    """Reads blocks of plain lines, in this process or in others.

    :param table: what the list is like.
    :param processes: the most processes to start; they are started once a list proves to be long,
        and end with the context.
    """

    def __init__(self, table: PlainTable, processes: int) -> None:
        self._table = table
        self._read = plain_rows.block_reader(table)
        wanted = min(processes, os.cpu_count() or 1)
        self._wanted = wanted if wanted > 1 else 0
        self._idle: deque[_Process] = deque()
        self._busy: deque[_Process] = deque()
        self._started = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._started.close()

    def rows_of(self, first: int, block: bytes) -> Iterator[PlainRow]:
        """Rows that are due: of earlier blocks first, of this one perhaps later.

        :param first: the number of the block's first line.
        :raises ConfigurationError: a process failed.
        """
        if len(block) < _SMALL or not self._wanted or first <= _SHORT:
            yield from self.rest()
            yield from self._read(first, block)
            return
        if not self._busy and not self._idle:
            self._idle.extend(
                self._started.enter_context(_Process(self._table)) for _ in range(self._wanted)
            )
        due: list[PlainRow] = []
        if self._idle:
            process = self._idle.popleft()
        else:
            process = self._busy.popleft()
            due = process.rows()
        # It works on the next block while the rows of the one before are taken care of.
        process.read(first, block)
        self._busy.append(process)
        yield from due

    def rest(self) -> Iterator[PlainRow]:
        """The rows of all blocks that are still being read.

        :raises ConfigurationError: a process failed.
        """
        while self._busy:
            process = self._busy.popleft()
            self._idle.append(process)
            yield from process.rows()


class _Process:
    """Runs :func:`est_server.devices.plain_rows.serve`."""

    def __init__(self, table: PlainTable) -> None:
        # Isolated: neither the environment nor the working directory says what is imported.
        command = [sys.executable, "-I", "-S", plain_rows.__file__]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise ConfigurationError(
                f"no process to read the list with: {error.strerror}; with processes = 1 in "
                "[devices.limits] none is needed"
            ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        settings = marshal.dumps(tuple(table))
        self._send(ANSWER.pack(len(settings)) + settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._answers.close()
        # It may have ended before it took what was sent last.
        with suppress(OSError):
            self._requests.close()
        self._process.wait()

    def read(self, first: int, block: bytes) -> None:
        """Have it read a block; it must have answered the one before."""
        self._send(REQUEST.pack(first, len(block)) + block)

    def rows(self) -> list[PlainRow]:
        """Its answer."""
        head = self._answers.read(ANSWER.size)
        answer = self._answers.read(ANSWER.unpack(head)[0]) if len(head) == ANSWER.size else b""
        if not answer:
            raise self._gone()
        rows: list[PlainRow] = marshal.loads(answer)
        return rows

    def _send(self, octets: bytes) -> None:
        try:
            self._requests.write(octets)
            self._requests.flush()
        except OSError as error:
            raise self._gone() from error

    def _gone(self) -> ConfigurationError:
        return ConfigurationError("the list cannot be read: a process that reads its rows ended")
