"""Secrets from the command line to the device: configuration, ``secrets``, ``est-client``."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509

from est_client.cli import main as client
from est_client.command_inputs import secret_in
from est_protocol import pkcs10
from est_protocol.errors import ConfigurationError
from est_server import EstServer, open_service
from est_server.cli import main
from tests.pki import make_key, make_name
from tests.server.users import Users

Output = pytest.CaptureFixture[str]

ROOT = Path(__file__).parent.parent.parent

SECRETS = """\
authorizers = ["one-time-secret"]
unlisted_devices = true
otp_challenge = true

[default.http_authentication]
verifier = "one-time-secret"
"""


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def configured(directory: Path, label: str) -> Path:
    """A new server whose default label is as ``label`` says."""
    ports = ("--https-port", "0", "--coaps-port", "0")
    assert run("init", directory / "est", *ports) == 0
    file = directory / "est" / "est-server.toml"
    text = file.read_text()
    assert 'authorizers = ["device-list"]\n' in text
    file.write_text(text.replace('authorizers = ["device-list"]\n', label))
    return file


@pytest.fixture
def config(tmp_path: Path, capsys: Output) -> Path:
    file = configured(tmp_path, SECRETS)
    capsys.readouterr()
    return file


@asynccontextmanager
async def serving(config: Path) -> AsyncIterator[EstServer]:
    async with EstServer.from_config(config) as server:
        yield server


async def enroll(config: Path, url: str, *options: str) -> int:
    return await device(
        config, "enroll", url, "--key", "device.key", "--out", "device.pem", *options
    )


async def device(config: Path, command: str, url: str, *options: str) -> int:
    """``est-client``, with all its files in one folder."""
    folder = config.parent.parent
    files = [f"{folder}/{o}" if o.endswith((".key", ".pem", ".txt")) else o for o in options]
    arguments = (command, "--url", url, "--ca-cert", f"{config.parent}/ca.pem", *files)
    return await asyncio.to_thread(client, arguments)


# -- est-server secrets ---------------------------------------------------------------------------


def test_a_secret_is_shown_once(config: Path, capsys: Output) -> None:
    with_config = ("--config", config)
    assert run("secrets", "add", "batch", "--uses", "5", "--days", "2", *with_config) == 0
    name, _, secret = capsys.readouterr().out.strip().partition(":")
    assert name == "batch"
    assert len(secret) >= 27
    assert run("secrets", "list", *with_config) == 0
    listed = capsys.readouterr().out
    assert listed.startswith("batch  0/5  2")
    assert secret not in listed
    assert run("secrets", "add", "batch", *with_config) == 2
    assert "already" in capsys.readouterr().err
    assert run("secrets", "remove", "batch", *with_config) == 0
    assert run("secrets", "remove", "batch", *with_config) == 1
    capsys.readouterr()
    assert run("secrets", "list", *with_config) == 0
    assert capsys.readouterr().out == ""


def test_a_secret_of_ones_own(config: Path, capsys: Output, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("open sesame\n")
    own = ("--secret-file", tmp_path / "secret", "--config", config)
    assert run("secrets", "add", "batch", "--device", "sensor-1", *own) == 0
    assert capsys.readouterr().out == "batch:open sesame\n"
    assert run("secrets", "list", "--config", config) == 0
    assert capsys.readouterr().out == "batch  0/1  -  sensor-1\n"


@pytest.mark.parametrize("name", ["a:b", "a\tb", "x" * 250])
def test_a_name_that_cannot_be(config: Path, capsys: Output, name: str) -> None:
    assert run("secrets", "add", name, "--config", config) == 2
    assert capsys.readouterr().err.startswith("est-server: error: ")


@pytest.mark.parametrize("count", ["0", "-1", "x", "9" * 12, "9" * 5000])
def test_a_count_that_cannot_be(config: Path, capsys: Output, count: str) -> None:
    for option in ("uses", "days"):
        assert run("secrets", "add", "batch", f"--{option}={count}", "--config", config) == 2
        assert "not a number" in capsys.readouterr().err


# -- est-client -----------------------------------------------------------------------------------


async def test_from_one_command_to_the_other(config: Path, capsys: Output, tmp_path: Path) -> None:
    otp, password = tmp_path / "otp", tmp_path / "password"
    added = await asyncio.to_thread(
        run, "secrets", "add", "batch", "--uses", "2", "--config", config
    )
    assert added == 0
    text = capsys.readouterr().out
    otp.write_text(text)
    password.write_text(text.partition(":")[2])
    unlinked = "--no-pop-linking"
    async with serving(config) as server:
        urls = [f"https://{server.https_address}", f"coaps://{server.coaps_address}"]
        by_password = ("--user", "batch", "--password-file", str(password), unlinked)
        assert await enroll(config, urls[0], *by_password) == 0
        # The same device over the other transport: what it has is its to get again, or to renew.
        (tmp_path / "device.key").unlink()
        assert await enroll(config, urls[1], "--otp-file", str(otp)) == 0
        (tmp_path / "device.key").unlink()
        capsys.readouterr()
        assert await enroll(config, urls[1], "--otp-file", str(otp)) == 1
        assert "not good any more" in capsys.readouterr().err
        assert await enroll(config, urls[0], unlinked) == 1
        assert "401" in capsys.readouterr().err


#: A label that wants a secret at everything that ends in a certificate.
ALWAYS = (
    SECRETS
    + """\
