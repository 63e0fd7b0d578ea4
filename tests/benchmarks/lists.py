"""The import of signed device lists, from the command's start to its end."""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from est_server.assembly import open_store
from est_server.config import load_config
from est_server.devices.signatures.signing import CmsSigning
from tests.benchmarks.accounting import cost_of

#: DER of a SubjectPublicKeyInfo on P-256 up to the coordinates.
_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1
_CHUNK = 2**20
_MEGABYTE = 1e6
_SAMPLE_SECONDS = 0.1
_LOOKUPS = 5000


@dataclass(frozen=True)
class Imported:
    """What an import cost.

    :param seconds: from the command's start to its end.
    :param cpu_seconds: of the same.
    :param peak_megabytes: the most memory that all its processes had together.
    """

    seconds: float
    cpu_seconds: float
    peak_megabytes: float


def write_list(path: Path, rows: int, *, whole_keys: bool) -> None:
    """A list whose keys come in no order, with a UDID and an attribute for each."""
    with path.open("w") as file:
        file.write(f"udid,{'public_key' if whole_keys else 'spki_sha256'},model\n")
        keys = _whole_keys() if whole_keys else _hashes()
        # A prime, so that the UDIDs come in another order than they sort in.
        file.writelines(
            f"sensor-{number * 7919 % rows:010},{key},pump-{number % 7}\n"
            for number, key in zip(range(rows), keys, strict=False)
        )


def _hashes() -> Iterator[str]:
    number = 0
    while True:
        yield hashlib.sha256(b"%d" % number).hexdigest()
        number += 1


def _whole_keys() -> Iterator[str]:
    """Valid keys: points that are each the generator's distance from the one before."""
    step, point = (
        ec.derive_private_key(number, ec.SECP256R1()).public_key().public_numbers()
        for number in (1, 2**255)
    )
    x, y = point.x, point.y
    while True:
        yield base64.b64encode(_HEAD + x.to_bytes(32) + y.to_bytes(32)).decode()
        slope = (step.y - y) * pow(step.x - x, -1, _FIELD) % _FIELD
        x, y = (third := (slope * slope - x - step.x) % _FIELD), (slope * (x - third) - y) % _FIELD


def lookup_seconds(config: Path, rows: int) -> float:
    """CPU seconds to find a device by its key, after the import of a list of hashes.

    The keys come in no order; each of them is looked for once, unmeasured, before it counts.
    """
    return asyncio.run(_lookup_seconds(config, rows))


async def _lookup_seconds(config: Path, rows: int) -> float:
    step = max(1, rows // _LOOKUPS)
    keys = [hashlib.sha256(b"%d" % number).digest() for number in range(0, rows, step)]
    async with open_store(load_config(config)) as store:
        took = 0.0
        for _ in range(2):
            began = time.process_time()
            for key in keys:
                if await store.find_by_key(key) is None:
                    raise RuntimeError("a listed device is not found")
            took = time.process_time() - began
    return took / len(keys)


def import_signed(config: Path, path: Path) -> Imported:
    """Sign a list as a signer that the configuration is told of, and import it."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key)
    signing = CmsSigning(key, (certificate,), datetime.now(UTC))
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            signing.update(chunk)
    signature, signer = path.with_suffix(".p7s"), path.with_suffix(".pem")
    signature.write_bytes(signing.finish())
    signer.write_bytes(certificate.public_bytes(Encoding.PEM))
    with config.open("a") as stream:
        stream.write(f'\n[[list_signers]]\nname = "{path.stem}"\ncertificate = "{signer}"\n')
    arguments = ("devices", "import", str(path), "--signature", str(signature))
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "est_server.cli", *arguments, "--config", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak, ended = 0, 0
    while not ended:
        # Of all its processes together, which no process's own books tell.
        peak = max(peak, cost_of(process.pid).resident)
        time.sleep(_SAMPLE_SECONDS)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the import ended with {process.returncode}")
    seconds = time.perf_counter() - began
    return Imported(seconds, usage.ru_utime + usage.ru_stime, peak / _MEGABYTE)


def plain_seconds(path: Path, database: Path) -> float:
    """The least that Python needs: the csv module, and sqlite3 into a table with two keys."""
    began = time.perf_counter()
    with closing(sqlite3.connect(database)) as db, path.open(newline="") as file:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE devices (udid TEXT PRIMARY KEY, key UNIQUE, model) WITHOUT ROWID")
        rows = csv.reader(file)
        next(rows)
        db.executemany("INSERT INTO devices VALUES (?, ?, ?)", rows)
        db.commit()
    return time.perf_counter() - began


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "list signer")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
