"""Import of a device list into the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO

from est_server.device_records import AddOutcome, ListDescription, ListRow
from est_server.devices.list_format import (
    HEAD_OCTETS,
    ListFormat,
    ListLimits,
    RejectedRow,
    load_format,
    recognize_format,
)
from est_server.devices.list_source import ListSource, Observer
from est_server.devices.refusals import ListRefused, NotSigned, SignatureRejected
from est_server.devices.signatures.detached import DetachedSignature
from est_server.devices.signatures.entries import SignedEntries
from est_server.devices.signatures.signed import Signed
from est_server.devices.signatures.signers import ListSigner
from est_server.interfaces import DeviceRegistry

#: Digits of the digest in the name that a list is given.
_ID_DIGITS = 16

_REASONS = {
    AddOutcome.CONFLICT_UDID: "the UDID is listed already with another key",
    AddOutcome.CONFLICT_KEY: "the key is listed already with another UDID",
    AddOutcome.CONFLICT_ATTRIBUTES: "the device is listed already with other attributes",
    AddOutcome.DUPLICATE: "an earlier row of this list has the same UDID or key",
}

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ImportRules:
    """What is believed, and what is imported of it.

    :param signers: who may sign lists.
    :param allow_unsigned: accept a list that carries no signature.
    :param verify_entries: verify all the same what is signed entry by entry.
    :param leave_out_bad_rows: import what is good of a list that has rows which are no good.
    :param limits: what a list may be like.
    """

    signers: tuple[ListSigner, ...] = ()
    allow_unsigned: bool = False
    verify_entries: bool = False
    leave_out_bad_rows: bool = False
    limits: ListLimits = field(default_factory=ListLimits)


@dataclass(frozen=True, slots=True)
class ListFile:
    """A list to import.

    :param file: its octets; read once, so a pipe will do.
    :param format_name: the name of its format; ``None``: recognized by how it begins.
    :param signature: a signature over all of it.
    :param list_id: what to call it; ``None``: by its signer and its digest.
    """

    file: BinaryIO
    format_name: str | None = None
    signature: DetachedSignature | None = None
    list_id: str | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a list.

    :param description: the list.
    :param added: how many rows were added.
    :param unchanged: how many were there already.
    :param rejected: how many were not taken over.
    :param rejections: the first of those, by line.
    """

    description: ListDescription
    added: int
    unchanged: int
    rejected: int
    rejections: tuple[RejectedRow, ...]


