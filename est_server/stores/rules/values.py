"""How values of the interfaces are written into columns, and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from est_server.device_records import OWNER_ATTRIBUTE, Device, DeviceState, ListedDevice

Row = tuple[Any, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_column(moment: datetime) -> int:
    """Microseconds since 1970; exact, unlike :meth:`datetime.timestamp`."""
    return (moment - _EPOCH) // _MICROSECOND


def from_column(microseconds: int) -> datetime:
    """The inverse of :func:`to_column`."""
    return _EPOCH + timedelta(microseconds=microseconds)


def is_storable(text: str) -> bool:
    """Whether there may be a row with this text, which may come from anybody.

    Databases take UTF-8 only, PostgreSQL takes it without NUL, and both call it an error to ask
    for anything else.
    """
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def label_column(label: str | None) -> str:
    """The column for a label; labels are path segments, which are never empty."""
    return label or ""


def attributes_column(attributes: Mapping[str, str]) -> str:
    """The column for attributes: equal text for equal attributes."""
    return json.dumps(dict(attributes), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


#: What a device begins with.
NEW_DEVICE_COLUMNS = "udid, spki_sha256, attributes, state, changed_at, list, mac"

#: What :func:`device` expects.
DEVICE_COLUMNS = "udid, spki_sha256, attributes, state, changed_at, list, owner, history, claims"


def device(row: Row) -> Device:
    """A device from its columns."""
    udid, spki, attributes, state, changed_at, list_number, owner, history, claims = row
    listed = ListedDevice(udid, spki, json.loads(attributes))
    return Device(
        listed=listed,
        state=DeviceState(state),
        changed_at=from_column(changed_at),
        list_number=list_number,
        owner=owner or listed.attributes.get(OWNER_ATTRIBUTE),
        history=history,
        claims=claims,
    )
