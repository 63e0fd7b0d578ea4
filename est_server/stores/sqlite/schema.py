"""The tables, and how older ones become newer ones.

Times are microseconds since 1970 in UTC. A missing label is stored as the empty string, since SQL
holds no two NULLs equal and uniqueness would be lost. What must never be is written down as an
index: two open attempts for one request, two active certificates for one device and label.
"""

from __future__ import annotations

from typing import NamedTuple

#: "ESTS": marks the file as this program's (SQLite file format section 1.3.12).
APPLICATION_ID = 0x45535453


class Migration(NamedTuple):
    """One step from a schema version to the next. Never changed once released."""

    name: str
    statements: tuple[str, ...]


_DEVICES = """
CREATE TABLE devices (
    udid        TEXT PRIMARY KEY CHECK (length(udid) BETWEEN 1 AND 128),
    spki_sha256 BLOB NOT NULL UNIQUE CHECK (length(spki_sha256) = 32),
    attributes  TEXT NOT NULL,
    state       TEXT NOT NULL,
    changed_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""

_DEVICE_HISTORY = """
CREATE TABLE device_history (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    udid       TEXT NOT NULL REFERENCES devices (udid),
    from_state TEXT NOT NULL,
    to_state   TEXT NOT NULL,
    actor      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT
"""

_ISSUANCES = """
CREATE TABLE issuances (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    request_key  BLOB NOT NULL CHECK (length(request_key) = 32),
    operation    TEXT NOT NULL,
    device       TEXT NOT NULL,
    label        TEXT NOT NULL,
    spki_sha256  BLOB NOT NULL CHECK (length(spki_sha256) = 32),
    predecessor  BLOB,
    transport    TEXT NOT NULL,
    peer         TEXT NOT NULL,
    reasons      TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    owner        TEXT NOT NULL,
    lease_until  INTEGER NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('in-progress', 'issued', 'abandoned')),
    finished_at  INTEGER,
    outcome      TEXT,
    certificate  BLOB,
    sha256       BLOB UNIQUE,
    serial       TEXT,
    not_after    INTEGER,
    state        TEXT CHECK (state IN ('active', 'superseded', 'revoked')),
    CHECK ((status = 'in-progress') = (finished_at IS NULL)),
    CHECK ((status = 'issued') = (certificate IS NOT NULL)),
    CHECK ((certificate IS NULL) = (sha256 IS NULL)),
    CHECK ((certificate IS NULL) = (serial IS NULL)),
    CHECK ((certificate IS NULL) = (not_after IS NULL)),
    CHECK ((certificate IS NULL) = (state IS NULL))
) STRICT
"""

_CLAIMS = """
CREATE TABLE claims (
    device   TEXT NOT NULL,
    label    TEXT NOT NULL,
    issuance INTEGER NOT NULL UNIQUE REFERENCES issuances (number),
    PRIMARY KEY (device, label)
) STRICT, WITHOUT ROWID
"""

_LEDGER_HISTORY = """
CREATE TABLE ledger_history (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    action  TEXT NOT NULL,
    device  TEXT NOT NULL,
    label   TEXT NOT NULL,
    sha256  BLOB,
    actor   TEXT NOT NULL,
    reason  TEXT NOT NULL,
    done_at INTEGER NOT NULL
) STRICT
"""

_REFUSALS = """
CREATE TABLE refusals (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    operation  TEXT,
    label      TEXT,
    transport  TEXT NOT NULL,
    peer       TEXT NOT NULL,
    reason     TEXT NOT NULL,
    sentence   TEXT NOT NULL,
    detail     TEXT NOT NULL,
    device     TEXT,
    refused_at INTEGER NOT NULL
) STRICT
"""

_MIGRATIONS_TABLE = """
CREATE TABLE migrations (
    version    INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT
"""

_SECRETS = """
CREATE TABLE secrets (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    hash       TEXT NOT NULL,
    device     TEXT,
    max_uses   INTEGER NOT NULL CHECK (max_uses > 0),
    expires_at INTEGER,
    added_at   INTEGER NOT NULL
) STRICT
"""

#: A use stays when its secret is removed, and is given back when its attempt is abandoned.
_SECRET_USES = """
CREATE TABLE secret_uses (
    issuance INTEGER PRIMARY KEY REFERENCES issuances (number),
    secret   INTEGER NOT NULL
) STRICT
"""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "devices, issuances and claims",
        (
            _MIGRATIONS_TABLE,
            _DEVICES,
            _DEVICE_HISTORY,
            _ISSUANCES,
            """CREATE UNIQUE INDEX one_attempt_per_request ON issuances (request_key)
               WHERE status = 'in-progress'""",
            """CREATE UNIQUE INDEX one_attempt_per_device ON issuances (device, label)
               WHERE status = 'in-progress'""",
            """CREATE UNIQUE INDEX one_active_per_device ON issuances (device, label)
               WHERE state = 'active'""",
            "CREATE INDEX active_by_request ON issuances (request_key) WHERE state = 'active'",
            "CREATE INDEX abandoned ON issuances (number) WHERE status = 'abandoned'",
            _CLAIMS,
            _LEDGER_HISTORY,
            _REFUSALS,
        ),
    ),
    Migration(
        "retries of requests for generated keys",
        (
            """CREATE INDEX generated_by_request ON issuances (request_key)
               WHERE operation = 'serverkeygen' AND status = 'issued'""",
        ),
    ),
    Migration(
        "one-time secrets",
        (_SECRETS, _SECRET_USES, "CREATE INDEX uses_of_secret ON secret_uses (secret)"),
    ),
)
