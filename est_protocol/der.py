"""Walking DER (X.690 section 10) where no library reads it strictly enough.

Only single-octet tags, which is all that CMS and PKCS#10 use; definite, minimal lengths only.
"""

from __future__ import annotations

from typing import NamedTuple

from est_protocol.errors import MessageError

OBJECT_IDENTIFIER = 0x06
INTEGER = 0x02
BIT_STRING = 0x03
SEQUENCE = 0x30
SET = 0x31

_LONG_FORM = 0x80
#: Lengths of four octets count to 4 GiB; no EST message is near that.
_LONGEST_LENGTH = 4


class Element(NamedTuple):
    """One DER element.

    :param content: the octets of its value.
    :param encoded: all its octets, tag and length included.
    """

    content: bytes
    encoded: bytes


class DerReader:
    """Takes elements off the front of DER octets, one after the other.

    :param octets: the octets to read.
    :param what: what they are, for error messages.
    """

    def __init__(self, octets: bytes, what: str) -> None:
        self._octets = octets
        self._position = 0
        self._what = what

    @property
    def at_end(self) -> bool:
        """Whether everything has been read."""
        return self._position == len(self._octets)

    @property
    def next_tag(self) -> int | None:
        """The identifier octet of the next element, or ``None`` at the end."""
        return None if self.at_end else self._octets[self._position]

    def next_is(self, tag: int) -> bool:
        """Whether there is another element and its tag is ``tag``."""
        return self.next_tag == tag

    def read(self, tag: int, name: str) -> Element:
        """The next element.

        :param tag: the identifier octet that it must have.
        :param name: what it is, for the error message.
        :raises MessageError: it is absent, has another tag, or is not DER.
        """
        if not self.next_is(tag):
            raise MessageError(f"{self._what}: {name} is missing")
        start = self._position
        length, content_start = self._read_length(start + 1, name)
        self._position = content_start + length
        if self._position > len(self._octets):
            raise MessageError(f"{self._what}: {name} is cut short")
        return Element(
            self._octets[content_start : self._position], self._octets[start : self._position]
        )

    def require_end(self) -> None:
        """Check that nothing follows.

        :raises MessageError: something does.
        """
        if not self.at_end:
            raise MessageError(f"{self._what}: there are octets after its end")

    def _read_length(self, position: int, name: str) -> tuple[int, int]:
        first = self._octets[position : position + 1]
        if not first:
            raise MessageError(f"{self._what}: {name} is cut short")
        if first[0] < _LONG_FORM:
            return first[0], position + 1
        count = first[0] - _LONG_FORM
        if count == 0:
            raise MessageError(f"{self._what}: {name} has an indefinite length; EST needs DER")
        digits = self._octets[position + 1 : position + 1 + count]
        if count > _LONGEST_LENGTH or len(digits) < count:
            raise MessageError(f"{self._what}: the length of {name} is not plausible")
        length = int.from_bytes(digits, "big")
        if length < _LONG_FORM or digits[0] == 0:
            raise MessageError(f"{self._what}: the length of {name} is not minimal; EST needs DER")
        return length, position + 1 + count
