"""Device lists as JSON Lines: one object per line, with the same members as columns of CSV.

``{"udid": "d-1", "public_key": "MFkw...", "model": "x"}``. All values are strings; the rules for
``udid``, ``public_key`` and ``spki_sha256`` are those of :mod:`est_server.devices.csv_list`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from est_protocol.errors import ConfigurationError
from est_server.device_records import ListRow
from est_server.devices.list_format import EntrySignatures, ListLimits, RejectedRow
from est_server.devices.list_lines import ListLines, RowTooLong
from est_server.devices.row_values import Unusable, check_name, device
from est_server.devices.strict_json import NotStrictJson, load_object


class JsonLines:
    """The format ``jsonl``."""

    signs_entries = False

    def recognizes(self, head: bytes) -> bool:
        """Whether the list begins with an object."""
        return head.decode("utf-8-sig", "replace").lstrip().startswith("{")

    def read(
        self, file: BinaryIO, limits: ListLimits, signatures: EntrySignatures | None = None
    ) -> Iterator[ListRow | RejectedRow]:
        """Read a device list line by line, in constant memory.

        :raises ConfigurationError: it is empty, has too many rows, or cannot be read.
        """
        lines = ListLines(file, limits.row_octets)
        count = 0
        while True:
            lines.begin_row()
            try:
                line = next(lines)
            except StopIteration:
                break
            except RowTooLong as error:
                row: ListRow | RejectedRow = RejectedRow(lines.number, f"not JSON: {error}")
            else:
                if not line.strip():
                    continue
                row = _read_row(lines.number, line, limits)
            count += 1
            if count > limits.rows:
                raise ConfigurationError(f"the list has more than {limits.rows} rows")
            yield row
        if not count:
            raise ConfigurationError("the list is empty")


def _read_row(number: int, line: str, limits: ListLimits) -> ListRow | RejectedRow:
    try:
        members = load_object(line)
        return ListRow.of(number, device(_texts(members, limits), limits))
    except (NotStrictJson, Unusable) as error:
        return RejectedRow(number, str(error))


def _texts(members: dict[str, object], limits: ListLimits) -> dict[str, str]:
    if len(members) > limits.columns:
        raise Unusable(f"more than {limits.columns} members")
    texts = {}
    for name, value in members.items():
        if not check_name(name, limits):
            raise Unusable(
                f"{json.dumps(name[: limits.attribute_name])}: a name is 1 to "
                f"{limits.attribute_name} lower case letters, digits and underscores"
            )
        if not isinstance(value, str):
            raise Unusable(f"{name} is not a string")
        texts[name] = value.strip()
    return texts
