"""Rows of small tables with codes that seal them; inside a transaction of the caller.

Each row is checked before it is believed, and before it is changed: a change that sealed what it
found would make a forged row a genuine one.
"""

from __future__ import annotations

from dataclasses import dataclass

from est_server.stores.rules.values import Row
from est_server.stores.seals import Seals, tampered
from est_server.stores.transaction import Transaction, Value

#: Before every key; somebody may have written a row with a negative one.
FIRST = -(2**63)


@dataclass(frozen=True, slots=True)
class SealedTable:
    """A table with a column ``mac``.

    :param name: the table's.
    :param what: what one row is called in findings.
    :param key: the column by which it is named; unique.
    :param columns: what the code covers: every other column, or an expression over other tables.
    :param called: the place, in a row as read, of what findings call it by: the key, if not said.
    :param device: the place of the device among ``columns``, if there is one.
    """

    name: str
    what: str
    key: str
    columns: tuple[str, ...]
    called: int = 0
    device: int | None = None

    @property
    def select(self) -> str:
        """A query of rows as :meth:`opened` expects them; what follows is the caller's."""
        return f"SELECT {self.key}, {', '.join(self.columns)}, mac FROM {self.name}"

    def fault(self, seals: Seals, row: Row) -> str | None:
        """What is wrong with a row; ``None`` if nothing is."""
        *values, mac = row
        if not seals.is_keyed:
            return None
        if mac is None:
            return f"{self.what} {row[self.called]!r}: the row has no seal"
        if not seals.fits(seals.row(self.name, *values), mac):
            return f"{self.what} {row[self.called]!r}: the row is not what a server wrote"
        return None

    def opened(self, db: Transaction, row: Row) -> Row:
        """Key and columns of a row, once they are known to be what a server wrote.

        :raises RequestRefused: ``RECORD_TAMPERED``.
        """
        self.require(db.seals, row)
        return row[:-1]

    def require(self, seals: Seals, row: Row) -> None:
        """Check a row.

        :raises RequestRefused: ``RECORD_TAMPERED``.
        """
        finding = self.fault(seals, row)
        if finding is not None:
            device = None if self.device is None else row[1 + self.device]
            raise tampered(finding, device=device)

    def seal(self, db: Transaction, key: Value) -> None:
        """Seal a row as it is now. What it was before has been checked."""
        if not db.seals.is_keyed:
            return
        row = db.execute(f"{self.select} WHERE {self.key} = ?", (key,)).fetchone()
        db.execute(
            f"UPDATE {self.name} SET mac = ? WHERE {self.key} = ?",
            (db.seals.row(self.name, *row[:-1]), key),
        )

    def page(self, db: Transaction, after: int, size: int) -> list[Row]:
        """The next rows in the order of their keys, unchecked.

        :param after: the last key of the page before; :data:`FIRST` for the first page.
        """
        return db.execute(
            f"{self.select} WHERE {self.key} > ? ORDER BY {self.key} LIMIT ?", (after, size)
        ).fetchall()


#: Its uses are counted by the code, so that one cannot be taken away.
SECRETS = SealedTable(
    "secrets",
    "secret",
    "number",
    (
        "name",
        "hash",
        "device",
        "max_uses",
        "expires_at",
        "added_at",
        "(SELECT count(*) FROM secret_uses WHERE secret = number)",
    ),
    called=1,
    device=2,
)

SECRET_USES = SealedTable("secret_uses", "use of a secret by issuance", "issuance", ("secret",))

APPROVALS = SealedTable(
    "approvals",
    "request for approval",
    "number",
    (
        "request_key",
        "operation",
        "device",
        "label",
        "spki_sha256",
        "client_key",
        "transport",
        "peer",
        "reasons",
        "asked_at",
        "lifetime",
        "expires_at",
        "state",
        "actor",
        "reason",
        "decided_at",
        "issuance",
    ),
    device=2,
)

#: All of them.
SEALED_TABLES = (SECRETS, SECRET_USES, APPROVALS)
