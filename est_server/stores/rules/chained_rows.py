"""Rows that must not be missing, and how that nobody has removed one is seen with one search.

The rows of a chain are in the order of a key of 32 octets, and each has a seal over its own key,
the next one and the digest of what it says; the last one's next is the head's, which is zero. Where
a key is not there, the seal before it says so itself: it names a key beyond, as NSEC records do
(RFC 4034 section 4). Whoever removes a row cannot mend the seal of the one before it.

What is sealed stands in tables of its own; here is only that it is there, and what it says. Inside
a transaction of the caller. Without an integrity key there are no chains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from est_server.stores.rules.values import Row
from est_server.stores.seals import Sealed, Seals, encode, tampered
from est_server.stores.transaction import Transaction

#: Before all keys; a hash is never all zeros.
_HEAD = bytes(32)
_NOTHING = bytes(32)

#: The link of a key, or the one before where it would be; its parameters are chain and key.
LINK = (
    "SELECT key, next, content, mac FROM chained "
    "WHERE chain = ? AND key <= ? ORDER BY key DESC LIMIT 1"
)

#: Links of a chain that are read by one statement.
_PAGE = 500


class _Link(NamedTuple):
    key: bytes
    next: bytes
    content: bytes


class Said(NamedTuple):
    """A row of the table that a chain covers.

    :param key: its place in the chain.
    :param values: what it says.
    """

    key: bytes
    values: tuple[Sealed, ...]


@dataclass(frozen=True, slots=True)
class RowChain:
    """The chain of a table.

    :param name: the table's.
    :param what: what a row is called in findings.
    :param rows: all of its rows, in the order of the chain.
    """

    name: str
    what: str
    rows: Callable[[Transaction], Iterator[Said]]

    def is_begun(self, db: Transaction) -> bool:
        """Whether there is a chain; in a sealed store there always is."""
        row = db.execute("SELECT 1 FROM chained WHERE chain = ? LIMIT 1", (self.name,)).fetchone()
        return row is not None

    def require(self, db: Transaction, key: bytes, values: tuple[Sealed, ...] | None) -> None:
        """Require that a row is there, and says this; or, with ``None``, that none is there.

        :raises RequestRefused: ``RECORD_TAMPERED``.
        """
        if db.seals.is_keyed:
            self._judge(self._find(db, key), key, values)

    def require_link(
        self, seals: Seals, link: Row | None, key: bytes, values: tuple[Sealed, ...] | None
    ) -> None:
        """The same, for who reads link and row in one statement, as readers have to: between two
        of theirs somebody may write.

        :param link: what :data:`LINK` gives.
        """
        self._judge(self._opened(seals, link), key, values)

    def _judge(self, link: _Link, key: bytes, values: tuple[Sealed, ...] | None) -> None:
        if values is None:
            if link.key == key or (link.next != _HEAD and link.next <= key):
                raise tampered(f"a {self.what} is gone")
        elif link.key != key:
            raise tampered(self._unknown(values))
        elif link.content != _digest(values):
            raise tampered(self._changed(values))

    def put(self, db: Transaction, key: bytes, values: tuple[Sealed, ...]) -> None:
        """Seal a row as it is to be; that it was what it had to be is known already.

        :raises RequestRefused: ``RECORD_TAMPERED``: a row is gone beside it.
        """
        if not db.seals.is_keyed:
            return
        link = self._find(db, key)
        if link.key != key:
            self._judge(link, key, None)
            self._write(db, link._replace(next=key))
        self._write(db, _Link(key, link.next, _digest(values)), new=link.key != key)

    def remove(self, db: Transaction, key: bytes) -> None:
        """Take a row out of the chain.

        :raises RequestRefused: ``RECORD_TAMPERED``: it was not in it, or the one before it is gone.
        """
        if not db.seals.is_keyed:
            return
        link = self._find(db, key)
        if link.key != key:
            raise tampered(f"a {self.what} is there that no server wrote")
        row = db.execute(
            "SELECT key, next, content, mac FROM chained "
            "WHERE chain = ? AND key < ? ORDER BY key DESC LIMIT 1",
            (self.name, key),
        ).fetchone()
        before = self._opened(db.seals, row)
        if before.next != key:
            raise tampered(f"a {self.what} is gone")
        db.execute("DELETE FROM chained WHERE chain = ? AND key = ?", (self.name, key))
        self._write(db, before._replace(next=link.next))

    def begin_anew(self, db: Transaction) -> None:
        """Seal all rows as they are now, whatever the chain was."""
        db.execute("DELETE FROM chained WHERE chain = ?", (self.name,))
        link = _Link(_HEAD, _HEAD, _NOTHING)
        for row in self.rows(db):
            self._write(db, link._replace(next=row.key), new=True)
            link = _Link(row.key, _HEAD, _digest(row.values))
        self._write(db, link, new=True)

    def findings(self, db: Transaction, seals: Seals | None = None) -> Iterator[str]:
        """What is wrong with the rows or the chain, one sentence for each.

        :param seals: what it is sealed with, if not with what the transaction has.
        :raises RequestRefused: ``RECORD_TAMPERED``: there is no going on.
        """
        seals = seals or db.seals
        if not seals.is_keyed:
            return
        rows = self.rows(db)
        row = next(rows, None)
        follows: bytes | None = None
        for link in self._links(db, seals):
            if link.key != (follows or _HEAD):
                yield f"a {self.what} is gone"
            follows = link.next
            while row is not None and row.key < link.key:
                yield self._unknown(row.values)
                row = next(rows, None)
            if row is not None and row.key == link.key:
                if _digest(row.values) != link.content:
                    yield self._changed(row.values)
                row = next(rows, None)
            elif link.key != _HEAD:
                yield f"a {self.what} is gone"
        if follows != _HEAD:
            yield f"a {self.what} is gone"
        while row is not None:
            yield self._unknown(row.values)
            row = next(rows, None)

    def _unknown(self, values: tuple[Sealed, ...]) -> str:
        return f"the {self.what} {_shown(values)}: no server wrote it"

    def _changed(self, values: tuple[Sealed, ...]) -> str:
        return f"the {self.what} {_shown(values)}: it is not what a server wrote"

    def _links(self, db: Transaction, seals: Seals) -> Iterator[_Link]:
        after = b""
        while page := db.execute(
            "SELECT key, next, content, mac FROM chained "
            "WHERE chain = ? AND key > ? ORDER BY key LIMIT ?",
            (self.name, after, _PAGE),
        ).fetchall():
            for row in page:
                yield self._opened(seals, row)
            after = page[-1][0]

    def _find(self, db: Transaction, key: bytes) -> _Link:
        """The link of this key, or the one before where it would be."""
        return self._opened(db.seals, db.execute(LINK, (self.name, key)).fetchone())

    def _opened(self, seals: Seals, row: Row | None) -> _Link:
        if row is None:
            raise tampered(f"the seals of the table {self.name} are gone")
        link = _Link(*row[:-1])
        if not seals.fits(self._code(seals, link), row[-1]):
            raise tampered(f"{self.name}: a seal of the chain is not what a server wrote")
        return link

    def _write(self, db: Transaction, link: _Link, *, new: bool = False) -> None:
        values = (link.next, link.content, self._code(db.seals, link), self.name, link.key)
        db.execute(
            "INSERT INTO chained (next, content, mac, chain, key) VALUES (?, ?, ?, ?, ?)"
            if new
            else "UPDATE chained SET next = ?, content = ?, mac = ? WHERE chain = ? AND key = ?",
            values,
        )

    def _code(self, seals: Seals, link: _Link) -> bytes | None:
        return seals.row("chained", self.name, *link)


def place(*values: Sealed) -> bytes:
    """A place in a chain for a row that is named by these values."""
    return hashlib.sha256(encode(*values)).digest()


def _digest(values: Iterable[Sealed]) -> bytes:
    return hashlib.sha256(encode(*values)).digest()


def _shown(values: tuple[Sealed, ...]) -> str:
    return " ".join(value.hex() if isinstance(value, bytes) else str(value) for value in values)


def _compromised_keys(db: Transaction) -> Iterator[Said]:
    after = b""
    while page := db.execute(
        "SELECT spki_sha256, device, since FROM compromised_keys "
        "WHERE spki_sha256 > ? ORDER BY spki_sha256 LIMIT ?",
        (after, _PAGE),
    ).fetchall():
        yield from (Said(row[0], tuple(row)) for row in page)
        after = page[-1][0]


def _quota_counts(db: Transaction) -> Iterator[Said]:
    # Some for each list, owner and manufacturer.
    rows = db.execute("SELECT name, length, start, taken FROM quota_counts").fetchall()
    yield from sorted(Said(place(*row[:-1]), tuple(row)) for row in rows)


#: Keys that were reported as compromised.
COMPROMISED_KEYS = RowChain("compromised_keys", "compromised key", _compromised_keys)

#: How much of quotas is taken.
QUOTA_COUNTS = RowChain("quota_counts", "count of a quota", _quota_counts)

#: All of them.
CHAINS = (COMPROMISED_KEYS, QUOTA_COUNTS)
