"""Serial numbers of certificates, as they are shown and read: hexadecimal, as in the journal."""

from __future__ import annotations

import re

#: As this and other programs write it.
_WRITTEN = re.compile(r"(0[xX])?[0-9a-fA-F:]{1,80}")


def read_serial_number(text: str) -> str:
    """A serial number as the journal writes it: without ``0x``, colons and leading zeros.

    :raises ValueError: it is none.
    """
    digits = text.lower().removeprefix("0x").replace(":", "")
    if not _WRITTEN.fullmatch(text) or not digits:
        raise ValueError(f"{text!r} is no serial number in hex")
    return f"{int(digits, 16):x}"
