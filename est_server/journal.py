"""The journal: what happened, in an order that nobody can change afterwards; values only.

Each entry has a hash over itself and the hash of the one before it, so an entry that is changed,
moved or taken out shows in all that follow. In a store with an integrity key each entry has a
code (keyed BLAKE2b-256) over its hash besides, so whoever lacks the key cannot make the chain
anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from est_protocol.errors import EstError

#: What an entry says beside its columns.
Details = Mapping[str, str | int | None]

#: The hash before the first entry.
BEGINNING = bytes(32)

#: The first line of an exported journal names it.
FORMAT = "est-server journal 1"

_encode_details = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Event(StrEnum):
    """What happened.

    ``CLAIMED``: an attempt to issue began, and took the claim of a first enrollment. ``BEGUN``:
    one that takes no claim, such as a renewal. ``ISSUED`` and ``ABANDONED``: how it ended.
    ``RELEASED``: the claim was given back, so one more first enrollment is possible.
    ``REVOKED``: a certificate was. ``REFUSED``: a request was; under a flood of them not every
    one is here. ``DEVICE_CHANGED``: a step in a device's life. ``LISTED``: a device was added
    without a list. ``LIST_IMPORTED``: a whole list was. ``SECRET_ADDED``, ``SECRET_REMOVED``: a
    one-time secret was. ``PRUNED``: older entries were removed. ``SEALED``: all rows were sealed
    with a key. ``APPROVED``, ``DENIED``: an operator decided about a request. ``COMPROMISED``: a
    key was reported as such, until its device is reset. ``FORGOTTEN``: records of certificates
    that ended long ago were removed.
    """

    CLAIMED = "claimed"
    BEGUN = "begun"
    ISSUED = "issued"
    ABANDONED = "abandoned"
    RELEASED = "released"
    REVOKED = "revoked"
    REFUSED = "refused"
    DEVICE_CHANGED = "device-changed"
    LISTED = "listed"
    LIST_IMPORTED = "list-imported"
    SECRET_ADDED = "secret-added"
    SECRET_REMOVED = "secret-removed"
    PRUNED = "pruned"
    SEALED = "sealed"
    APPROVED = "approved"
    DENIED = "denied"
    COMPROMISED = "compromised"
    FORGOTTEN = "forgotten"


class JournalBroken(EstError):
    """A journal is not what was written; the message says where."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    :param number: consecutive, from 1.
    :param when: microseconds since 1970 in UTC.
    :param event: an :class:`Event`.
    :param device: the UDID of the device that it is about.
    :param label: the label, the empty text for the one without a name.
    :param serial: a certificate's serial number in hexadecimal digits.
    :param reference: the number of what it tells of: an issuance, a list, an entry in the history
        of a device.
    :param details: what else there is to say.
    :param hash: 32 octets.
    :param mac: 32 octets; ``None`` in a store without an integrity key.
    """

    number: int
    when: int
    event: str
    device: str | None
    label: str | None
    serial: str | None
    reference: int | None
    details: str
    hash: bytes
    mac: bytes | None

    @property
    def moment(self) -> datetime:
        """When it happened."""
        return _EPOCH + timedelta(microseconds=self.when)

    @property
    def known(self) -> dict[str, str | int | None]:
        """The details as values."""
        values: dict[str, str | int | None] = json.loads(self.details)
        return values

    def line(self) -> str:
        """The entry as a line of an exported journal."""
        return json.dumps(
            {
                "number": self.number,
                "when": f"{self.moment:%Y-%m-%dT%H:%M:%S.%fZ}",
                "event": self.event,
                "device": self.device,
                "label": self.label,
                "serial": self.serial,
                "reference": self.reference,
                "details": self.known,
                "hash": self.hash.hex(),
                "mac": None if self.mac is None else self.mac.hex(),
            },
            ensure_ascii=False,
        )


def details_text(details: Details) -> str:
    """Details as they are stored and hashed: the same text for the same details."""
    return _encode_details(details)


def entry_hash(
    before: bytes,
    number: int,
    when: int,
    event: str,
    device: str | None,
    label: str | None,
    serial: str | None,
    reference: int | None,
    details: str,
) -> bytes:
    """The hash of an entry.

    :param before: the hash of the entry before it.
    """
    # JSON says in one way only where each value ends.
    values = json.dumps((number, when, event, device, label, serial, reference, details))
    return hashlib.blake2b(
        before + values.encode(), person=b"est journal", digest_size=len(BEGINNING)
    ).digest()


@dataclass(slots=True)
class Chain:
    """Follows a journal from entry to entry.

    :param number: of the entry before the first one.
    :param hash: its hash.
    """

    number: int = 0
    hash: bytes = field(default=BEGINNING)

    def follow(self, entry: Entry) -> None:
        """Go on to the next entry.

        :raises JournalBroken: it is not the next one, or not what was written.
        """
        if entry.number != self.number + 1:
            raise JournalBroken(f"entry {self.number + 1} is missing")
        expected = entry_hash(
            self.hash,
            entry.number,
            entry.when,
            entry.event,
            entry.device,
            entry.label,
            entry.serial,
            entry.reference,
            entry.details,
        )
        if expected != entry.hash:
            raise JournalBroken(f"entry {entry.number} is not what was written")
        self.number, self.hash = entry.number, entry.hash


def head_line(chain: Chain) -> str:
    """The first line of an exported journal: after which entry it begins."""
    return json.dumps({"journal": FORMAT, "after": chain.number, "hash": chain.hash.hex()})


def read_head(line: str) -> Chain:
    """The inverse of :func:`head_line`.

    :raises JournalBroken: it is no such line.
    """
    try:
        head = json.loads(line)
        if head["journal"] != FORMAT:
            raise JournalBroken(f"line 1: a journal of another kind: {head['journal']!r}")
        return Chain(_whole(head["after"]), bytes.fromhex(head["hash"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise JournalBroken("line 1: no exported journal") from error


def read_line(line: str, number: int) -> Entry:
    """The inverse of :meth:`Entry.line`.

    :param number: of the line, for messages.
    :raises JournalBroken: it is no such line.
    """
    try:
        found = json.loads(line)
        when = datetime.strptime(found["when"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        mac = found["mac"]
        return Entry(
            number=_whole(found["number"]),
            when=(when - _EPOCH) // _MICROSECOND,
            event=found["event"],
            device=found["device"],
            label=found["label"],
            serial=found["serial"],
            reference=found["reference"],
            details=details_text(found["details"]),
            hash=bytes.fromhex(found["hash"]),
            mac=None if mac is None else bytes.fromhex(mac),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise JournalBroken(f"line {number}: no entry of a journal") from error


def read_export(lines: Iterator[str]) -> Iterator[Entry]:
    """The entries of an exported journal, each of which follows the one before.

    :raises JournalBroken: a line is no entry, or the chain is broken.
    """
    chain = read_head(next(lines, ""))
    for number, line in enumerate(lines, start=2):
        entry = read_line(line, number)
        chain.follow(entry)
        yield entry


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(value)
    return value
