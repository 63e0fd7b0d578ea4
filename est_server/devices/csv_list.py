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

import base64
import binascii
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from est_protocol.errors import ConfigurationError
from est_protocol.keys import PublicKey, key_kind, spki_sha256
from est_server.device_records import ListedDevice, ListRow

UDID = "udid"
PUBLIC_KEY = "public_key"
SPKI_SHA256 = "spki_sha256"

_UDID_LIMIT = 128
_BOM = b"\xef\xbb\xbf"
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9_]+")
_SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class CsvLimits:
    """What a device list may be like."""

    row_octets: int = 64 * 1024
    """Octets of one row, over all its lines."""

    columns: int = 32
    """Columns."""

    attribute_name: int = 64
    """Characters of an attribute's name."""

    attribute_value: int = 1024
    """Characters of an attribute's value."""

    rows: int = 10_000_000
    """Rows, good and bad ones."""

    keys: frozenset[str] = frozenset({"ec-p256", "ec-p384", "ec-p521", "ed25519", "ed448"})
    """Kinds of key, other than RSA, that may be listed; see
    :func:`est_protocol.keys.key_kind`."""

    rsa_bits: int = 2048
    """The shortest RSA key that may be listed."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not taken over, and why."""

    line: int
    reason: str


def read_csv(file: BinaryIO, limits: CsvLimits | None = None) -> Iterator[ListRow | RejectedRow]:
    """Read a device list row by row, in constant memory.

    The header is read when the first row is asked for.

    :raises ConfigurationError: the file has no usable header, has too many rows, or cannot be
        read.
    """
    limits = limits or CsvLimits()
    lines = _Lines(file, limits.row_octets)
    records = csv.reader(lines, strict=True)
    columns = _read_header(records, limits)
    count = 0
    while True:
        lines.begin_row()
        start = lines.number + 1
        try:
            cells = next(records)
        except StopIteration:
            return
        except (csv.Error, _RowTooLong) as error:
            yield RejectedRow(start, f"not CSV: {error}")
        else:
            if not cells:
                continue
            yield _read_row(start, columns, cells, limits)
        count += 1
        if count > limits.rows:
            raise ConfigurationError(f"the list has more than {limits.rows} rows")


class _RowTooLong(Exception):
    pass


class _Lines:
    """The lines of a file as text, counted, and limited per row.

    The csv module has a limit for cells only, and one that all of a process shares.
    """

    def __init__(self, file: BinaryIO, row_octets: int) -> None:
        self._file = file
        self._row_octets = row_octets
        self._octets = 0
        self.number = 0

    def begin_row(self) -> None:
        """The next line belongs to another row."""
        self._octets = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._read_line()
        self.number += 1
        self._octets += len(line)
        if self._octets > self._row_octets:
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = self._read(self._row_octets)
            raise _RowTooLong(f"the row has more than {self._row_octets} octets")
        # Octets that are not UTF-8 must reject their row only; no check lets a surrogate pass.
        return line.decode("utf-8", "surrogateescape")

    def _read_line(self) -> bytes:
        line = self._read(self._row_octets + 1)
        if self.number == 0:
            line = line.removeprefix(_BOM)
        if not line:
            raise StopIteration
        return line

    def _read(self, limit: int) -> bytes:
        try:
            return self._file.readline(limit)
        except OSError as error:
            raise ConfigurationError(f"the list cannot be read: {error.strerror}") from error


def _read_header(records: Iterator[list[str]], limits: CsvLimits) -> list[str]:
    try:
        columns = [name.strip() for name in next(records)]
    except StopIteration:
        raise ConfigurationError("the list is empty; its first line must name columns") from None
    except (csv.Error, _RowTooLong) as error:
        raise ConfigurationError(f"the first line of the list is not CSV: {error}") from None
    if PUBLIC_KEY not in columns and SPKI_SHA256 not in columns:
        raise ConfigurationError(
            f"the first line of the list must name a column {PUBLIC_KEY} or {SPKI_SHA256}"
        )
    if len(columns) > limits.columns:
        raise ConfigurationError(f"the list has more than {limits.columns} columns")
    for number, name in enumerate(columns, start=1):
        if not _ATTRIBUTE_NAME.fullmatch(name) or len(name) > limits.attribute_name:
            raise ConfigurationError(
                f"column {number} of the list: a name is 1 to {limits.attribute_name} lower case "
                "letters, digits and underscores"
            )
        if columns.index(name) != number - 1:
            raise ConfigurationError(f"the list has two columns {name}")
    return columns


class _Unusable(Exception):
    """Why a row is rejected."""


def _read_row(
    line: int, columns: Sequence[str], cells: Sequence[str], limits: CsvLimits
) -> ListRow | RejectedRow:
    if len(cells) != len(columns):
        return RejectedRow(line, f"{len(cells)} cells where there are {len(columns)} columns")
    row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    try:
        spki = _key_hash(row.pop(PUBLIC_KEY, ""), row.pop(SPKI_SHA256, ""), limits)
        udid = _udid(row.pop(UDID, "") or spki.hex())
        return ListRow(line, ListedDevice(udid, spki, _attributes(row, limits)))
    except _Unusable as error:
        return RejectedRow(line, str(error))


def _key_hash(public_key: str, sha256: str, limits: CsvLimits) -> bytes:
    if not public_key and not sha256:
        raise _Unusable("neither a public key nor its hash")
    stated = _read_hash(sha256) if sha256 else None
    if not public_key:
        assert stated is not None
        return stated
    key = _read_key(public_key)
    _require_strong(key, limits)
    actual = spki_sha256(key)
    if stated not in (None, actual):
        raise _Unusable(f"{SPKI_SHA256} is not the hash of {PUBLIC_KEY}")
    return actual


def _read_hash(cell: str) -> bytes:
    digits = cell.replace(":", "")
    if not _SHA256_HEX.fullmatch(digits):
        raise _Unusable(f"{SPKI_SHA256} is not 64 hexadecimal digits")
    return bytes.fromhex(digits)


def _read_key(cell: str) -> PublicKey:
    try:
        if cell.startswith("-----BEGIN"):
            return load_pem_public_key(cell.replace("\\n", "\n").encode("ascii"))
        octets = base64.b64decode("".join(cell.split()).encode("ascii"), validate=True)
        return load_der_public_key(octets)
    except (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error) as error:
        raise _Unusable(
            f"{PUBLIC_KEY} is neither a PEM public key nor base64 of a DER SubjectPublicKeyInfo"
        ) from error


def _require_strong(key: PublicKey, limits: CsvLimits) -> None:
    kind = key_kind(key)
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < limits.rsa_bits:
            raise _Unusable(f"an RSA key of {key.key_size} bits is too weak")
    elif kind not in limits.keys:
        raise _Unusable(f"keys of kind {kind} are not accepted")


def _udid(text: str) -> str:
    if len(text) > _UDID_LIMIT or not text.isprintable():
        raise _Unusable(f"{UDID} is not 1 to {_UDID_LIMIT} printable characters")
    return text


def _attributes(row: dict[str, str], limits: CsvLimits) -> dict[str, str]:
    for name, value in row.items():
        if len(value) > limits.attribute_value or not value.isprintable():
            raise _Unusable(f"{name} is not up to {limits.attribute_value} printable characters")
    return {name: value for name, value in row.items() if value}
