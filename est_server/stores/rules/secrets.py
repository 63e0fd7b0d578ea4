"""One-time secrets and their uses; inside a transaction of the caller."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.journal import Event
from est_server.stores.rules import journal
from est_server.stores.rules.sealed_rows import SECRET_USES, SECRETS
from est_server.stores.rules.values import Row, from_column, is_storable, to_column
from est_server.stores.transaction import Transaction
from est_server.user_credentials import EnrollmentSecret


def find(db: Transaction, name: str) -> EnrollmentSecret | None:
    """The secret of this name."""
    if not is_storable(name):
        return None
    row = db.execute(f"{SECRETS.select} WHERE name = ?", (name,)).fetchone()
    return None if row is None else _secret(db, row)


def every(db: Transaction) -> list[EnrollmentSecret]:
    """All of them, by name."""
    rows = db.execute(f"{SECRETS.select} ORDER BY name").fetchall()
    return [_secret(db, row) for row in rows]


def add(db: Transaction, secret: EnrollmentSecret, now: datetime) -> EnrollmentSecret:
    """See :meth:`est_server.user_credentials.SecretRegistry.add_secret`."""
    if find(db, secret.name) is not None:
        raise KeyError(secret.name)
    number = db.insert(
        "INSERT INTO secrets (name, hash, device, max_uses, expires_at, added_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            secret.name,
            secret.hash,
            secret.device,
            secret.max_uses,
            None if secret.expires_at is None else to_column(secret.expires_at),
            to_column(now),
        ),
        numbered="number",
    )
    SECRETS.seal(db, number)
    journal.append(
        db,
        Event.SECRET_ADDED,
        now,
        device=secret.device,
        reference=number,
        name=secret.name,
        uses=secret.max_uses,
    )
    return replace(secret, number=number, uses=0)


def remove(db: Transaction, name: str, now: datetime) -> bool:
    """Remove a secret; whether there was one."""
    row = db.execute("DELETE FROM secrets WHERE name = ? RETURNING number", (name,)).fetchone()
    if row is None:
        return False
    journal.append(db, Event.SECRET_REMOVED, now, reference=row[0], name=name)
    return True


def require_use_left(db: Transaction, number: int, now: datetime) -> None:
    """Check that one more certificate may be issued for a secret.

    :raises RequestRefused: ``SECRET_USED_UP``.
    """
    secret = _find_by_number(db, number)
    if secret is None:
        why = f"secret {number} was removed"
    elif secret.expires_at is not None and secret.expires_at <= now:
        why = f"secret {secret.name!r} expired at {secret.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    elif secret.uses >= secret.max_uses:
        why = f"secret {secret.name!r} was used {secret.uses} times"
    else:
        return
    raise RequestRefused(
        RefusalReason.SECRET_USED_UP, "the secret is not good any more", detail=why
    )


def take_use(db: Transaction, number: int, issuance: int) -> None:
    """Note that an attempt uses a secret, which has a use left."""
    db.execute("INSERT INTO secret_uses (issuance, secret) VALUES (?, ?)", (issuance, number))
    SECRET_USES.seal(db, issuance)
    SECRETS.seal(db, number)


def give_back_use(db: Transaction, issuance: int) -> None:
    """Forget what an abandoned attempt used.

    :raises RequestRefused: ``RECORD_TAMPERED``.
    """
    row = db.execute(f"{SECRET_USES.select} WHERE issuance = ?", (issuance,)).fetchone()
    if row is None:
        return
    _, number = SECRET_USES.opened(db, row)
    secret = _find_by_number(db, number)
    db.execute("DELETE FROM secret_uses WHERE issuance = ?", (issuance,))
    # The use of a secret that was removed is no longer counted.
    if secret is not None:
        SECRETS.seal(db, number)


def _find_by_number(db: Transaction, number: int) -> EnrollmentSecret | None:
    row = db.execute(f"{SECRETS.select} WHERE number = ?", (number,)).fetchone()
    return None if row is None else _secret(db, row)


def _secret(db: Transaction, row: Row) -> EnrollmentSecret:
    number, name, hashed, device, max_uses, expires_at, _, uses = SECRETS.opened(db, row)
    return EnrollmentSecret(
        name=name,
        hash=hashed,
        device=device,
        max_uses=max_uses,
        expires_at=None if expires_at is None else from_column(expires_at),
        number=number,
        uses=uses,
    )
