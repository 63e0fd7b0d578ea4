"""Attempts to issue, each a row of ``issuances``; in a transaction of the caller.

The number of the row is a fencing token: taking over from a dead attempt abandons its row and
makes a new one, so whatever comes late from the old attempt finds its row abandoned and is
refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from est_server.journal import Event
from est_server.ledger_records import CertificateState, EnrollmentIntent
from est_server.stores.rules import approvals, claims, journal, sealed_issuances, secrets
from est_server.stores.rules.certificates import MADE_COLUMNS, Made
from est_server.stores.rules.sealed_rows import ATTEMPTS, ISSUANCES
from est_server.stores.rules.values import Row, label_column, to_column
from est_server.stores.transaction import Transaction

#: Abandoned rows are counted once in so many abandonments, not each time.
_PRUNE_EVERY = 64

#: Stands in ``spki_sha256`` until the key is made.
_NO_KEY_YET = bytes(32)

_COLUMNS = (
    "request_key, operation, device, label, predecessor, transport, peer, reasons, requested_at, "
    "owner, lease_until"
)

_BEGIN = (
    f"INSERT INTO issuances ({_COLUMNS}, spki_sha256, status) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'in-progress')"
)

_ISSUE = (
    f"INSERT INTO issuances ({_COLUMNS}, {MADE_COLUMNS}, finished_at, mac, status, state) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'issued', 'active')"
)


@dataclass(slots=True)
class Worker:
    """Who begins attempts: one open store.

    :param owner: identifies it among all that share the database.
    :param lease: how long others leave its attempts alone.
    :param held: numbers of attempts whose tickets are in the hands of a caller. The writer's
        thread adds to it, the event loop takes away; a set is safe for that.
    """

    owner: str
    lease: timedelta
    held: set[int] = field(default_factory=set)


def begin(
    db: Transaction, intent: EnrollmentIntent, worker: Worker, event: Event, now: datetime
) -> int:
    """Record that an attempt is under way; its number.

    :param event: ``CLAIMED`` or ``BEGUN``.
    """
    values = (*_values(intent, worker, now), intent.spki_sha256 or _NO_KEY_YET)
    number = db.insert(_BEGIN, values, numbered="number")
    ATTEMPTS.seal(db, number)
    _note_beginning(db, intent, number, event, now)
    return number


def issue(
    db: Transaction,
    intent: EnrollmentIntent,
    made: Made,
    worker: Worker,
    event: Event,
    now: datetime,
) -> int:
    """Record an attempt that is over as soon as it begins; its number.

    Its certificate is the active one; there is no other any more.
    """
    values = (*_values(intent, worker, now), *_made_values(db, intent, made, now))
    number = db.insert(_ISSUE, values, numbered="number")
    _note_beginning(db, intent, number, event, now)
    _note_end(db, intent, number, made, now)
    return number


def complete(
    db: Transaction, intent: EnrollmentIntent, number: int, made: Made, now: datetime
) -> None:
    """Record the certificate of an attempt that is under way, likewise."""
    db.execute(
        "UPDATE issuances SET status = 'issued', state = 'active', "
        f"({MADE_COLUMNS}, finished_at, mac) = (?, ?, ?, ?, ?, ?, ?) WHERE number = ?",
        (*_made_values(db, intent, made, now), number),
    )
    _note_end(db, intent, number, made, now)


def supersede(db: Transaction, intent: EnrollmentIntent) -> None:
    """Have the device be without an active certificate, so that it can get another one."""
    active = sealed_issuances.find_active(db, intent.device, label_column(intent.label))
    if active is not None:
        sealed_issuances.change_state(db, active, CertificateState.SUPERSEDED)


class _Attempt(NamedTuple):
    """An attempt under way, which a server began; values as in the columns."""

    number: int
    status: str
    device: str
    label: str
    request_key: bytes
    operation: str
    owner: str
    lease_until: int


class Rivals(NamedTuple):
    """Attempts that stood in the way.

    :param living: request keys of those that still do.
    :param cleared: whether some were cleared away.
    """

    living: list[bytes]
    cleared: bool


def rivals(db: Transaction, intent: EnrollmentIntent, worker: Worker, now: datetime) -> Rivals:
    """Attempts that stand in the way; dead ones are cleared away."""
    rows: list[Row] = db.execute(
        f"{ATTEMPTS.select} WHERE status = 'in-progress' AND request_key = ? "
        f"UNION ALL {ATTEMPTS.select} WHERE status = 'in-progress' AND device = ? AND label = ?",
        (intent.request_key, intent.device, label_column(intent.label)),
    ).fetchall()
    living = []
    # The request itself may be there twice; to abandon it once more changes nothing.
    for attempt in (_Attempt(*ATTEMPTS.opened(db, row)) for row in rows):
        if attempt.lease_until <= to_column(now):
            abandon(db, attempt.number, "the lease ran out", now)
        elif attempt.owner == worker.owner and attempt.number not in worker.held:
            abandon(db, attempt.number, "the process that began it is gone", now)
        else:
            living.append(attempt.request_key)
    return Rivals(living, cleared=len(living) < len(rows))


def abandon(db: Transaction, number: int, reason: str, now: datetime) -> None:
    """Give up an attempt, and what it took, if it is still under way.

    :raises RequestRefused: ``RECORD_TAMPERED``: no server began it, or it came to a certificate.
    """
    row = db.execute(
        f"{ATTEMPTS.select} WHERE number = ? AND status = 'in-progress'", (number,)
    ).fetchone()
    if row is None:
        return
    attempt = _Attempt(*ATTEMPTS.opened(db, row))
    journal.require_not_issued(db, attempt.device, number)
    db.execute(
        "UPDATE issuances SET status = 'abandoned', finished_at = ?, outcome = ?, mac = NULL "
        "WHERE number = ?",
        (to_column(now), reason, number),
    )
    journal.append(
        db,
        Event.ABANDONED,
        now,
        device=attempt.device,
        label=attempt.label,
        reference=number,
        reason=reason,
    )
    claims.release(db, number)
    secrets.give_back_use(db, number)
    approvals.give_back(db, number)


def prune(db: Transaction, number: int, kept: int) -> None:
    """Now and then, by the number of an attempt, drop the oldest of those that were abandoned.

    :param kept: how many abandoned rows stay for the audit trail.
    """
    if number % _PRUNE_EVERY == 0:
        db.execute(
            "DELETE FROM issuances WHERE status = 'abandoned' AND sha256 IS NULL AND number <= "
            "(SELECT number FROM issuances WHERE status = 'abandoned' "
            "ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (kept,),
        )


def abandon_all(db: Transaction, device: str, *, reason: str, now: datetime) -> None:
    """Give up every attempt of ``device`` that is under way."""
    rows = db.execute(
        "SELECT number FROM issuances WHERE device = ? AND status = 'in-progress'", (device,)
    ).fetchall()
    for (number,) in rows:
        abandon(db, number, reason, now)


def _values(intent: EnrollmentIntent, worker: Worker, now: datetime) -> Row:
    return (
        intent.request_key,
        intent.operation.value,
        intent.device,
        label_column(intent.label),
        intent.predecessor,
        intent.transport.value,
        intent.peer,
        json.dumps(intent.reasons, ensure_ascii=False),
        to_column(intent.requested_at),
        worker.owner,
        to_column(now + worker.lease),
    )


def _made_values(db: Transaction, intent: EnrollmentIntent, made: Made, now: datetime) -> Row:
    """What goes into a row with its certificate, and the code that seals all of the row."""
    der, sha256, serial, not_after, spki = made.columns
    finished_at = to_column(now)
    mac = ISSUANCES.code(
        db.seals,
        None,
        sha256,
        intent.device,
        label_column(intent.label),
        serial,
        not_after,
        spki,
        intent.request_key,
        intent.operation.value,
        intent.predecessor,
        finished_at,
        "active",
    )
    return der, sha256, serial, not_after, spki, finished_at, mac


def _note_beginning(
    db: Transaction, intent: EnrollmentIntent, number: int, event: Event, now: datetime
) -> None:
    journal.append(
        db,
        event,
        now,
        device=intent.device,
        label=label_column(intent.label),
        reference=number,
        operation=intent.operation.value,
        transport=intent.transport.value,
        peer=intent.peer,
        key=None if intent.spki_sha256 is None else intent.spki_sha256.hex(),
        predecessor=None if intent.predecessor is None else intent.predecessor.hex(),
        secret=intent.secret if event is Event.CLAIMED else None,
        reasons="; ".join(intent.reasons),
    )


def _note_end(
    db: Transaction, intent: EnrollmentIntent, number: int, made: Made, now: datetime
) -> None:
    journal.append(
        db,
        Event.ISSUED,
        now,
        device=intent.device,
        label=label_column(intent.label),
        serial=made.serial,
        reference=number,
        sha256=made.sha256.hex(),
    )
