"""Device lists for tests, and the people who sign them."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime
from typing import BinaryIO

from cryptography import x509

from est_protocol.keys import SigningKey
from est_server.devices.importer import ImportReport, ImportRules, ListFile, import_list
from est_server.devices.list_format import ListLimits
from est_server.devices.signatures.detached import read_signature
from est_server.devices.signatures.signers import ListSigner
from est_server.devices.signatures.signing import CmsSigning, JwsSigning
from est_server.interfaces import DeviceRegistry
from tests.pki import PRESENT, make_leaf
from tests.server.ledger_values import digest

MAKER = make_leaf(None, "list maker")
ACME = ListSigner("acme", certificates=MAKER.chain)

UNSIGNED = ImportRules(allow_unsigned=True)
SIGNED = ImportRules(signers=(ACME,))


def csv_list(*numbers: int) -> bytes:
    """A CSV list of the devices with these numbers."""
    rows = [f"d-{number},{digest(str(number)).hex()},x" for number in numbers]
    return "\n".join(["udid,spki_sha256,model", *rows, ""]).encode()


def sign(
    octets: bytes,
    key: SigningKey = MAKER.key,
    chain: tuple[x509.Certificate, ...] = MAKER.chain,
    *,
    kind: type[CmsSigning] | type[JwsSigning] = CmsSigning,
    now: datetime = PRESENT,
) -> bytes:
    """The signature's file for a list of these octets."""
    signing = kind(key, chain, now)
    signing.update(octets)
    return signing.finish()


async def import_octets(
    registry: DeviceRegistry,
    octets: bytes | BinaryIO,
    rules: ImportRules = UNSIGNED,
    *,
    signature: bytes | None = None,
    now: datetime = PRESENT,
    limits: ListLimits | None = None,
    list_id: str | None = None,
    format_name: str | None = None,
) -> ImportReport:
    """Import a list into a registry."""
    file = io.BytesIO(octets) if isinstance(octets, bytes) else octets
    detached = None if signature is None else read_signature(signature)
    if limits is not None:
        rules = replace(rules, limits=limits)
    return await import_list(registry, ListFile(file, format_name, detached, list_id), rules, now)
