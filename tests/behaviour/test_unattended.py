"""``est-client`` with a key store, as a process that is started, killed and started again."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_protocol.keys import spki_sha256
from tests.behaviour.programs import PATIENCE, Place, place


async def identity_in(here: Place) -> x509.Certificate:
    identity = await here.store.identity()
    assert identity is not None
    assert identity.chain[0].public_key() == identity.key.public_key()
    return identity.chain[0]


def active(here: Place) -> list[bytes]:
    """The certificates that the server takes, by their SHA-256."""
    with closing(sqlite3.connect(here.folder / "est" / "est.sqlite")) as db:
        rows = db.execute("SELECT sha256 FROM issuances WHERE state = 'active'").fetchall()
    return [bytes(row[0]) for row in rows]


@pytest.mark.parametrize("transport", ["https", "coaps"])
async def test_enrolls_once_and_renews_when_due(tmp_path: Path, transport: str) -> None:
    async with place(tmp_path) as here:
        assert (await here.run("enroll", transport))[0] == 0
        first = await identity_in(here)
        status, said = await here.run("renew", transport)
        assert (status, await identity_in(here)) == (0, first)
        assert "not yet due" in said
        assert (await here.run("renew", transport, "--force", "--keep-key"))[0] == 0
        second = await identity_in(here)
        assert (await here.run("renew", transport, "--force"))[0] == 0
        third = await identity_in(here)
    assert first.public_key() == second.public_key() != third.public_key()
    assert len({first.serial_number, second.serial_number, third.serial_number}) == 3


@pytest.mark.conformance("STAT-05", "STAT-06", "STAT-14", "CR-08")
@pytest.mark.parametrize("transport", ["https", "coaps"])
async def test_what_is_pending_goes_on_in_another_process(tmp_path: Path, transport: str) -> None:
    async with place(tmp_path) as here:
        here.gate.shut = True
        status, said = await here.run("enroll", transport, "--subject", "CN=as I wish")
        assert status == 1
        assert "pending" in said
        request = json.loads((tmp_path / "device" / "pending-request.json").read_text())
        assert request["operation"] == "simpleenroll"
        identity = await here.store.identity()
        assert identity is not None
        here.gate.shut = False
        status, said = await here.run("enroll", transport, "--wait", "20")
        assert status == 0, said
        certificate = await identity_in(here)
        assert len(active(here)) == 1
    assert spki_sha256(identity.key.public_key()) == spki_sha256(certificate.public_key())
    assert sorted(path.name for path in (tmp_path / "device").iterdir()) == [
        "identity.pem",
        "trust-anchors.pem",
    ]


@pytest.mark.conformance("CL-09", "STAT-14")
@pytest.mark.parametrize("transport", ["https", "coaps"])
@pytest.mark.parametrize("options", [(), ("--keep-key",)], ids=["new key", "same key"])
async def test_killed_at_any_moment_it_has_a_working_identity(
    tmp_path: Path, transport: str, options: tuple[str, ...]
) -> None:
    """Between the first word to the server and the end, which takes some 50 ms."""
    random = Random(f"{transport} {options}")
    async with place(tmp_path) as here:
        assert (await here.run("enroll", transport))[0] == 0
        killed = 0
        while killed < 2:
            before = await identity_in(here)
            process = await here.start("renew", transport, "--force", "--verbose", *options)
            assert process.stderr is not None
            async with asyncio.timeout(PATIENCE):
                await process.stderr.readline()
            await asyncio.sleep(random.uniform(0, 0.06))
            if process.returncode is None:
                process.kill()
            await process.communicate()
            killed += process.returncode == -9
            await identity_in(here)
            assert await here.is_accepted()
            # Whether or not the server has issued, the one who goes on ends where it would have.
            status, said = await here.run("renew", transport, "--force", *options)
            assert status == 0, said
            after = await identity_in(here)
            assert after.serial_number != before.serial_number
            assert active(here) == [after.fingerprint(hashes.SHA256())]
            assert not (tmp_path / "device" / "pending-key.pem").exists()
