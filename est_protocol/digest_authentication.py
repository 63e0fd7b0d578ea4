"""The arithmetic of HTTP Digest (RFC 7616): responses, and nonces that the server need not keep.

No clock and no randomness of its own: both are arguments.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import NamedTuple

from est_protocol.http_authentication import DigestAlgorithm, DigestCredentials, prepared

_TIME_OCTETS = 8
_RANDOM_OCTETS = 16
_MAC_OCTETS = 16


def hash_hex(algorithm: DigestAlgorithm, text: str) -> str:
    """``H(text)`` in hex."""
    name = "sha256" if algorithm is DigestAlgorithm.SHA_256 else "md5"
    return hashlib.new(name, text.encode()).hexdigest()


def user_secret(algorithm: DigestAlgorithm, user: str, realm: str, password: str) -> str:
    """``H(A1)`` in hex: all that a server has to keep, and as good as the password in ``realm``."""
    return hash_hex(algorithm, f"{prepared(user)}:{realm}:{prepared(password)}")


def response(
    secret: str,
    algorithm: DigestAlgorithm,
    *,
    method: str,
    uri: str,
    nonce: str,
    nonce_count: int,
    cnonce: str,
) -> str:
    """The response of RFC 7616 section 3.4.1 with qop=auth.

    :param secret: ``H(A1)``, see :func:`user_secret`.
    """
    request = hash_hex(algorithm, f"{method}:{uri}")
    return hash_hex(algorithm, f"{secret}:{nonce}:{nonce_count:08x}:{cnonce}:auth:{request}")


def is_right(given: DigestCredentials, secret: str, *, method: str) -> bool:
    """Whether ``given`` was made with ``secret``, compared in constant time."""
    expected = response(
        secret,
        given.algorithm,
        method=method,
        uri=given.uri,
        nonce=given.nonce,
        nonce_count=given.nonce_count,
        cnonce=given.cnonce,
    )
    return hmac.compare_digest(expected, given.response)


class _Use(NamedTuple):
    """When a nonce was made, in microseconds, and the highest count that it was used with."""

    made: int
    highest: int


class Nonces:
    """Makes nonces that say when they were made, and tells its own from others.

    The one thing kept is the highest count seen of each nonce that was used with a right
    response. If those become too many, the older half goes, and no nonce as old is taken any
    more: a replay is never let through, a client is at worst asked again.

    :param key: for the HMAC; at least 32 octets, kept as long as nonces are to be valid.
    :param lifetime: for which a nonce is valid.
    :param most_used: used nonces that are remembered.
    """

    def __init__(self, key: bytes, *, lifetime: timedelta, most_used: int) -> None:
        self._key = key
        self._lifetime = _microseconds(lifetime)
        self._most_used = most_used
        self._used: dict[str, _Use] = {}
        self._not_before = 0

    def make(self, now: datetime, randomness: bytes) -> str:
        """A nonce.

        :param randomness: 16 octets.
        """
        assert len(randomness) == _RANDOM_OCTETS
        body = _since_epoch(now).to_bytes(_TIME_OCTETS, "big") + randomness
        return base64.urlsafe_b64encode(body + self._mac(body)).decode("ascii")

    def use(self, nonce: str, count: int, now: datetime) -> bool:
        """Take a nonce and its count into use; only after the response was found right.

        :return: false if the nonce is not ours, too old, or was used with this count or a higher
            one: the client is to be asked again with ``stale=true``.
        """
        made = self._made_at(nonce)
        present = _since_epoch(now)
        if made is None or made <= self._not_before or not 0 <= present - made <= self._lifetime:
            return False
        if nonce in self._used and count <= self._used[nonce].highest:
            return False
        self._used[nonce] = _Use(made, count)
        if len(self._used) > self._most_used:
            self._forget_older_half(present)
        return True

    def _forget_older_half(self, present: int) -> None:
        ages = sorted(use.made for use in self._used.values())
        self._not_before = max(present - self._lifetime, ages[len(ages) // 2])
        self._used = {n: use for n, use in self._used.items() if use.made > self._not_before}

    def _made_at(self, nonce: str) -> int | None:
        try:
            octets = base64.b64decode(nonce.encode("ascii"), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            return None
        body, mac = octets[:-_MAC_OCTETS], octets[-_MAC_OCTETS:]
        if len(body) != _TIME_OCTETS + _RANDOM_OCTETS or not hmac.compare_digest(
            mac, self._mac(body)
        ):
            return None
        return int.from_bytes(body[:_TIME_OCTETS], "big")

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_MAC_OCTETS]


def _since_epoch(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def _microseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
