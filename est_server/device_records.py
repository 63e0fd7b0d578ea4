"""What a device list says, and what the registry knows of its devices: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class DeviceState(StrEnum):
    """The life cycle of a listed device. Only ``LISTED`` and ``ENROLLED`` get certificates."""

    LISTED = "listed"
    ENROLLED = "enrolled"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    DECOMMISSIONED = "decommissioned"

    @property
    def may_enroll(self) -> bool:
        """Whether a device in this state may be given a certificate."""
        return self in (DeviceState.LISTED, DeviceState.ENROLLED)


@dataclass(frozen=True, slots=True)
class ListedDevice:
    """One row of a device list.

    :param udid: unique device identifier, 1 to 128 printable characters.
    :param spki_sha256: SHA-256 (32 octets) of the device key's DER SubjectPublicKeyInfo.
    :param attributes: what else the list says of the device, such as ``model`` or ``owner``.
    """

    udid: str
    spki_sha256: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the registry knows it: its row in the list, and where it is in its life."""

    listed: ListedDevice
    state: DeviceState
    changed_at: datetime

    @property
    def udid(self) -> str:
        """The device's unique identifier."""
        return self.listed.udid


class AddOutcome(StrEnum):
    """What became of one row of a list that was imported.

    ``CONFLICT_UDID``: the UDID is listed with another key; ``CONFLICT_KEY``: the key is listed
    with another UDID; ``CONFLICT_ATTRIBUTES``: the device is listed with other attributes;
    ``DUPLICATE``: an earlier row of the same list has the same UDID or key.
    """

    ADDED = "added"
    UNCHANGED = "unchanged"
    CONFLICT_UDID = "conflict-udid"
    CONFLICT_KEY = "conflict-key"
    CONFLICT_ATTRIBUTES = "conflict-attributes"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class ListRow:
    """One row of a device list and where it stands in it.

    :param line: number of the line on which the row starts, from 1; no two rows share one.
    """

    line: int
    device: ListedDevice


@dataclass(frozen=True, slots=True)
class RowConflict:
    """A row that was not taken over; ``outcome`` is one of the conflicts or ``DUPLICATE``."""

    line: int
    outcome: AddOutcome


@dataclass(frozen=True, slots=True)
class ListImport:
    """What became of a whole list.

    :param added: how many rows were added.
    :param unchanged: how many were there already.
    :param conflicting: how many were not taken over.
    :param conflicts: the first of those, by line; their number is bounded.
    """

    added: int
    unchanged: int
    conflicting: int
    conflicts: tuple[RowConflict, ...]
