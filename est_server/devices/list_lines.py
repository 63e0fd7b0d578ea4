"""The lines of a list, from a file that can be read once, each limited in length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from est_protocol.errors import ConfigurationError

_BOM = b"\xef\xbb\xbf"
_CHUNK = 256 * 1024


class RowTooLong(Exception):
    """A row has more octets than it may."""


class ListLines:
    """The lines of a file as text, counted, and limited per row.

    The first line loses its byte order mark. Octets that are not UTF-8 become surrogates, so that
    they make their own row unusable only: no check lets a surrogate pass.

    :param row_octets: the most octets that a row may have over all its lines.
    """

    def __init__(self, file: BinaryIO, row_octets: int) -> None:
        self._file = file
        self._row_octets = row_octets
        self._octets = 0
        self._buffer = b""
        self._position = 0
        self._quote = -1
        self._begun = False
        self.number = 0
        """Lines read so far."""

    def begin_row(self) -> None:
        """The next line belongs to another row."""
        self._octets = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._take_line()
        if not line:
            raise StopIteration
        self.number += 1
        self._octets += len(line)
        if self._octets > self._row_octets:
            while line and not line.endswith(b"\n"):
                line = self._take_line()
            raise RowTooLong(f"the row has more than {self._row_octets} octets")
        return line.decode("utf-8", "surrogateescape")

    def plain_block(self) -> bytes:
        """Whole lines without a quotation mark, without the last line feed; as many as are at hand.

        Empty if the next line has one, or is not at hand in full; it is then for
        :meth:`__next__`. A block of one empty line is left to it too. The caller adds the lines
        that it takes to :attr:`number`.
        """
        if self._ends_within_line():
            self._fill()
        if self._quote < self._position:
            found = self._buffer.find(b'"', self._position)
            self._quote = len(self._buffer) if found < 0 else found
        end = self._buffer.rfind(b"\n", self._position, self._quote)
        if end <= self._position:
            return b""
        block = self._buffer[self._position : end]
        self._position = end + 1
        return block

    def _ends_within_line(self) -> bool:
        """Whether no line is at hand in full, and none that is too long either."""
        left = len(self._buffer) - self._position
        return left <= self._row_octets and self._buffer.find(b"\n", self._position) < 0

    def _take_line(self) -> bytes:
        """A line with its end, or as much of it as a row may have and one octet more."""
        while True:
            limit = self._position + self._row_octets + 1
            end = self._buffer.find(b"\n", self._position, limit) + 1
            if end or len(self._buffer) >= limit or not self._fill():
                break
        end = end or min(limit, len(self._buffer))
        line = self._buffer[self._position : end]
        self._position = end
        return line

    def _fill(self) -> bool:
        """Read more; whether there was any."""
        try:
            chunk = self._file.read(_CHUNK)
        except OSError as error:
            raise ConfigurationError(f"the list cannot be read: {error.strerror}") from error
        self._buffer = self._buffer[self._position :] + chunk
        self._position = 0
        self._quote = -1
        if not self._begun and len(self._buffer) >= len(_BOM):
            self._begun = True
            self._buffer = self._buffer.removeprefix(_BOM)
        return bool(chunk)
