"""The elements of a JSON array that is too long for memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from est_protocol.errors import ConfigurationError
from est_server.devices.strict_json import DECODER, NotStrictJson

_CHUNK = 256 * 1024
_SPACE = " \t\n\r"


class ArrayEntries:
    """The elements of an array, decoded one by one.

    What follows an element that does not decode cannot be found, so such a list cannot be read
    any further.

    :param entry_octets: the most characters that one element may have.
    """

    def __init__(self, file: BinaryIO, entry_octets: int) -> None:
        self._file = file
        self._limit = entry_octets
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._position = 0
        self._count = 0
        self._at_end = False

    def __iter__(self) -> Iterator[object]:
        if self._next_character() != "[":
            raise ConfigurationError("the list is no JSON array")
        self._position += 1
        if self._next_character() == "]":
            self._position += 1
        else:
            yield from self._entries()
        if self._next_character():
            raise ConfigurationError("there is something after the end of the list")

    def _entries(self) -> Iterator[object]:
        while True:
            self._next_character()
            yield self._entry()
            separator = self._next_character()
            self._position += 1
            if separator == "]":
                return
            if separator != ",":
                self._fail("not followed by a comma; the list is cut short or damaged")

    def _entry(self) -> object:
        self._count += 1
        # An element that is there in full needs no second attempt; the first one may fail for
        # want of its end.
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._position)
            except NotStrictJson as error:
                self._fail(str(error))
            except RecursionError:
                self._fail("nested too deeply")
            except ValueError as error:
                if len(self._text) - self._position > self._limit:
                    self._fail(f"not JSON, or more than {self._limit} octets")
                if not self._fill():
                    self._fail(f"not JSON: {error}")
            else:
                if end - self._position > self._limit:
                    self._fail(f"more than {self._limit} octets")
                self._position = end
                return value

    def _next_character(self) -> str:
        """The next character that is not white space, empty at the end."""
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if character not in _SPACE:
                    return character
                self._position += 1
            if not self._fill():
                return ""

    def _fill(self) -> bool:
        """Read more; whether there was any."""
        if self._at_end:
            return False
        try:
            chunk = self._file.read(_CHUNK)
            self._at_end = not chunk
            more = self._decoder.decode(chunk, final=self._at_end)
        except OSError as error:
            raise ConfigurationError(f"the list cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError("the list is not UTF-8") from error
        self._text = self._text[self._position :] + more
        self._position = 0
        return not self._at_end

    def _fail(self, why: str) -> NoReturn:
        raise ConfigurationError(f"entry {self._count} of the list is {why}")
