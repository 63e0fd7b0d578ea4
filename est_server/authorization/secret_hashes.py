"""Slow hashes of secrets: scrypt (RFC 7914), with its parameters beside it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.http_authentication import prepared

#: 32 MiB and some 80 ms for one guess.
DEFAULT_COST = 2**15
_BLOCK_SIZE = 8
_MEMORY = 256 * 2**20
_OCTETS = 32


def hash_secret(secret: str, *, cost: int = DEFAULT_COST) -> str:
    """A text to keep in place of ``secret``.

    :param cost: scrypt's N, a power of two.
    """
    salt = secrets.token_bytes(16)
    return f"scrypt${cost}${_b64(salt)}${_b64(_scrypt(secret, salt, cost))}"


def matches(secret: str, kept: str) -> bool:
    """Whether ``kept`` was made of ``secret``; slow, and in constant time.

    :raises ValueError: ``kept`` was not made by :func:`hash_secret`.
    """
    kind, cost, salt, digest = kept.split("$")
    if kind != "scrypt":
        raise ValueError(f"a secret is kept as {kind!r}")
    made = _scrypt(secret, base64.b64decode(salt), int(cost))
    return hmac.compare_digest(made, base64.b64decode(digest))


class SlowChecks:
    """Runs :func:`matches` in threads, few at one time, and refuses when many wait.

    :param concurrent: checks at one time; each takes a core and 32 MiB.
    :param waiting: checks that may wait for their turn.
    """

    def __init__(self, *, concurrent: int = 2, waiting: int = 64) -> None:
        self._turns = asyncio.Semaphore(concurrent)
        self._most = concurrent + waiting
        self._present = 0
        self._nobodys = hash_secret(secrets.token_hex(16))

    async def matches(self, secret: str, kept: str | None) -> bool:
        """Whether ``kept`` was made of ``secret``; as slow, and false, for ``None``.

        :raises RequestRefused: ``TRY_LATER``: too many are waiting.
        """
        if self._present >= self._most:
            raise RequestRefused(
                RefusalReason.TRY_LATER, "the server is busy; try again", retry_after=5
            )
        self._present += 1
        try:
            async with self._turns:
                found = await asyncio.to_thread(matches, secret, kept or self._nobodys)
        finally:
            self._present -= 1
        return found and kept is not None


def _scrypt(secret: str, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(
        prepared(secret).encode(),
        salt=salt,
        n=cost,
        r=_BLOCK_SIZE,
        p=1,
        maxmem=_MEMORY,
        dklen=_OCTETS,
    )


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
