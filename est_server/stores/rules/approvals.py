"""The queue of requests that need approval; inside a transaction of the caller."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_server.approvals import Approval, ApprovalState, ApprovalTerms, NotWaiting
from est_server.ledger_records import EnrollmentIntent
from est_server.peer_networks import network_of
from est_server.stores.rules.sealed_rows import APPROVALS
from est_server.stores.rules.values import Row, from_column, label_column, to_column
from est_server.stores.transaction import Transaction

_MICROSECOND = timedelta(microseconds=1)

#: How many a page of :func:`page` has.
PAGE_SIZE = 500


def is_approved(
    db: Transaction, intent: EnrollmentIntent, terms: ApprovalTerms, now: datetime
) -> bool:
    """Whether a request is approved; if nobody has decided, it waits in the queue.

    :raises RequestRefused: ``APPROVAL_DENIED``; ``TRY_LATER``: too many wait.
    """
    known = _find(db, intent, now)
    if known is None:
        _add(db, intent, terms, now)
        return False
    if known.state is ApprovalState.DENIED:
        raise RequestRefused(
            RefusalReason.APPROVAL_DENIED,
            "an operator has denied this request",
            detail=f"request {known.number}, by {known.actor}: {known.reason}",
            device=intent.device,
        )
    return known.state is ApprovalState.APPROVED


def use(db: Transaction, intent: EnrollmentIntent, issuance: int) -> None:
    """Use the approval of a request up, in the name of an attempt."""
    _reseal(
        db,
        db.execute(
            "UPDATE approvals SET state = 'used', issuance = ? "
            "WHERE request_key = ? AND state = 'approved' RETURNING number",
            (issuance, intent.request_key),
        ).fetchall(),
    )


def give_back(db: Transaction, issuance: int) -> None:
    """Let the approval be used again that an abandoned attempt used.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    for row in db.execute(f"{APPROVALS.select} WHERE issuance = ?", (issuance,)).fetchall():
        APPROVALS.require(db.seals, row)
    _reseal(
        db,
        db.execute(
            "UPDATE approvals SET state = 'approved', issuance = NULL WHERE issuance = ? "
            "RETURNING number",
            (issuance,),
        ).fetchall(),
    )


def _reseal(db: Transaction, changed: list[Row]) -> None:
    for (number,) in changed:
        APPROVALS.seal(db, number)


def decide(
    db: Transaction, number: int, *, approve: bool, actor: str, reason: str, now: datetime
) -> Approval:
    """See :meth:`est_server.approvals.ApprovalQueue.decide_approval`."""
    known = find(db, number)
    if known is None:
        raise KeyError(number)
    if known.state is not ApprovalState.WAITING:
        raise NotWaiting(f"request {number} is {known.state.value} already")
    if known.expires_at <= now:
        raise NotWaiting(f"request {number} expired at {known.expires_at:%Y-%m-%dT%H:%M:%SZ}")
    state = ApprovalState.APPROVED if approve else ApprovalState.DENIED
    db.execute(
        "UPDATE approvals SET state = ?, actor = ?, reason = ?, decided_at = ?, "
        "expires_at = ? + lifetime WHERE number = ?",
        (state.value, actor, reason, to_column(now), to_column(now), number),
    )
    APPROVALS.seal(db, number)
    decided = find(db, number)
    assert decided is not None
    return decided


def find(db: Transaction, number: int) -> Approval | None:
    """The request with this number."""
    row = db.execute(f"{APPROVALS.select} WHERE number = ?", (number,)).fetchone()
    return None if row is None else _approval(db, row)


def page(db: Transaction, *, decided: bool, after: int, now: datetime) -> list[Approval]:
    """The next requests after number ``after``: those that wait, or all."""
    which = "" if decided else "AND state = 'waiting' "
    rows = db.execute(
        f"{APPROVALS.select} WHERE number > ? {which}"
        "AND (expires_at > ? OR state = 'used') ORDER BY number LIMIT ?",
        (after, to_column(now), PAGE_SIZE),
    ).fetchall()
    return [_approval(db, row) for row in rows]


def _find(db: Transaction, intent: EnrollmentIntent, now: datetime) -> Approval | None:
    """What was asked and decided about the same request, if it is neither used nor expired."""
    # The request key stands for the rest; see the ledger on why it is compared all the same.
    row = db.execute(
        f"{APPROVALS.select} WHERE request_key = ? AND state <> 'used' "
        "AND expires_at > ? AND operation = ? AND device = ? AND label = ? "
        "AND spki_sha256 IS NOT DISTINCT FROM ?",
        (
            intent.request_key,
            to_column(now),
            intent.operation.value,
            intent.device,
            label_column(intent.label),
            intent.spki_sha256,
        ),
    ).fetchone()
    return None if row is None else _approval(db, row)


def _add(db: Transaction, intent: EnrollmentIntent, terms: ApprovalTerms, now: datetime) -> None:
    db.execute("DELETE FROM approvals WHERE state <> 'used' AND expires_at <= ?", (to_column(now),))
    _require_room(db, intent, terms)
    number = db.insert(
        "INSERT INTO approvals (request_key, operation, device, label, spki_sha256, client_key, "
        "transport, peer, reasons, asked_at, lifetime, expires_at, state) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting')",
        (
            intent.request_key,
            intent.operation.value,
            intent.device,
            label_column(intent.label),
            intent.spki_sha256,
            min(intent.client_keys - {intent.spki_sha256}, default=intent.spki_sha256),
            intent.transport.value,
            intent.peer,
            json.dumps(intent.reasons, ensure_ascii=False),
            to_column(now),
            terms.lifetime // _MICROSECOND,
            to_column(now + terms.lifetime),
        ),
        numbered="number",
    )
    APPROVALS.seal(db, number)


def _require_room(db: Transaction, intent: EnrollmentIntent, terms: ApprovalTerms) -> None:
    # There are as many rows as may wait in all, and this runs once for each that is added.
    waiting = db.execute("SELECT device, peer FROM approvals WHERE state = 'waiting'").fetchall()
    network = network_of(intent.peer)
    alike = sum(network_of(peer) == network for _, peer in waiting)
    own = sum(device == intent.device for device, _ in waiting)
    for count, limit, whose in (
        (len(waiting), terms.max_waiting, ""),
        (alike, terms.max_waiting_per_address, f" from {network}"),
        (own, terms.max_waiting_per_device, " of this device"),
    ):
        if count >= limit:
            raise RequestRefused(
                RefusalReason.TRY_LATER,
                "too many requests wait for approval",
                detail=f"{count} requests{whose} are waiting",
                retry_after=terms.seconds,
                device=intent.device,
            )


def _approval(db: Transaction, row: Row) -> Approval:
    values = APPROVALS.opened(db, row)
    _, operation, device, label, spki, client_key, transport, peer, reasons = values[1:10]
    asked_at, _, expires_at, state, actor, reason, decided_at, _ = values[10:]
    return Approval(
        number=values[0],
        operation=Operation(operation),
        device=device,
        label=label or None,
        spki_sha256=spki,
        client_key=client_key,
        transport=Transport(transport),
        peer=peer,
        reasons=tuple(json.loads(reasons)),
        asked_at=from_column(asked_at),
        expires_at=from_column(expires_at),
        state=ApprovalState(state),
        actor=actor,
        reason=reason,
        decided_at=None if decided_at is None else from_column(decided_at),
    )
