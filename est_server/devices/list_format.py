"""What a format of device lists is, and which there are.

A format is a plug-in: an entry point of the group ``est_server.list_formats`` that names a class
without parameters which is a :class:`ListFormat`. The built-in ones are loaded the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import BinaryIO, Protocol, cast

from est_protocol.errors import ConfigurationError
from est_server.device_records import ListRow

GROUP = "est_server.list_formats"

#: Octets from the beginning of a list by which its format is recognized.
HEAD_OCTETS = 4096

_BUILT_IN = (
    EntryPoint("csv", "est_server.devices.csv_list:CsvList", GROUP),
    EntryPoint("jsonl", "est_server.devices.json_lines:JsonLines", GROUP),
    EntryPoint(
        "microchip-manifest", "est_server.devices.microchip_manifest:MicrochipManifest", GROUP
    ),
)


@dataclass(frozen=True, slots=True)
class ListLimits:
    """What a device list may be like.

    :param row_octets: octets of one row, over all its lines, or of one entry.
    :param columns: columns, or members of an object.
    :param attribute_name: characters of an attribute's name.
    :param attribute_value: characters of an attribute's value.
    :param rows: rows, good and bad ones.
    :param keys: kinds of key, other than RSA, that may be listed: ``ec-p256``, ``ec-p384``,
        ``ec-p521``, ``ed25519``, ``ed448``.
    :param rsa_bits: the shortest RSA key that may be listed.
    :param manifest_key: the `kid` of the key of a secure element that is its identity, for
        manifests; an element with one key needs no such name.
    :param reported: rows that are reported one by one; those beyond are counted.
    :param processes: how many processes check the keys of a long CSV list, if there are as many
        processors; with 1 the importing process does it itself.
    """

    row_octets: int = 64 * 1024
    columns: int = 32
    attribute_name: int = 64
    attribute_value: int = 1024
    rows: int = 100_000_000
    keys: frozenset[str] = frozenset({"ec-p256", "ec-p384", "ec-p521", "ed25519", "ed448"})
    rsa_bits: int = 2048
    manifest_key: str = "0"
    reported: int = 1000
    processes: int = 2


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not taken over, and why.

    :param line: where it stands: the number of its first line, or of the entry, from 1.
    """

    line: int
    reason: str


class EntrySignatures(Protocol):
    """Verifies the signatures of a list whose entries are signed one by one."""

    def verify(self, protected: str, payload: str, signature: str) -> None:
        """Verify one JWS; the parameters are its parts, in base64url (RFC 7515 section 7.2.2).

        :raises SignatureRejected: it does not verify, or not with a key of a list signer.
        """
        ...


class ListFormat(Protocol):
    """A format of device lists."""

    signs_entries: bool
    """Whether each entry carries a signature of its own."""

    def recognizes(self, head: bytes) -> bool:
        """Whether a list that begins with ``head`` is one of this format."""
        ...

    def read(
        self, file: BinaryIO, limits: ListLimits, signatures: EntrySignatures | None
    ) -> Iterator[ListRow | RejectedRow]:
        """The rows of a list, one at a time, in constant memory, to its last octet.

        What is read is not trusted yet: the signature over a list can be judged at its end only.
        Entries that are signed are yielded only after their signature verified.

        :param file: the list; can be read once.
        :param signatures: verifies entries that are signed; ``None`` if the list as a whole is
            signed, or is accepted without a signature.
        :raises ConfigurationError: the list as a whole cannot be read.
        """
        ...


def load_format(name: str) -> ListFormat:
    """The format called ``name``.

    :raises ConfigurationError: there is none, or it cannot be loaded.
    """
    known = _installed()
    if name not in known:
        raise ConfigurationError(f"no list format {name!r}; known are {', '.join(sorted(known))}")
    return _load(known[name])


def recognize_format(head: bytes) -> ListFormat:
    """The one format that recognizes a list by its first octets.

    :raises ConfigurationError: none does, or several do.
    """
    installed = _installed()
    found = {name: form for name in installed if (form := _load(installed[name])).recognizes(head)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ConfigurationError(f"the list may be {' or '.join(sorted(found))}; say --format")
    raise ConfigurationError(
        f"the list is none of {', '.join(sorted(installed))}; the first line of a CSV file must "
        "name a column public_key or spki_sha256"
    )


def _installed() -> Mapping[str, EntryPoint]:
    """By name; what is built in cannot be replaced."""
    return {point.name: point for point in (*entry_points(group=GROUP), *_BUILT_IN)}


def _load(point: EntryPoint) -> ListFormat:
    try:
        return cast(ListFormat, point.load()())
    except Exception as error:
        raise ConfigurationError(
            f"the list format {point.name} of {point.value} cannot be loaded: {error!r}"
        ) from error
