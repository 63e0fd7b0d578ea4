"""What a device list says, and what the registry knows of its devices: values only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from est_server.quotas import Quota

#: Characters of a UDID.
LONGEST_UDID = 128


def is_udid(text: str) -> bool:
    """Whether a device may have this identifier: 1 to 128 printable characters."""
    return 0 < len(text) <= LONGEST_UDID and text.isprintable()


#: The attribute that says who owns a device, until it is transferred.
OWNER_ATTRIBUTE = "owner"

#: The attribute that says which labels a device may use.
LABELS_ATTRIBUTE = "labels"

#: The attribute that a device has which was registered just in time: whose birth certificate it
#: came with. A list that gives it to a device has it taken for one of those.
PROVISIONED_ATTRIBUTE = "just_in_time"

#: The attribute that a device has which a secret, a user or an operator let in: the authorizer that
#: did. A list that gives it to a device has it taken for one of those.
UNLISTED_ATTRIBUTE = "unlisted"


class DeviceState(StrEnum):
    """The life cycle of a device. Only ``LISTED`` and ``ENROLLED`` get certificates.

    ``QUARANTINED``: registered by its birth certificate, and not looked at by anybody yet. Under
    labels that serve such devices it gets certificates too; the ledger sees to that.
    """

    LISTED = "listed"
    ENROLLED = "enrolled"
    QUARANTINED = "quarantined"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    DECOMMISSIONED = "decommissioned"

    @property
    def may_enroll(self) -> bool:
        """Whether a device in this state may be given a certificate, under some label."""
        return self in (DeviceState.LISTED, DeviceState.ENROLLED, DeviceState.QUARANTINED)


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

    @property
    def is_unlisted(self) -> bool:
        """Whether neither a list nor a birth certificate speaks for it, but somebody let it in."""
        return UNLISTED_ATTRIBUTE in self.attributes


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the registry knows it: its row in the list, and where it is in its life.

    :param list_number: of the list that it came with; ``None`` if it came with none.
    :param owner: who owns it now; at first, who its attribute ``owner`` says.
    :param history: the number of the latest entry in its history, 0 if there is none.
    :param claims: how many first enrollments it has made, or is making: one for each label.
    """

    listed: ListedDevice
    state: DeviceState
    changed_at: datetime
    list_number: int | None = None
    owner: str | None = None
    history: int = 0
    claims: int = 0

    @property
    def udid(self) -> str:
        """The device's unique identifier."""
        return self.listed.udid

    @property
    def is_provisioned(self) -> bool:
        """Whether it was registered with its first enrollment, and so is on no list."""
        return PROVISIONED_ATTRIBUTE in self.listed.attributes or self.listed.is_unlisted

    def may_use(self, label: str | None, owners: frozenset[str] | None) -> bool:
        """Whether it may have certificates under ``label``.

        Its attribute ``labels`` names the labels that it may use, separated by spaces or commas,
        ``default`` among them for the one without a name; without the attribute, all.

        :param owners: whose devices the label is for; ``None`` for everybody's.
        """
        if owners is not None and self.owner not in owners:
            return False
        named = self.listed.attributes.get(LABELS_ATTRIBUTE)
        return named is None or (label or "default") in named.replace(",", " ").split()


@dataclass(frozen=True, slots=True)
class Registration:
    """A device that is to be registered with its first enrollment.

    :param state: the one that it begins in: ``LISTED`` or ``QUARANTINED``.
    :param quotas: what its registration counts against, for good.
    """

    device: ListedDevice
    state: DeviceState
    quotas: tuple[Quota, ...] = ()

    @property
    def reason(self) -> str:
        """Why it is registered, for its history."""
        by = self.device.attributes.get(UNLISTED_ATTRIBUTE, "its birth certificate")
        return f"registered by {by}"

    def as_device(self, now: datetime) -> Device:
        """The device that it makes."""
        owner = self.device.attributes.get(OWNER_ATTRIBUTE)
        return Device(self.device, self.state, now, owner=owner)


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


def attributes_text(attributes: Mapping[str, str]) -> str:
    """Attributes as they are stored: JSON, the same text for the same attributes."""
    return json.dumps(dict(attributes), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class ListRow(NamedTuple):
    """One row of a device list and where it stands in it.

    Lists have millions of them, so it is a tuple, with the attributes in the form in which they
    are stored.

    :param line: number of the line on which the row starts, from 1; no two rows share one.
    :param udid: unique device identifier, 1 to 128 printable characters.
    :param spki_sha256: SHA-256 (32 octets) of the device key's DER SubjectPublicKeyInfo.
    :param attributes: the attributes as :func:`attributes_text` writes them.
    """

    line: int
    udid: str
    spki_sha256: bytes
    attributes: str

    @classmethod
    def of(cls, line: int, device: ListedDevice) -> ListRow:
        """The row that lists ``device``."""
        return cls(line, device.udid, device.spki_sha256, attributes_text(device.attributes))

    @property
    def device(self) -> ListedDevice:
        """The device that the row lists."""
        return ListedDevice(self.udid, self.spki_sha256, json.loads(self.attributes))


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


@dataclass(frozen=True, slots=True)
class ListDescription:
    """A device list as a whole, once all of it has been read and is believed.

    :param list_id: what it is called; no two lists have the same.
    :param sha256: SHA-256 (32 octets) of the list's octets.
    :param signer: the list signer who vouches for it; ``None``: it was accepted unsigned.
    :param signed_at: when it was signed, as the signature says, if it does.
    """

    list_id: str
    sha256: bytes
    signer: str | None
    signed_at: datetime | None


@dataclass(frozen=True, slots=True)
class ImportedList:
    """A list that was imported.

    :param number: by which devices refer to it.
    :param imported_at: when it was imported first.
    :param devices: how many devices came with it.
    """

    number: int
    description: ListDescription
    imported_at: datetime
    devices: int
