"""Whom an operator has shut out: devices, certificates, keys. In a transaction of the caller."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.device_records import Device, DeviceState
from est_server.journal import Event
from est_server.ledger_records import CertificateState, EnrollmentIntent
from est_server.stores.rules import journal, registry, sealed_issuances
from est_server.stores.rules.chained_rows import COMPROMISED_KEYS, LINK
from est_server.stores.rules.values import to_column
from est_server.stores.seals import tampered
from est_server.stores.transaction import Transaction

#: A key that is not there, and that nobody has removed it, in one statement.
_COMPROMISED = (
    "SELECT c.key, c.next, c.content, c.mac, k.spki_sha256, k.device, k.since "
    f"FROM ({LINK}) c LEFT JOIN compromised_keys k ON k.spki_sha256 = c.key"
)

#: A certificate, and whether the journal knows of a revocation; in one statement, since between two
#: of a reader's somebody may revoke it.
_STANDING = (
    f"SELECT {sealed_issuances.COLUMNS}, (SELECT 1 FROM journal j "
    "WHERE j.serial = issuances.serial AND j.event = 'revoked' AND j.device = issuances.device "
    "AND j.label = issuances.label LIMIT 1) FROM issuances WHERE sha256 = ?"
)


def require(
    db: Transaction,
    *,
    certificate: bytes | None,
    keys: Collection[bytes],
    known: Device | None = None,
) -> None:
    """See :meth:`est_server.interfaces.EnrollmentLedger.check_standing`.

    :param known: an active device, which is not looked up by its key once more.
    """
    for key in keys:
        _require_sound(db, key)
        if known is None or key != known.listed.spki_sha256:
            _require_active(registry.find_by_key(db, key))
    if certificate is None:
        return
    row = db.execute(_STANDING, (certificate,)).fetchone()
    if row is None:
        return
    issued, told = sealed_issuances.opened(db, row[:-1]), row[-1]
    if issued.state == CertificateState.REVOKED:
        raise RequestRefused(
            RefusalReason.CERTIFICATE_REVOKED,
            "the client certificate has been revoked",
            detail=f"serial {issued.serial}",
            device=issued.device,
        )
    if told is not None:
        raise tampered(
            f"the revocation of certificate {issued.serial} is gone", device=issued.device
        )
    _require_active(registry.find_or_unknown(db, issued.device))


def require_for(db: Transaction, intent: EnrollmentIntent) -> Device | None:
    """Require that nothing about an issuance is shut out: who asks, for which device and key.

    :return: the device as it is registered, if it is.
    """
    registered = device = registry.find_or_unknown(db, intent.device)
    _require_active(device)
    if device is None and intent.registration is not None:
        device = intent.registration.as_device(intent.requested_at)
    elif device is not None and (held := quarantine(device, intent)) is not None:
        raise held
    require(db, certificate=intent.client_certificate, keys=intent.client_keys, known=registered)
    if intent.spki_sha256 is not None and intent.spki_sha256 not in intent.client_keys:
        _require_sound(db, intent.spki_sha256)
    if device is None:
        usable = intent.owners is None
    else:
        usable = device.may_use(intent.label, intent.owners)
    if not usable:
        raise RequestRefused(
            RefusalReason.NOT_AUTHORIZED,
            "this service is not for this device",
            detail=f"label {intent.label!r}, owner {device.owner if device else None!r}",
            device=intent.device,
        )
    return registered


def quarantine(device: Device, intent: EnrollmentIntent) -> RequestRefused | None:
    """Why a device in quarantine is not served; ``None`` if it is, or in none."""
    if device.state is not DeviceState.QUARANTINED or intent.serve_quarantined:
        return None
    return RequestRefused(
        RefusalReason.DEVICE_QUARANTINED,
        "this device is in quarantine until an operator has looked at it",
        detail=f"device {device.udid}, label {intent.label!r}",
        device=device.udid,
    )


def mark_compromised(db: Transaction, key: bytes, device: str, now: datetime) -> None:
    """Have ``key`` get nothing any more, and nobody by it."""
    if _compromised(db, key) is not None:
        return
    values = (key, device, to_column(now))
    db.execute("INSERT INTO compromised_keys (spki_sha256, device, since) VALUES (?, ?, ?)", values)
    COMPROMISED_KEYS.put(db, key, values)
    journal.append(db, Event.COMPROMISED, now, device=device, key=key.hex())


def forget_compromised(db: Transaction, device: str) -> None:
    """Take the keys of ``device`` for sound again."""
    rows = db.execute(
        "SELECT spki_sha256 FROM compromised_keys WHERE device = ?", (device,)
    ).fetchall()
    for (key,) in rows:
        _compromised(db, key)
        db.execute("DELETE FROM compromised_keys WHERE spki_sha256 = ?", (key,))
        COMPROMISED_KEYS.remove(db, key)


def _require_sound(db: Transaction, key: bytes) -> None:
    device = _compromised(db, key)
    if device is not None:
        raise AlarmingRefusal(
            AlarmKind.COMPROMISED_KEY,
            RefusalReason.KEY_COMPROMISED,
            "this key has been reported as compromised",
            detail=f"key {key.hex()} of device {device}",
            device=device,
        )


def _compromised(db: Transaction, key: bytes) -> str | None:
    """The device whose compromised key this is."""
    if not db.seals.is_keyed:
        row = db.execute(
            "SELECT device FROM compromised_keys WHERE spki_sha256 = ?", (key,)
        ).fetchone()
        return None if row is None else str(row[0])
    row = db.execute(_COMPROMISED, (COMPROMISED_KEYS.name, key)).fetchone()
    link, reported = (None, (None,)) if row is None else (row[:4], tuple(row[4:]))
    found = reported if reported[0] == key else None
    COMPROMISED_KEYS.require_link(db.seals, link, key, found)
    return None if found is None else str(found[1])


def _require_active(device: Device | None) -> None:
    if device is not None and not device.state.may_enroll:
        raise RequestRefused(
            RefusalReason.DEVICE_NOT_ACTIVE,
            f"this device is {device.state.value}",
            detail=f"device {device.udid}",
            device=device.udid,
        )
