"""Stores as earlier versions of this program left them, sealed as those sealed them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from est_server.journal import Chain, Event
from est_server.stores.engine import Session
from est_server.stores.postgresql import PostgresqlOptions
from est_server.stores.postgresql import database as postgresql
from est_server.stores.rules import journal, tallies
from est_server.stores.rules.certificates import Made
from est_server.stores.rules.chained_rows import CHAINS
from est_server.stores.rules.sealed_rows import SECRETS
from est_server.stores.rules.tallies import Tally
from est_server.stores.rules.values import to_column
from est_server.stores.schema import MIGRATIONS
from est_server.stores.seals import Seals, device_rest
from est_server.stores.sqlite import SqliteOptions
from est_server.stores.sqlite import database as sqlite
from tests.pki import PRESENT
from tests.server.ledger_values import INTEGRITY_KEY, certificate, digest, first_enrollment
from tests.server.raw_database import RawDatabase

#: The certificate of the device that is in each of them.
MADE = Made.of(certificate())

_WHEN = to_column(PRESENT)


def make_old_store(raw: RawDatabase, version: int, *, is_sealed: bool = True) -> None:
    """A store of a schema version from 7 on: a device with its first certificate, and a secret."""
    seals = Seals(INTEGRITY_KEY if is_sealed else None)
    with _old_database(raw, version, seals) as db:
        db.begin()
        _add_device(db)
        _add_certificate(db)
        _add_secret(db, version)
        if version >= 9:
            _add_journal(db)
        if is_sealed:
            _note_sealing(db, version)
        db.commit()


@contextmanager
def _old_database(raw: RawDatabase, version: int, seals: Seals) -> Iterator[Session]:
    migrations = MIGRATIONS[:version]
    if isinstance(raw.location, Path):
        sqlite.prepare(raw.location, SqliteOptions(), migrations)
        with closing(sqlite.connect(raw.location, SqliteOptions(), seals=seals)) as file:
            yield file
    else:
        postgresql.prepare(raw.location, PostgresqlOptions(), migrations)
        with postgresql.one_session(raw.location, PostgresqlOptions(), seals) as database:
            yield database


def _add_device(db: Session) -> None:
    key = digest("key 1")
    rest = device_rest(None, "enrolled", None, _WHEN, 1)
    db.execute(
        "INSERT INTO devices (udid, spki_sha256, attributes, state, changed_at, history, mac) "
        "VALUES ('device-1', ?, '{}', 'enrolled', ?, 1, ?)",
        (key, _WHEN, db.seals.device("device-1", key, "{}", rest)),
    )
    db.insert(
        "INSERT INTO device_history (udid, from_state, to_state, actor, reason, changed_at) "
        "VALUES ('device-1', 'listed', 'enrolled', 'enrollment', 'a certificate was issued', ?)",
        (_WHEN,),
        numbered="id",
    )
    if db.seals.is_keyed:
        tallies.put(db, tallies.NO_LIST, Tally(1, db.seals.member("device-1", key)))


def _add_certificate(db: Session) -> None:
    der, sha256, serial, not_after, spki = MADE.columns
    db.insert(
        "INSERT INTO issuances (request_key, operation, device, label, spki_sha256, transport, "
        "peer, reasons, requested_at, owner, lease_until, status, finished_at, certificate, "
        "sha256, serial, not_after, state) VALUES (?, 'simpleenroll', 'device-1', '', ?, 'https', "
        "'', '[]', ?, 'o', ?, 'issued', ?, ?, ?, ?, ?, 'active')",
        (
            first_enrollment().request_key,
            spki,
            _WHEN,
            _WHEN,
            _WHEN,
            der,
            sha256,
            serial,
            not_after,
        ),
        numbered="number",
    )
    db.execute("INSERT INTO claims (device, label, issuance) VALUES ('device-1', '', 1)")


def _add_secret(db: Session, version: int) -> None:
    values = ("batch", "scrypt$2$AA==$AA==", None, 5, None, 0)
    number = db.insert(
        "INSERT INTO secrets (name, hash, device, max_uses, expires_at, added_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        values,
        numbered="number",
    )
    if version >= 10:
        mac = SECRETS.code(db.seals, number, *values, 0)
        db.execute("UPDATE secrets SET mac = ?", (mac,))


def _add_journal(db: Session) -> None:
    journal.append_after(db, Chain(), Event.SEALED, PRESENT, key=INTEGRITY_KEY.fingerprint.hex())
    attempt = first_enrollment()
    journal.append(
        db,
        Event.CLAIMED,
        PRESENT,
        device="device-1",
        label="",
        reference=1,
        operation=attempt.operation.value,
        key=MADE.spki_sha256.hex(),
        predecessor=None,
    )
    journal.append(
        db,
        Event.ISSUED,
        PRESENT,
        device="device-1",
        label="",
        serial=MADE.serial,
        reference=1,
        sha256=MADE.sha256.hex(),
    )
    journal.append(
        db,
        Event.DEVICE_CHANGED,
        PRESENT,
        device="device-1",
        reference=1,
        step="",
        before="listed",
        after="enrolled",
        owner=None,
        actor="enrollment",
        reason="a certificate was issued",
    )


def _note_sealing(db: Session, version: int) -> None:
    if version >= 11:
        for chain in CHAINS:
            chain.begin_anew(db)
    db.execute(
        "INSERT INTO sealing (id, key_fingerprint, sealed_at) VALUES (1, ?, ?)",
        (INTEGRITY_KEY.fingerprint, time.time_ns() // 1000),
    )
