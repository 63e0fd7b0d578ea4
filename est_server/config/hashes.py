"""Hashes as people write them."""

from __future__ import annotations

import re

from est_protocol.errors import ConfigurationError

_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")


def sha256_of_hex(text: str) -> bytes:
    """A SHA-256 hash: 64 hexadecimal digits, with colons or without.

    :raises ConfigurationError: it is none.
    """
    digits = text.replace(":", "")
    if not _SHA256.fullmatch(digits):
        raise ConfigurationError(f"{text!r} is no SHA-256 in hexadecimal")
    return bytes.fromhex(digits)
