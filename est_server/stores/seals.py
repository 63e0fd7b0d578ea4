"""Message authentication codes of rows: who lacks the integrity key cannot make one.

Keyed BLAKE2b-256 (RFC 7693); each purpose has a personalization of its own, so that a code made
for one says nothing for another. What is encoded can be taken apart in one way only: every text
and every string of octets has its length before it.

Of a list, all rows together have a sum besides: a pseudo-random number for each row, added up,
so that their order does not matter and a row can be added without reading the others. Neither
the numbers nor the sum are in the database in the clear: whoever saw them could look for other
rows with the same sum (D. Wagner, "A Generalized Birthday Problem", 2002).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import TypeAlias

from est_protocol.errors import RefusalReason
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.stores.integrity_key import IntegrityKey

#: What is sealed: text, octets, a whole number or nothing.
Sealed: TypeAlias = str | bytes | int | None

_OCTETS = 32
_NONCE_OCTETS = 16
_MODULUS = 1 << (8 * _OCTETS)


def encode(*values: Sealed) -> bytes:
    """Values as octets; other values give other octets."""
    parts: list[bytes] = []
    add = parts.append
    for value in values:
        # In the order of how many there are; each row that is written comes by here.
        if isinstance(value, str):
            text = value.encode()
            add(b"t%d:" % len(text))
            add(text)
        elif isinstance(value, bytes):
            add(b"b%d:" % len(value))
            add(value)
        elif value is None:
            add(b"n;")
        else:
            add(b"i%d;" % value)
    return b"".join(parts)


def _keyed(key: bytes, purpose: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(key=key, person=purpose, digest_size=_OCTETS)


class Seals:
    """Makes and checks codes under one key; without a key nothing is sealed or checked.

    Belongs to one store; every connection of it has it.
    """

    def __init__(self, key: IntegrityKey | None) -> None:
        self.key = key
        octets = b"" if key is None else key.octets
        self._device = _keyed(octets, b"est device")
        self._member = _keyed(octets, b"est list member")
        self._mask = _keyed(octets, b"est list mask")
        self._row = _keyed(octets, b"est row")
        self._entry = _keyed(octets, b"est entry")

    @property
    def is_keyed(self) -> bool:
        """Whether rows are sealed and checked."""
        return self.key is not None

    # One device is sealed for each of the millions of rows of a list, so what is the same for all
    # of them is encoded once, by the caller.

    def device(self, udid: str, spki_sha256: bytes, attributes: str, rest: bytes) -> bytes | None:
        """The code of a row of ``devices``.

        :param attributes: as they are stored.
        :param rest: its other columns, by :func:`device_rest`.
        """
        if self.key is None:
            return None
        name, listed = udid.encode(), attributes.encode()
        code = self._device.copy()
        code.update(
            b"%d %d %d %b%b%b%b"
            % (len(name), len(spki_sha256), len(listed), name, spki_sha256, listed, rest)
        )
        return code.digest()

    def member(self, udid: str, spki_sha256: bytes) -> int:
        """What a device adds to the sum of its list."""
        name = udid.encode()
        code = self._member.copy()
        code.update(b"%d %d %b%b" % (len(name), len(spki_sha256), name, spki_sha256))
        return int.from_bytes(code.digest())

    def mask(self, total: int) -> bytes:
        """A sum as it is stored."""
        nonce = secrets.token_bytes(_NONCE_OCTETS)
        return nonce + ((total + self._pad(nonce)) % _MODULUS).to_bytes(_OCTETS)

    def unmask(self, stored: bytes) -> int:
        """The inverse of :meth:`mask`."""
        nonce, masked = stored[:_NONCE_OCTETS], stored[_NONCE_OCTETS:]
        return (int.from_bytes(masked) - self._pad(nonce)) % _MODULUS

    def _pad(self, nonce: bytes) -> int:
        code = self._mask.copy()
        code.update(nonce)
        return int.from_bytes(code.digest())

    def row(self, table: str, *values: Sealed) -> bytes | None:
        """The code of a row of any other table."""
        if self.key is None:
            return None
        code = self._row.copy()
        code.update(encode(table, *values))
        return code.digest()

    def entry(self, hash: bytes) -> bytes | None:
        """The code of an entry of the journal, by its hash."""
        if self.key is None:
            return None
        code = self._entry.copy()
        code.update(hash)
        return code.digest()

    def fits(self, expected: bytes | None, stored: object) -> bool:
        """Whether what is stored is the code that it should be."""
        if expected is None:
            return True
        return isinstance(stored, bytes) and hmac.compare_digest(expected, stored)


#: For what is not sealed.
NO_SEALS = Seals(None)


def add_up(totals: Sequence[int]) -> int:
    """The sum of several parts of a list."""
    return sum(totals) % _MODULUS


def device_rest(
    list_number: int | None,
    state: str,
    owner: str | None,
    changed_at: int,
    history: int,
    *more: int,
) -> bytes:
    """The columns of a device that change in its life, for :meth:`Seals.device`.

    :param more: the number of its claims; missing in what earlier versions sealed, so that what
        they did is never taken for what this one does.
    """
    return encode(list_number, state, owner, changed_at, history, *more)


def tampered(what: str, *, device: str | None = None) -> AlarmingRefusal:
    """The refusal for a row that somebody else than a server with the key has written.

    :param what: which row, and what is wrong with it.
    """
    return AlarmingRefusal(
        AlarmKind.RECORD_TAMPERED,
        RefusalReason.RECORD_TAMPERED,
        "the server's records are not in order",
        detail=what,
        device=device,
    )
