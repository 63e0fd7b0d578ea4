"""Approvals from a device to an operator and back: configuration, ``approvals``, ``est-client``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from est_client import EstClient, LocalCredentials, TrustDatabase, connector_for
from est_protocol.errors import ServerRefused, StillPending
from est_protocol.keys import spki_sha256
from est_server import EstServer
from est_server.cli import main
from tests.pki import make_key

Output = pytest.CaptureFixture[str]


def run(config: Path, *arguments: str) -> int:
    return main([*arguments, "--config", str(config)])


async def command(config: Path, *arguments: str) -> int:
    """Run a command as another process would; its own event loop is in another thread."""
    return await asyncio.to_thread(run, config, *arguments)


def configured(directory: Path, authorizers: str) -> Path:
    """A new server whose default label has these authorizers."""
    ports = ["--https-port", "0", "--coaps-port", "0"]
    assert main(["init", str(directory / "est"), *ports]) == 0
    file = directory / "est" / "est-server.toml"
    text = file.read_text()
    assert 'authorizers = ["device-list"]\n' in text
    file.write_text(text.replace('authorizers = ["device-list"]\n', authorizers))
    return file


def key_hash(name: str) -> str:
    return spki_sha256(make_key(name).public_key()).hex()


async def enroll(config: Path, url: str, name: str) -> str:
    trust = TrustDatabase.load(config.parent / "ca.pem")
    identity = LocalCredentials(make_key(name), ())
    async with EstClient(connector_for(url), trust=trust, identity=identity) as client:
        certificate = await client.simpleenroll(key=identity.key)
    return certificate.subject.rfc4514_string()


@pytest.mark.parametrize("transport", ["https", "coaps"])
async def test_an_operator_decides(tmp_path: Path, capsys: Output, transport: str) -> None:
    config = await asyncio.to_thread(configured, tmp_path, 'authorizers = ["approval"]\n')
    async with EstServer.from_config(config) as server:
        address = server.https_address if transport == "https" else server.coaps_address
        url = f"{transport}://{address}"
        for name in ("one", "two"):
            with pytest.raises(StillPending) as waits:
                await enroll(config, url, name)
            assert waits.value.retry_after == 300
        capsys.readouterr()
        assert await command(config, "approvals", "list") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["1", "2"]
        assert key_hash("one") in lines[0]
        why = ("--reason", "seen it", "--actor", "carol")
        assert await command(config, "approvals", "approve", "1", *why) == 0
        assert await command(config, "approvals", "deny", "2", *why) == 0
        assert await enroll(config, url, "one") == f"CN={key_hash('one')}"
        with pytest.raises(ServerRefused, match="denied"):
            await enroll(config, url, "two")
        capsys.readouterr()
        assert await command(config, "approvals", "list") == 0
        assert capsys.readouterr().out == ""
        assert await command(config, "approvals", "list", "--all") == 0
        used, denied = capsys.readouterr().out.splitlines()
        assert used.endswith("used  by carol: seen it")
        assert denied.endswith("denied  by carol: seen it")


def test_what_cannot_be_decided(tmp_path: Path, capsys: Output) -> None:
    config = configured(tmp_path, 'authorizers = ["device-list", "approval"]\n')
    capsys.readouterr()
    assert run(config, "approvals", "approve", "7", "--reason", "x") == 1
    assert capsys.readouterr().err == "est-server: error: there is no request 7\n"
    for number in ("0", "-1", "x", "9" * 30, "1²"):
        assert run(config, "approvals", "deny", "--reason", "x", "--", number) == 2
    assert run(config, "approvals", "deny", "1") == 2


async def test_device_list_and_approval(tmp_path: Path, capsys: Output) -> None:
    config = await asyncio.to_thread(
        configured,
        tmp_path,
        'authorizers = ["device-list", "approval"]\napproval = { retry_after = "10s" }\n'
        '\n[default.quotas.lists]\n"*" = { limit = 1 }\n',
    )
    rows = "".join(f"{name},{key_hash(name)}\n" for name in ("one", "two"))
    (tmp_path / "list.csv").write_text(f"udid,spki_sha256\n{rows}")
    listed = ("devices", "import", str(tmp_path / "list.csv"), "--allow-unsigned")
    assert await command(config, *listed) == 0
    async with EstServer.from_config(config) as server:
        url = f"https://{server.https_address}"
        for name in ("one", "two"):
            with pytest.raises(StillPending) as waits:
                await enroll(config, url, name)
            assert waits.value.retry_after == 10
        with pytest.raises(ServerRefused, match="403"):
            await enroll(config, url, "nobody")
        approve = ("approvals", "approve", "1", "2", "--reason", "order 17")
        assert await command(config, *approve) == 0
        assert await enroll(config, url, "one") == "CN=one"
        with pytest.raises(ServerRefused, match="no more devices"):
            await enroll(config, url, "two")


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ('authorizers = ["approval"]\n[default.approval]\nretry_after = "8d"\n', "longer than"),
        ('authorizers = ["approval"]\n[default.approval]\nmax_waiting = 0\n', "greater than"),
        ('authorizers = ["device-list"]\n[default.quotas.owners]\na = { limit = 0 }\n', "greater"),
        (
            'authorizers = ["device-list"]\n[default.quotas.lists]\n'
            'a = { limit = 1, window = "10ms" }\n',
            "a second",
        ),
        (
            'authorizers = ["one-time-secret"]\notp_challenge = true\n'
            "[default.quotas.owners]\na = { limit = 1 }\n",
            "device-list",
        ),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, capsys: Output, label: str, why: str) -> None:
    config = configured(tmp_path, label)
    capsys.readouterr()
    assert run(config, "serve") == 2
    assert why in capsys.readouterr().err
