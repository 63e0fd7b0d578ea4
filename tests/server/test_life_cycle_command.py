"""Orders about devices and certificates, from the command line to a server that runs."""

from __future__ import annotations

import asyncio
import json
import pwd
import re
from os import getuid
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_client import EstClient, LocalCredentials, TrustDatabase, connector_for
from est_protocol.errors import ServerRefused
from est_protocol.keys import spki_sha256
from est_server import EstServer
from est_server.cli import main
from est_server.commands.orders import revocation_reason
from est_server.commands.serial_numbers import read_serial_number
from est_server.revocations import RevocationReason
from tests.pki import make_key

Output = pytest.CaptureFixture[str]


def run(config: Path, *arguments: str) -> int:
    return main([*arguments, "--config", str(config)])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A new server with two devices that publishes CRLs every now and then."""
    ports = ["--https-port", "0", "--coaps-port", "0"]
    assert main(["init", str(tmp_path / "est"), *ports]) == 0
    rows = [f"{name},{key_hash(name)},acme" for name in ("one", "two")]
    (tmp_path / "list.csv").write_text("\n".join(["udid,spki_sha256,owner", *rows]) + "\n")
    file = tmp_path / "est" / "est-server.toml"
    file.write_text(file.read_text() + "\n[crl]\nport = 0\nschedule.poll = 0.02\n")
    imported = ("devices", "import", str(tmp_path / "list.csv"), "--allow-unsigned")
    assert run(file, *imported) == 0
    return file


def key_hash(name: str) -> str:
    return spki_sha256(make_key(name).public_key()).hex()


async def enroll(config: Path, server: EstServer, name: str) -> x509.Certificate:
    trust = TrustDatabase.load(config.parent / "ca.pem")
    identity = LocalCredentials(make_key(name), ())
    connector = connector_for(f"https://{server.https_address}")
    async with EstClient(connector, trust=trust, identity=identity) as client:
        return await client.simpleenroll(key=identity.key)


async def serials(server: EstServer) -> set[int]:
    address = f"http://{server.crl_address}/default.crl"
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        return {entry.serial_number for entry in x509.load_der_x509_crl(await answer.read())}


async def until_crl_has(server: EstServer, expected: set[int]) -> None:
    for _ in range(1000):
        if await serials(server) == expected:
            return
        await asyncio.sleep(0.02)
    assert await serials(server) == expected


async def order(config: Path, *arguments: str) -> int:
    """Run a command as another process would; its own event loop is in another thread."""
    return await asyncio.to_thread(run, config, *arguments)


async def test_a_running_server_heeds_orders_from_the_command_line(
    config: Path, tmp_path: Path, capsys: Output
) -> None:
    async with EstServer.from_config(config) as server:
        one, two = [await enroll(config, server, name) for name in ("one", "two")]
        assert await order(config, "devices", "suspend", "one", "two", "--reason", "order 17") == 0
        await until_crl_has(server, {one.serial_number, two.serial_number})
        with pytest.raises(ServerRefused, match="suspended"):
            await enroll(config, server, "one")
        assert await order(config, "devices", "resume", "one", "two", "--reason", "order 18") == 0
        await until_crl_has(server, set())
        assert await enroll(config, server, "one") == one
        (tmp_path / "one.pem").write_bytes(one.public_bytes(Encoding.PEM))
        revoke = ("certificates", "revoke", str(tmp_path / "one.pem"))
        assert await order(config, *revoke, "--reason", "keyCompromise") == 0
        await until_crl_has(server, {one.serial_number})
        with pytest.raises(ServerRefused, match="compromised"):
            await enroll(config, server, "one")
        transfer = ("devices", "transfer", "two", "--owner", "other", "--reason", "sold")
        assert await order(config, *transfer) == 0
        await until_crl_has(server, {one.serial_number, two.serial_number})
        assert await enroll(config, server, "two") != two
    capsys.readouterr()


def test_the_history_says_who_and_why(config: Path, capsys: Output) -> None:
    suspend = ("devices", "suspend", "one", "--reason", "order 17")
    assert run(config, *suspend) == 0
    decommission = ("devices", "decommission", "one", "--reason", "scrapped", "--actor", "robot 5")
    assert run(config, *decommission) == 0
    capsys.readouterr()
    assert run(config, "devices", "show", "one") == 0
    shown = capsys.readouterr().out
    user = pwd.getpwuid(getuid()).pw_name
    assert re.search(r"^owner +acme$", shown, re.MULTILINE)
    assert re.search(rf"Z  suspend, by {user}: order 17$", shown, re.MULTILINE)
    assert re.search(r"Z  decommission, by robot 5: scrapped$", shown, re.MULTILINE)


def test_what_is_not_possible_is_said_and_keeps_nothing_else_from_it(
    config: Path, capsys: Output
) -> None:
    assert run(config, "devices", "decommission", "one", "--reason", "scrapped") == 0
    capsys.readouterr()
    assert run(config, "devices", "suspend", "one", "none", "two", "--reason", "r") == 1
    printed = capsys.readouterr()
    assert printed.out == "two  suspended\n"
    assert "one: cannot suspend a device that is decommissioned" in printed.err
    assert "none: no such device" in printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("devices", "suspend", "one"),
        ("devices", "suspend", "one", "--reason", ""),
        ("devices", "suspend", "one", "--reason", "a\nb"),
        ("devices", "revoke", "one", "--reason", "because"),
        ("devices", "revoke", "one", "--reason", "certificate-hold"),
        ("devices", "transfer", "one", "--reason", "sold"),
        ("certificates", "revoke", "1234"),
        ("certificates", "revoke", "no such file", "--reason", "superseded"),
        ("certificates", "revoke", "0x", "--reason", "superseded"),
        ("certificates", "revoke", ":", "--reason", "superseded"),
    ],
)
def test_wrong_usage_changes_nothing(
    config: Path, capsys: Output, arguments: tuple[str, ...]
) -> None:
    assert run(config, *arguments) == 2
    capsys.readouterr()
    assert run(config, "devices", "list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in listed] == [["one", "listed"], ["two", "listed"]]


def test_a_certificate_of_somebody_else_is_not_revoked(
    config: Path, tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "ca.der").write_bytes(
        x509.load_pem_x509_certificate((config.parent / "ca.pem").read_bytes()).public_bytes(
            Encoding.DER
        )
    )
    for name in (str(tmp_path / "ca.der"), str(config.parent / "ca.pem"), "1234"):
        assert run(config, "certificates", "revoke", name, "--reason", "unspecified") == 1
        assert "has not issued" in capsys.readouterr().err
    (tmp_path / "junk.pem").write_bytes(b"-----BEGIN")
    revoke = ("certificates", "revoke", str(tmp_path / "junk.pem"), "--reason", "unspecified")
    assert run(config, *revoke) == 2


async def test_certificates_are_listed_and_revoked_by_serial(config: Path, capsys: Output) -> None:
    async with EstServer.from_config(config) as server:
        one = await enroll(config, server, "one")
        await enroll(config, server, "two")
    capsys.readouterr()
    spelled = f"{one.serial_number:040X}"
    with_colons = ":".join(spelled[i : i + 2] for i in range(0, 40, 2))
    for serial in (spelled, with_colons, f"0x{one.serial_number:x}"):
        capsys.readouterr()
        assert await order(config, "ledger", "query", "--serial", serial, "--json") == 0
        entries = map(json.loads, capsys.readouterr().out.splitlines())
        assert {entry["serial"] for entry in entries} == {f"{one.serial_number:x}"}
        revoke = ("certificates", "revoke", serial, "--reason", "superseded")
        assert await order(config, *revoke) == 0
    capsys.readouterr()
    assert await order(config, "certificates", "list", "--device", "one") == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == [f"{one.serial_number:x}", "revoked"]
    assert line.split()[3:] == ["one", "-"]
    assert await order(config, "certificates", "list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_serial_number_is_written_in_one_way() -> None:
    for text in ("0a:0B", "0xA0b", "0000000A0B", "a0b"):
        assert read_serial_number(text) == f"{0xA0B:x}"


@pytest.mark.parametrize("text", ["keyCompromise", "key-compromise", "KEY_COMPROMISE"])
def test_rfc_5280s_spelling_will_do(text: str) -> None:
    assert revocation_reason(text) is RevocationReason.KEY_COMPROMISE