required = "http"
renewals = true

[default.server_key_generation]
"""
)


@pytest.mark.parametrize("command", ["reenroll", "renew", "serverkeygen"])
@pytest.mark.parametrize("means", ["password over https", "otp over https", "otp over coaps"])
@pytest.mark.conformance("AUTH-13")
async def test_secrets_for_what_comes_after_the_first_certificate(
    tmp_path: Path, capsys: Output, command: str, means: str
) -> None:
    config = await asyncio.to_thread(configured, tmp_path, ALWAYS)
    capsys.readouterr()
    add = ("secrets", "add", "batch", "--uses", "9", "--config", config)
    assert await asyncio.to_thread(run, *add) == 0
    text = capsys.readouterr().out
    (tmp_path / "otp.txt").write_text(text)
    (tmp_path / "password.txt").write_text(text.partition(":")[2])
    by_password = ("--user", "batch", "--password-file", "password.txt")
    by_otp = ("--otp-file", "otp.txt")
    files = {
        "reenroll": ("--key", "device.key", "--cert", "device.pem", "--out", "next.pem"),
        "renew": ("--store", f"{tmp_path}/store", "--force"),
        "serverkeygen": ("--key", "other.key", "--key-out", "made.key", "--out", "made.pem"),
    }[command]
    async with serving(config) as server:
        https, coaps = f"https://{server.https_address}", f"coaps://{server.coaps_address}"
        assert await enroll(config, https, *by_password) == 0
        stored = ("--store", f"{tmp_path}/store", *by_password)
        assert await device(config, "enroll", https, *stored) == 0
        capsys.readouterr()
        url = coaps if "coaps" in means else https
        assert await device(config, command, url, *files) == 1
        assert "HTTP authentication is required" in capsys.readouterr().err
        by_means: tuple[str, ...] = by_otp if "coaps" in means else by_password
        if means == "otp over https":
            # There HTTP credentials are asked for, and a secret in the request is no substitute.
            assert await device(config, command, https, *files, *by_otp) == 1
            by_means = (*by_password, *by_otp)
        assert await device(config, command, url, *files, *by_means) == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--user", "a"), "go together"),
        (("--password-file", "secret"), "go together"),
        (("--user", "a", "--password-file", "missing"), "cannot read"),
        (("--user", "a:b", "--password-file", "secret"), "colon"),
        (("--otp-file", "empty"), "one line"),
        (("--otp-file", "two-lines"), "one line"),
        (("--otp-file", "latin-1"), "UTF-8"),
    ],
)
def test_what_makes_no_sense(
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("s")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two-lines").write_text("a\nb\n")
    (tmp_path / "latin-1").write_bytes(b"\xe9")
    assert run("init", "est") == 0
    url = ("--url", "https://localhost:1", "--ca-cert", "est/ca.pem", "--key", "device.key")
    assert client(["enroll", *url, *options]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o644, True)])
def test_a_secret_that_others_can_read_is_worth_a_warning(
    tmp_path: Path, capsys: Output, mode: int, warned: bool
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(mode)
    assert secret_in(str(secret)) == "s"
    assert (f"warning: {secret} has mode 0644" in capsys.readouterr().err) == warned


def test_the_secret_of_the_page_is_for_its_owner_only(
    config: Path, tmp_path: Path, capsys: Output
) -> None:
    page = (ROOT / "docs" / "how-to" / "enroll-with-a-secret.md").read_text()
    [command] = re.findall(r"^    (\(umask .*?> secret\.txt\))$", page, re.M | re.S)
    as_module = f"{shlex.quote(sys.executable)} -m est_server.cli"
    shell = f"umask 022; {command.replace('est-server ', f'{as_module} ', 1)}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["sh", "-c", shell], cwd=config.parent.parent, env=environment, check=True)
    assert secret_in(str(tmp_path / "secret.txt")).startswith("batch-7:")
    assert capsys.readouterr().err == ""


def test_a_user_over_coaps(tmp_path: Path, capsys: Output) -> None:
    assert run("init", tmp_path / "est") == 0
    (tmp_path / "secret").write_text("s")
    arguments = ["enroll", "--url", "coaps://localhost", "--key", str(tmp_path / "device.key")]
    arguments += ["--ca-cert", str(tmp_path / "est" / "ca.pem")]
    arguments += ["--user", "a", "--password-file", str(tmp_path / "secret")]
    assert client(arguments) == 2
    assert "--otp-file" in capsys.readouterr().err


# -- strongSwan -----------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("pki") is None, reason="strongSwan's pki is not installed")
@pytest.mark.parametrize("right", [True, False])
async def test_strongswan_enrolls_by_user_and_password(
    config: Path, capsys: Output, tmp_path: Path, right: bool
) -> None:
    """It sends Basic unasked, links nothing, and has no client certificate."""
    assert await asyncio.to_thread(run, "secrets", "add", "batch", "--config", config) == 0
    secret = capsys.readouterr().out.strip() if right else "batch:wrong"
    csr = tmp_path / "csr.der"
    csr.write_bytes(pkcs10.build(make_key("device"), make_name("a wish")).der)
    async with serving(config) as server:
        port = str(server.https_address).rpartition(":")[2]
        process = await asyncio.create_subprocess_exec(
            *("pki", "--est", "--url", f"https://localhost:{port}", "--in", str(csr)),
            *("--cacert", str(config.parent / "ca.pem"), "--userpass", secret),
            *("--outform", "pem"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert (process.returncode == 0) is right, err
    if right:
        certificate = x509.load_pem_x509_certificate(out)
        assert certificate.public_key() == make_key("device").public_key()


# -- Configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ('authorizers = ["one-time-secret"]\n', "nobody can show a secret"),
        ('authorizers = ["http-user"]\n', "needs http_authentication"),
        (
            'authorizers = ["http-user"]\n[default.http_authentication]\n'
            'verifier = "one-time-secret"\n',
            "a verifier of its own",
        ),
        (
            'authorizers = ["http-user"]\n[default.http_authentication]\n'
            'verifier = "own_users:USERS"\n',
            "needs a table http_users",
        ),
        (
            'authorizers = ["device-list"]\n[default.http_authentication]\n'
            'verifier = "one-time-secret"\ndigest = ["SHA-256"]\n',
            "slow hashes",
        ),
        (
            'authorizers = ["device-list"]\n[default.http_authentication]\n'
            'verifier = "one-time-secret"\nbasic = false\n',
            "neither Basic nor Digest",
        ),
        (
            'authorizers = ["device-list"]\n[default.http_authentication]\nverifier = "nobody"\n',
            "no verifier",
        ),
        (
            'authorizers = ["device-list"]\n[default.http_authentication]\n'
            'verifier = "own_users:NOBODY"\n',
            "no verifier",
        ),
        (
            'authorizers = ["device-list"]\n[default.http_authentication]\nverifier = "os:path"\n',
            "no async method",
        ),
        (
            'authorizers = ["device-list"]\n[default.http_authentication]\n'
            'verifier = "own_users:USERS"\ndigest = ["SHA-1"]\n',
            "none of SHA-256, MD5",
        ),
    ],
)
async def test_a_configuration_that_makes_no_sense(
    tmp_path: Path, own_users: Users, label: str, why: str
) -> None:
    config = await asyncio.to_thread(configured, tmp_path, label)
    with pytest.raises(ConfigurationError, match=why):
        async with open_service(config):
            pass


@pytest.fixture
def own_users(monkeypatch: pytest.MonkeyPatch) -> Users:
    """Users that a configuration names as ``own_users:USERS``."""
    module = types.ModuleType("own_users")
    users = Users({"line": "s3cret"})
    monkeypatch.setattr(module, "USERS", users, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "own_users", module)
    return users


async def test_users_of_ones_own(tmp_path: Path, own_users: Users, capsys: Output) -> None:
    label = (
        'authorizers = ["http-user"]\nunlisted_devices = true\n'
        '[default.http_users]\nline = "sensor-1"\n'
        '[default.http_authentication]\nverifier = "own_users:USERS"\nbasic = false\n'
    )
    config = await asyncio.to_thread(configured, tmp_path, label)
    (tmp_path / "password").write_text("s3cret")
    by_password = ("--user", "line", "--password-file", str(tmp_path / "password"))
    async with serving(config) as server:
        assert await enroll(config, f"https://{server.https_address}", *by_password) == 0
    certificate = x509.load_pem_x509_certificate((tmp_path / "device.pem").read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=sensor-1"
    assert own_users.asked == 1
