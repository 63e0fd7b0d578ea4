"""Device lists as CSV files.

The first line names the columns: ``public_key`` (PEM, or base64 of the DER SubjectPublicKeyInfo)
or ``spki_sha256`` (hex, colons allowed) or both, if they agree; ``udid``, which may be missing or
empty and is then the SHA-256 of the key in hex; every other column is an attribute of the device.
UTF-8 with or without a byte order mark; a PEM key stands in a quoted cell over several lines, or
has ``\\n`` for its line ends.

A row that is no good is rejected with its line number, and reading goes on. Whether two rows
are about the same device is for the registry to find, which need not hold a list in memory.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from est_protocol.errors import ConfigurationError
from est_server.device_records import ListRow
from est_server.devices.list_format import EntrySignatures, ListLimits, RejectedRow
from est_server.devices.list_lines import ListLines, RowTooLong
from est_server.devices.plain_rows import PUBLIC_KEY, SPKI_SHA256, PlainRow, PlainTable
from est_server.devices.row_processes import RowReading
from est_server.devices.row_values import Unusable, check_columns, device


class CsvList:
    """The format ``csv``."""

    signs_entries = False

    def recognizes(self, head: bytes) -> bool:
        """Whether the first line names a column with keys."""
        first = head.decode("utf-8-sig", "replace").splitlines()[:1]
        names = [name.strip(' "') for line in first for name in line.split(",")]
        return PUBLIC_KEY in names or SPKI_SHA256 in names

    def read(
        self, file: BinaryIO, limits: ListLimits, signatures: EntrySignatures | None = None
    ) -> Iterator[ListRow | RejectedRow]:
        """Read a device list row by row, in constant memory.

        The header is read when the first row is asked for.

        :raises ConfigurationError: the file has no usable header, has too many rows, or cannot be
            read.
        """
        lines = ListLines(file, limits.row_octets)
        records = csv.reader(lines, strict=True)
        columns = _read_header(records, limits)
        count = 0
        for row in _rows(lines, records, columns, limits):
            count += 1
            if count > limits.rows:
                raise ConfigurationError(f"the list has more than {limits.rows} rows")
            yield row


def _rows(
    lines: ListLines, records: Iterator[list[str]], columns: Sequence[str], limits: ListLimits
) -> Iterator[ListRow | RejectedRow]:
    table = PlainTable(
        list(columns), limits.row_octets, limits.attribute_value, "ec-p256" in limits.keys
    )
    with RowReading(table, limits.processes) as reading:
        while True:
            block = lines.plain_block()
            if block:
                first, lines.number = lines.number + 1, lines.number + block.count(b"\n") + 1
                yield from _finished(reading.rows_of(first, block), columns, limits)
                continue
            yield from _finished(reading.rest(), columns, limits)
            lines.begin_row()
            start = lines.number + 1
            try:
                cells = next(records)
            except StopIteration:
                return
            except (csv.Error, RowTooLong) as error:
                yield RejectedRow(start, f"not CSV: {error}")
            else:
                if cells:
                    yield _read_row(start, columns, cells, limits)


def _finished(
    rows: Iterable[PlainRow], columns: Sequence[str], limits: ListLimits
) -> Iterator[ListRow | RejectedRow]:
    """The rows that the quick way left to the careful one, too."""
    for row in rows:
        if len(row) == 4:
            yield ListRow._make(row)
        else:
            found = _careful_row(*row, columns, limits)
            if found is not None:
                yield found


def _careful_row(
    number: int, line: str, columns: Sequence[str], limits: ListLimits
) -> ListRow | RejectedRow | None:
    """A row on one line, whatever is in it; nothing for an empty line."""
    if len(line.encode("utf-8", "surrogateescape")) > limits.row_octets:
        return RejectedRow(number, f"not CSV: the row has more than {limits.row_octets} octets")
    try:
        [cells] = csv.reader([line], strict=True)
    except csv.Error as error:
        return RejectedRow(number, f"not CSV: {error}")
    return _read_row(number, columns, cells, limits) if cells else None


def _read_header(records: Iterator[list[str]], limits: ListLimits) -> list[str]:
    try:
        columns = [name.strip() for name in next(records)]
    except StopIteration:
        raise ConfigurationError("the list is empty; its first line must name columns") from None
    except (csv.Error, RowTooLong) as error:
        raise ConfigurationError(f"the first line of the list is not CSV: {error}") from None
    if PUBLIC_KEY not in columns and SPKI_SHA256 not in columns:
        raise ConfigurationError(
            f"the first line of the list must name a column {PUBLIC_KEY} or {SPKI_SHA256}"
        )
    check_columns(columns, limits)
    return columns


def _read_row(
    line: int, columns: Sequence[str], cells: Sequence[str], limits: ListLimits
) -> ListRow | RejectedRow:
    if len(cells) != len(columns):
        return RejectedRow(line, f"{len(cells)} cells where there are {len(columns)} columns")
    row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    try:
        return ListRow.of(line, device(row, limits))
    except Unusable as error:
        return RejectedRow(line, str(error))