async def import_list(
    registry: DeviceRegistry,
    given: ListFile,
    rules: ImportRules,
    now: datetime,
    *,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a list: all of its good rows, or nothing, in one transaction.

    The list is read once, in a thread of the registry's: the octets that are parsed are those
    that are hashed, and nothing is committed before the signature over them has been verified.

    :param progress: called now and then with the octets and rows read so far.
    :raises ListRefused: the list is not believed, or has rows that are no good.
    :raises ConfigurationError: it cannot be read to its end.
    :raises RequestRefused: ``STORE_UNAVAILABLE``.
    """
    reading = ListReading(given, rules, now, progress=progress)
    try:
        result = await registry.import_devices(reading.rows(), reading.describe, now=now)
    except asyncio.CancelledError:
        # The thread that reads the list is not cancelled with this coroutine.
        reading.stop()
        raise
    rejections = [
        *reading.rejections,
        *(RejectedRow(conflict.line, _REASONS[conflict.outcome]) for conflict in result.conflicts),
    ]
    rejections.sort(key=lambda row: row.line)
    return ImportReport(
        description=reading.describe(),
        added=result.added,
        unchanged=result.unchanged,
        rejected=reading.rejected + result.conflicting,
        rejections=tuple(rejections[: rules.limits.reported]),
    )


def check_list(file: BinaryIO, format_name: str | None, now: datetime, observe: Observer) -> int:
    """Read a list that nobody has signed yet; how many rows it has.

    :param observe: called with each piece of the list, in order.
    :raises ListRefused: it has rows that are no good.
    :raises ConfigurationError: it cannot be read to its end.
    """
    reading = ListReading(
        ListFile(file, format_name), ImportRules(allow_unsigned=True), now, observe=observe
    )
    return sum(1 for _ in reading.rows())


class ListReading:
    """One pass over a list: its rows first, then what it is as a whole.

    :param now: when certificates of signers have to be valid.
    :param observe: called with each piece of the list, in order.
    """

    def __init__(
        self,
        given: ListFile,
        rules: ImportRules,
        now: datetime,
        *,
        observe: Observer | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._given = given
        self._rules = rules
        self._now = now
        self._progress = progress
        self._count = 0
        self._stopped = False
        signature = None if given.signature is None else given.signature.update
        observers = (signature, observe, self._show)
        self._source = ListSource(given.file, *(o for o in observers if o is not None))
        self._entries = SignedEntries(rules.signers, now)
        self._description: ListDescription | None = None
        self.rejected = 0
        self.rejections: list[RejectedRow] = []

    def rows(self) -> Iterator[ListRow]:
        """The good rows; ends only if the list as a whole is believed.

        :raises ListRefused: it is not, or has rows that are no good.
        :raises ConfigurationError: it cannot be read to its end.
        """
        file = self._source.buffered()
        form = self._format(file)
        entries = self._entries if form.signs_entries and self._heeds_entries() else None
        self._require_signature(by_entry=entries is not None)
        yield from self._good(form.read(file, self._rules.limits, entries))
        if file.read(1):
            raise ListRefused("there are octets after the end of the list")
        self._description = self._describe(self._judge(entries))

    def stop(self) -> None:
        """End the pass before its end, from another thread: its next read fails."""
        self._stopped = True

    def describe(self) -> ListDescription:
        """The list as a whole, after its last row."""
        assert self._description is not None, "asked for before the last row was read"
        return self._description

    def _format(self, file: BinaryIO) -> ListFormat:
        if self._given.format_name is not None:
            return load_format(self._given.format_name)
        # A buffered reader shows what it has read ahead; for a pipe that may be little, yet any
        # writer of a list sends its beginning in one piece.
        return recognize_format(file.peek(HEAD_OCTETS)[:HEAD_OCTETS])  # type: ignore[attr-defined]

    def _heeds_entries(self) -> bool:
        if self._given.signature is not None:
            return False
        return self._rules.verify_entries or not self._rules.allow_unsigned

    def _require_signature(self, *, by_entry: bool) -> None:
        """Refuse what could not be believed in the end before it is read."""
        if self._given.signature is None and not by_entry:
            if self._rules.allow_unsigned:
                return
            raise NotSigned("the list is not signed")
        if not self._rules.signers:
            raise SignatureRejected("no [[list_signers]] are configured, so no list is believed")

    def _good(self, rows: Iterable[ListRow | RejectedRow]) -> Iterator[ListRow]:
        for row in rows:
            self._count += 1
            if type(row) is not RejectedRow:
                yield row  # type: ignore[misc]
            else:
                self.rejected += 1
                if len(self.rejections) < self._rules.limits.reported:
                    self.rejections.append(row)

    def _require_good_rows(self) -> None:
        if not self.rejected or self._rules.leave_out_bad_rows:
            return
        raise ListRefused(
            f"{self.rejected} of {self._count} rows are no good; nothing is imported",
            tuple(self.rejections),
        )

    def _judge(self, entries: SignedEntries | None) -> Signed | None:
        signed = None
        if self._given.signature is not None:
            # First, since damage that spoils a row spoils the signature too, and says more.
            signed = self._given.signature.verify(self._rules.signers, self._now)
        self._require_good_rows()
        return signed if entries is None else entries.signed()

    def _describe(self, signed: Signed | None) -> ListDescription:
        sha256 = self._source.sha256
        signer = None if signed is None else signed.signer
        return ListDescription(
            list_id=self._given.list_id or f"{signer or 'unsigned'}-{sha256.hex()[:_ID_DIGITS]}",
            sha256=sha256,
            signer=signer,
            signed_at=None if signed is None else signed.signed_at,
        )

    def _show(self, _: bytes) -> None:
        if self._stopped:
            raise ListRefused("the import was stopped; nothing is imported")
        if self._progress is not None:
            self._progress(self._source.octets, self._count)
