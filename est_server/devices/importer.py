"""Import of a device list into the registry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from est_server.device_records import AddOutcome, ListRow
from est_server.devices.csv_list import RejectedRow
from est_server.interfaces import DeviceRegistry

_REASONS = {
    AddOutcome.CONFLICT_UDID: "the UDID is listed already with another key",
    AddOutcome.CONFLICT_KEY: "the key is listed already with another UDID",
    AddOutcome.CONFLICT_ATTRIBUTES: "the device is listed already with other attributes",
    AddOutcome.DUPLICATE: "an earlier row of this list has the same UDID or key",
}


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a list.

    :param added: how many rows were added.
    :param unchanged: how many were there already.
    :param rejected: how many were not taken over.
    :param rejections: the first of those, by line.
    """

    added: int
    unchanged: int
    rejected: int
    rejections: tuple[RejectedRow, ...]


async def import_list(
    registry: DeviceRegistry,
    rows: Iterable[ListRow | RejectedRow],
    now: datetime,
    *,
    reported: int = 1000,
) -> ImportReport:
    """Import a list as :func:`~est_server.devices.csv_list.read_csv` reads it.

    All good rows are added in one transaction; if reading fails on the way, none is. Rows are
    read one at a time, in a thread of the registry's.

    :param reported: rejected rows that are reported one by one; the others are counted.
    :raises ConfigurationError: the list cannot be read to its end.
    :raises RequestRefused: ``STORE_UNAVAILABLE``.
    """
    unreadable = 0
    rejections: list[RejectedRow] = []

    def readable() -> Iterator[ListRow]:
        nonlocal unreadable
        for row in rows:
            if isinstance(row, ListRow):
                yield row
                continue
            unreadable += 1
            if len(rejections) < reported:
                rejections.append(row)

    result = await registry.import_devices(readable(), now=now)
    rejections.extend(
        RejectedRow(conflict.line, _REASONS[conflict.outcome]) for conflict in result.conflicts
    )
    rejections.sort(key=lambda row: row.line)
    return ImportReport(
        added=result.added,
        unchanged=result.unchanged,
        rejected=unreadable + result.conflicting,
        rejections=tuple(rejections[:reported]),
    )
