"""At which schema version everything that is in a store was sealed.

Later versions seal more than earlier ones. What an earlier one left out is not sealed yet, and what
it did seal has to have its seals: without knowing which version it was, one cannot tell a row that
never had a seal from one that somebody has taken it off.
"""

from __future__ import annotations

import json

from est_server.stores.rules.chained_rows import CHAINS
from est_server.stores.rules.sealed_rows import SEALED_TABLES
from est_server.stores.seals import Seals, tampered
from est_server.stores.transaction import Transaction

#: From which versions on there are seals of what is no :class:`SealedTable`: devices and lists; the
#: journal; counts of quotas and who took them, and compromised keys; how many claims a device has.
DEVICES_SINCE = 7
JOURNAL_SINCE = 9
CHAINS_SINCE = 11
CLAIM_COUNTS_SINCE = 14

#: The last version that sealed more than the one before it.
LATEST = max(CLAIM_COUNTS_SINCE, *(table.since for table in SEALED_TABLES))

#: The first that recorded which it is.
_RECORDED_SINCE = 14

#: The code of the record is that of a row of this table.
_TABLE = "sealing"


def record(db: Transaction, version: int) -> None:
    """Note, with the key at hand, that all is sealed that ``version`` seals."""
    assert db.seals.key is not None
    db.execute(
        "UPDATE sealing SET version = ?, mac = ?",
        (version, db.seals.row(_TABLE, db.seals.key.fingerprint, version)),
    )


def recorded(db: Transaction, seals: Seals) -> int | None:
    """The version on record; ``None`` if it is one that made no record.

    :param seals: what it is sealed with.
    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    row = db.execute("SELECT key_fingerprint, version, mac FROM sealing").fetchone()
    fingerprint, version, mac = row
    if version is None and mac is None:
        return None
    if not seals.fits(seals.row(_TABLE, fingerprint, version), mac):
        raise tampered("the record of what is sealed is not what a server wrote")
    return int(version)


def find(db: Transaction, seals: Seals) -> int:
    """The version that sealed the store, be there a record or not; reads the whole journal.

    :param seals: what it is sealed with.
    :raises RequestRefused: ``RECORD_TAMPERED``: there was a record.
    """
    known = recorded(db, seals)
    if known is not None:
        return known
    for (details,) in db.execute("SELECT details FROM journal WHERE event = 'sealed'"):
        if "version" in json.loads(details):
            raise tampered("the record of what is sealed is gone")
    return _without_record(db)


def _without_record(db: Transaction) -> int:
    """The version by what is there, and by when the store was brought to which version.

    Somebody could write other times. But what has seals by which this tells must have them all, and
    the codes of devices tell what is sealed since there are records from what was before.
    """
    [(by_time,)] = db.execute(
        "SELECT coalesce(max(version), 0) FROM migrations WHERE version < ? "
        "AND applied_at <= (SELECT sealed_at FROM sealing)",
        (_RECORDED_SINCE,),
    ).fetchall()
    by_rows = DEVICES_SINCE
    if any(chain.is_begun(db) for chain in CHAINS):
        by_rows = CHAINS_SINCE
    elif db.execute("SELECT 1 FROM journal LIMIT 1").fetchone() is not None:
        by_rows = JOURNAL_SINCE
    return max(int(by_time), by_rows)
