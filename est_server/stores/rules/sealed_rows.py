"""Rows of tables with codes that seal them; inside a transaction of the caller.

Each row is checked before it is believed, and before it is changed: a change that sealed what it
found would make a forged row a genuine one.
"""

from __future__ import annotations

from dataclasses import dataclass

from est_server.stores.rules.values import Row
from est_server.stores.seals import Sealed, Seals, tampered
from est_server.stores.transaction import Transaction, Value

#: Before every key; somebody may have written a row with a negative one.
FIRST = -(2**63)


@dataclass(frozen=True, slots=True)
class SealedTable:
    """A table with a column ``mac``.

    :param name: the table's.
    :param what: what one row is called in findings.
    :param key: the column by which it is found; unique.
    :param columns: what the code covers beside the key: every other column that decides anything,
        or an expression over other rows.
    :param since: the schema version from which on its rows are sealed.
    :param called: the place, in a row as read, of what findings call it by: the key, if not said.
    :param device: the place of the device among ``columns``, if there is one.
    :param covers_key: whether the code covers the key too. If the database makes the key, a code
        that does not can go into the very statement that inserts the row.
    :param where: which rows are sealed, if not all.
    """

    name: str
    what: str
    key: str
    columns: tuple[str, ...]
    since: int
    called: int = 0
    device: int | None = None
    covers_key: bool = True
    where: str = "1 = 1"

    @property
    def read(self) -> str:
        """What to ask for, so that a row is one as :meth:`opened` expects it."""
        return f"{self.key}, {', '.join(self.columns)}, mac"

    @property
    def select(self) -> str:
        """A query of such rows; what follows is the caller's."""
        return f"SELECT {self.read} FROM {self.name}"

    def code(self, seals: Seals, key: Sealed, *values: Sealed) -> bytes | None:
        """The code of a row.

        :param values: of ``columns``.
        """
        if self.covers_key:
            return seals.row(self.name, key, *values)
        return seals.row(self.name, *values)

    def fault(self, seals: Seals, row: Row) -> str | None:
        """What is wrong with a row; ``None`` if nothing is."""
        *values, mac = row
        if not seals.is_keyed:
            return None
        if mac is None:
            return f"{self.what} {row[self.called]!r}: the row has no seal"
        if not seals.fits(self.code(seals, *values), mac):
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
            (self.code(db.seals, *row[:-1]), key),
        )

    def page(self, db: Transaction, after: int, size: int) -> list[Row]:
        """The next rows in the order of their keys, unchecked.

        :param after: the last key of the page before; :data:`FIRST` for the first page.
        """
        return db.execute(
            f"{self.select} WHERE {self.key} > ? AND {self.where} ORDER BY {self.key} LIMIT ?",
            (after, size),
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
    since=10,
    called=1,
    device=2,
)

SECRET_USES = SealedTable(
    "secret_uses", "use of a secret by issuance", "issuance", ("secret",), since=10
)

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
    since=10,
    device=2,
)

#: Those that have a certificate. An attempt that is under way, or came to nothing, decides nothing
#: about certificates.
ISSUANCES = SealedTable(
    "issuances",
    "certificate",
    "number",
    (
        "sha256",
        "device",
        "label",
        "serial",
        "not_after",
        "spki_sha256",
        "request_key",
        "operation",
        "predecessor",
        "finished_at",
        "state",
    ),
    since=14,
    called=4,
    device=1,
    covers_key=False,
    where="sha256 IS NOT NULL",
)

#: Attempts under way: whoever gives one up gives back what it took.
ATTEMPTS = SealedTable(
    "issuances",
    "attempt",
    "number",
    ("status", "device", "label", "request_key", "operation", "owner", "lease_until"),
    since=15,
    device=1,
    where="status = 'in-progress'",
)

#: ``counted``: whether the row of the device counts it.
CLAIMS = SealedTable(
    "claims",
    "claim by issuance",
    "issuance",
    ("device", "label", "counted"),
    since=14,
    device=0,
)

REVOCATIONS = SealedTable(
    "revocations",
    "revocation of issuance",
    "issuance",
    ("issuer", "serial", "not_after", "reason", "revoked_at"),
    since=14,
)

#: Each names the one before it, and the device's row names the last, so that none can be taken out
#: or moved.
HISTORY = SealedTable(
    "device_history",
    "entry of a device's history",
    "id",
    (
        "udid",
        "step",
        "from_state",
        "to_state",
        "owner",
        "actor",
        "reason",
        "changed_at",
        "(SELECT coalesce(max(p.id), 0) FROM device_history p "
        "WHERE p.udid = device_history.udid AND p.id < device_history.id)",
    ),
    since=14,
    device=0,
    covers_key=False,
)

#: All of them.
SEALED_TABLES = (
    SECRETS,
    SECRET_USES,
    APPROVALS,
    ISSUANCES,
    ATTEMPTS,
    CLAIMS,
    REVOCATIONS,
    HISTORY,
)
