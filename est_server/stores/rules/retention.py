"""Records of certificates that ended long ago go; inside a transaction of the caller.

What stays, however old: the certificate that a device has now, the one whose issuance holds its
claim, uses a secret, a quota or an approval, and the one that the present certificate replaced. So
a device cannot be claimed again, and who asks again for a lost answer gets what it got. Of the rest
the journal says which went, so that one that somebody else removed still shows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from est_server.journal import Event
from est_server.stores.rules import journal
from est_server.stores.rules.sealed_rows import ISSUANCES
from est_server.stores.rules.values import to_column
from est_server.stores.transaction import Transaction

#: Records that are looked at, once in so many issuances and refusals: more than come meanwhile.
_AT_ONCE = 128

_ENDED = """
SELECT number, not_after FROM issuances
WHERE state IN ('superseded', 'revoked') AND not_after < ? AND (not_after, number) > (?, ?)
ORDER BY not_after, number LIMIT ?
"""
_NEEDED = """
SELECT 1 FROM issuances i WHERE i.number = ? AND (
    EXISTS (SELECT 1 FROM claims c WHERE c.issuance = i.number)
    OR EXISTS (SELECT 1 FROM secret_uses s WHERE s.issuance = i.number)
    OR EXISTS (SELECT 1 FROM quota_uses q WHERE q.issuance = i.number)
    OR EXISTS (SELECT 1 FROM approvals a WHERE a.issuance = i.number AND a.state = 'used')
    OR EXISTS (SELECT 1 FROM issuances n WHERE n.device = i.device AND n.label = i.label
               AND n.state = 'active' AND n.predecessor = i.sha256))
"""


def prune(db: Transaction, kept: timedelta, now: datetime) -> None:
    """Remove some records of certificates that were superseded or revoked, and have expired.

    Each is looked at once: what is needed then stays for good.

    :param kept: for how long they stay after that.
    """
    row = db.execute("SELECT not_after, number FROM retention").fetchone()
    after = (0, 0) if row is None else tuple(row)
    ended = db.execute(_ENDED, (to_column(now - kept), *after, _AT_ONCE)).fetchall()
    gone = [number for number, _ in ended if _remove(db, number)]
    if not ended:
        return
    number, not_after = ended[-1]
    db.execute(
        "INSERT INTO retention (id, not_after, number) VALUES (1, ?, ?) ON CONFLICT (id) "
        "DO UPDATE SET not_after = excluded.not_after, number = excluded.number",
        (not_after, number),
    )
    if gone:
        journal.append(
            db, Event.FORGOTTEN, now, numbers=" ".join(str(number) for number in sorted(gone))
        )


def _remove(db: Transaction, number: int) -> bool:
    """Remove a record unless it is needed; whether it went."""
    row = db.execute(f"{ISSUANCES.select} WHERE number = ?", (number,)).fetchone()
    if ISSUANCES.fault(db.seals, row) is not None:
        # Nobody is to have the server remove it; whoever asks for it is told.
        return False
    if db.execute(_NEEDED, (number,)).fetchone() is not None:
        return False
    db.execute("DELETE FROM revocations WHERE issuance = ?", (number,))
    db.execute("DELETE FROM issuances WHERE number = ?", (number,))
    return True
