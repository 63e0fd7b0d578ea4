"""``est-server devices verify``: the whole store against its seals, its journal and lists."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from est_protocol.errors import ConfigurationError
from est_server.assembly import open_store
from est_server.commands.import_list import open_list
from est_server.commands.options import OneLineParser, add_command
from est_server.config import ServerConfig, load_config
from est_server.device_records import ListRow
from est_server.devices.importer import ImportRules, ListFile, ListReading
from est_server.devices.refusals import NotSigned
from est_server.devices.signatures.detached import MAX_OCTETS, DetachedSignature, read_signature
from est_server.list_signers import load_list_signers
from est_server.stores.verification import GivenList

#: Appended to the name of a list, where its detached signature is looked for.
_SIGNATURES = (".p7s", ".cms", ".jws", ".sig")

_CHUNK = 1 << 20

_REPORT_EVERY = 100_000


def add_to(subcommands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the command."""
    parser = add_command(
        subcommands,
        "verify",
        _run,
        help="check all devices against their seals, the journal and the signed lists",
        example="est-server devices verify --lists devices.csv --config est/est-server.toml",
        note="""\
Prints what is wrong, one sentence per line; the exit status is 1 if anything is. The
signature of a list is looked for beside it, as FILE.p7s, .cms, .jws or .sig; one that is
not signed is compared all the same if the configuration has allow_unsigned.""",
    )
    parser.add_argument(
        "--lists",
        nargs="+",
        default=[],
        metavar="FILE",
        help="lists that were imported, to compare the devices with row by row",
    )


def _run(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    with ExitStack() as files:
        given = [_given(config, name, files) for name in options.lists]
        count = asyncio.run(_print_findings(config, given))
    if count:
        print("1 finding" if count == 1 else f"{count} findings", file=sys.stderr)
        return 1
    key = "" if config.integrity_key else "; there is no integrity key to check seals with"
    print(f"nothing is wrong{key}")
    return 0


class _NamedReading:
    """One pass over a list of several; a refusal says over which."""

    def __init__(self, name: str, reading: ListReading) -> None:
        self._name = name
        self._reading = reading
        self.describe = reading.describe

    def rows(self) -> Iterator[ListRow]:
        """Its rows."""
        try:
            yield from self._reading.rows()
        except NotSigned as refused:
            looked_for = ", ".join(self._name + suffix for suffix in _SIGNATURES)
            raise ConfigurationError(
                f"{self._name}: {refused}, and there is no signature beside it ({looked_for})"
            ) from refused
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._name}: {error}") from error


def _given(config: ServerConfig, name: str, files: ExitStack) -> GivenList:
    file = _rereadable(files.enter_context(open_list(name)), files)
    signature = _signature_beside(name)

    def read(signed: bool) -> _NamedReading:
        rules = ImportRules(
            signers=load_list_signers(config),
            allow_unsigned=config.devices.allow_unsigned and signature is None,
            verify_entries=signed,
            leave_out_bad_rows=True,
            limits=config.devices.limits,
        )
        reading = ListReading(ListFile(file, signature=signature), rules, datetime.now(UTC))
        return _NamedReading(name, reading)

    return GivenList(name, _sha256(file), read)


def _sha256(file: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    file.seek(0)
    return digest.digest()


def _signature_beside(name: str) -> DetachedSignature | None:
    for path in (Path(name + suffix) for suffix in _SIGNATURES):
        if path.is_file():
            with path.open("rb") as signed:
                try:
                    return read_signature(signed.read(MAX_OCTETS + 1))
                except ConfigurationError as error:
                    raise ConfigurationError(f"{path}: {error}") from error
    return None


def _rereadable(file: BinaryIO, files: ExitStack) -> BinaryIO:
    """The list, from a copy if it comes through a pipe: it is read twice."""
    if file.seekable():
        return file
    kept = files.enter_context(TemporaryFile())
    shutil.copyfileobj(file, kept)
    kept.seek(0)
    return kept


async def _print_findings(config: ServerConfig, given: list[GivenList]) -> int:
    def report(finding: str) -> None:
        print(finding, flush=True)

    async with open_store(config, as_it_is=True) as store:
        return await store.verify(given, report=report, progress=_progress)


def _progress(what: str, count: int) -> None:
    if count and count % _REPORT_EVERY == 0:
        print(f"{what}: {count}", file=sys.stderr, flush=True)
