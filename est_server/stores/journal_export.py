"""An exported journal against a key, and against the store that it came from."""

from __future__ import annotations

from collections.abc import Iterator

from est_server.journal import Chain, Entry, JournalBroken
from est_server.stores.rules.journal import Query
from est_server.stores.seals import Seals
from est_server.stores.store import Store


def check_export(entries: Iterator[Entry], seals: Seals) -> Iterator[Entry]:
    """The same entries, once each is known to be sealed with the key.

    :raises JournalBroken: one is not.
    """
    for entry in entries:
        if not seals.fits(seals.entry(entry.hash), entry.mac):
            raise JournalBroken(f"entry {entry.number} is not sealed with this key")
        yield entry


class Comparison:
    """Compares an export with a store, entry by entry.

    :param beginning: the last entry that the store has removed for its age.
    """

    def __init__(self, beginning: Chain) -> None:
        self._beginning = beginning
        self._page: dict[int, bytes] = {}
        self.count = 0

    async def compare(self, store: Store, entry: Entry) -> None:
        """Require that the store has ``entry``, or has removed it.

        :raises JournalBroken: it has not.
        """
        self.count += 1
        if entry.number < self._beginning.number:
            return
        there = await self._find(store, entry.number)
        if there is None:
            # A server that runs may have removed it for its age just now.
            self._beginning = await store.journal_beginning()
            if entry.number < self._beginning.number:
                return
            there = await self._find(store, entry.number)
        if there is None:
            raise JournalBroken(f"entry {entry.number} is not in the store any more")
        if there != entry.hash:
            raise JournalBroken(f"entry {entry.number} is another one in the store")

    async def _find(self, store: Store, number: int) -> bytes | None:
        """The hash of an entry that the store has, or removed last."""
        if number == self._beginning.number:
            return self._beginning.hash
        if number not in self._page:
            page = await store.journal_page(Query(), number - 1)
            self._page = {found.number: found.hash for found in page}
        return self._page.get(number)
