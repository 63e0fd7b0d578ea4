"""The examples of the README are what their files are, short, and work against the real thing."""

from __future__ import annotations

import ast
import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import est_client
import est_server
from est_protocol import certs_only, pkcs10
from est_protocol.client_certificate_fields import encode_chain
from est_protocol.keys import spki_sha256
from est_server.cli import main as est_server_command
from tests import pki
from tests.ports import reserved_port

ROOT = Path(__file__).parent.parent
EXAMPLES = ("embed_server", "enroll_and_renew", "mount_in_aiohttp")
#: The programs find this tree's packages whether they are installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
#: Seconds that a program may take to start or to end.
PATIENCE = 120


def path_of(name: str) -> Path:
    return ROOT / "docs" / "examples" / f"{name}.py"


@contextmanager
def running(folder: Path, *program: str | Path) -> Iterator[list[str]]:
    """A program of ours that says when it is ready; SIGTERM has to end it well."""
    process = subprocess.Popen(
        [sys.executable, *program], stdout=subprocess.PIPE, text=True, cwd=folder, env=ENVIRONMENT
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[:1] == ["ready"]
        yield ready[1:]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """The folder of a new server."""
    folder = tmp_path / "est"
    ports = ["--https-port", "0", "--coaps-port", "0"]
    assert est_server_command(["init", str(folder), *ports]) == 0
    return folder


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """The key store of a device that has nothing but a key."""
    folder = tmp_path / "device"
    folder.mkdir(mode=0o700)
    key = pki.make_key("device").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "identity.pem").touch(mode=0o600)
    (folder / "identity.pem").write_bytes(key)
    return folder


@pytest.fixture
def key_hash() -> str:
    return spki_sha256(pki.make_key("device").public_key()).hex()


def list_device(server: Path, key_hash: str) -> None:
    (server / "list.csv").write_text(f"udid,spki_sha256\nsensor-0001,{key_hash}\n")
    config = str(server / "est-server.toml")
    assert (
        est_server_command(
            ["devices", "import", str(server / "list.csv"), "--allow-unsigned", "--config", config]
        )
        == 0
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_readme_shows_the_file(name: str) -> None:
    readme = (ROOT / "README.md").read_text()
    shown = re.findall(rf"<!-- docs/examples/{name}\.py -->\n```python\n(.*?)```\n", readme, re.S)
    assert shown == [path_of(name).read_text()]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_shorter_than_25_lines(name: str) -> None:
    assert len(path_of(name).read_text().splitlines()) < 25


@pytest.mark.parametrize("transport", ["https", "coaps"])
def test_a_server_with_a_decision_of_ones_own(
    server: Path, device: Path, key_hash: str, transport: str
) -> None:
    text = path_of("embed_server").read_text()
    [placeholder] = re.findall(r"<SHA-256.*?>", text)
    mine = server.parent / "embed_server.py"
    mine.write_text(text.replace(placeholder, key_hash))
    with running(server.parent, mine) as addresses:
        authority = dict(address.split("=") for address in addresses)[transport]
        assert enrolls_and_renews(f"{transport}://{authority}", server, device)


def test_est_in_an_asgi_server(server: Path, device: Path, key_hash: str) -> None:
    list_device(server, key_hash)
    config = server / "est-server.toml"
    config.write_text(config.read_text() + '[proxy]\nlisten = "127.0.0.1"\n')
    example = path_of("serve_with_uvicorn").read_text()
    assert f"```python\n{example}```\n" in (ROOT / "docs/how-to/behind-a-proxy.md").read_text()
    mine = server.parent / "serve_with_uvicorn.py"
    self_signed = pki.make_leaf(None, "device", key=pki.make_key("device"))
    request = pkcs10.build(self_signed.key, pki.make_name("x"), binding=None)
    with reserved_port() as port, serving(mine, example.replace("8080", str(port)), port):
        for further, status in (({"X-Forwarded-For": "127.0.0.1"}, 400), ({}, 200)):
            connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            connection.request(
                "POST",
                "/.well-known/est/simpleenroll",
                base64.encodebytes(request.der),
                {
                    "Content-Type": "application/pkcs10",
                    **encode_chain(self_signed.chain),
                    **further,
                },
            )
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            assert answer.status == status, body
    [certificate] = certs_only.decode(base64.b64decode(body))
    assert certificate.subject == pki.make_name("sensor-0001")


@contextmanager
def serving(program: Path, text: str, port: int) -> Iterator[None]:
    """A program that listens on ``port`` and says nothing when it does."""
    program.write_text(text)
    process = subprocess.Popen([sys.executable, program], cwd=program.parent, env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield
        process.send_signal(signal.SIGTERM)
        # uvicorn stops in order and then ends by the signal that it was sent.
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def test_a_program_hears_of_alarms(server: Path, device: Path, key_hash: str) -> None:
    list_device(server, key_hash)
    example = path_of("hear_alarms").read_text()
    page = (ROOT / "docs/how-to/suspend-revoke-reset-transfer.md").read_text()
    assert f"```python\n{example}```\n" in page
    config = str(server / "est-server.toml")
    order = ["devices", "revoke", "sensor-0001", "--reason", "key-compromise", "--config", config]
    assert est_server_command(order) == 0
    process = subprocess.Popen(
        [sys.executable, path_of("hear_alarms")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=server.parent,
        env=ENVIRONMENT,
    )
    with process:
        try:
            assert process.stdout is not None
            addresses = dict(word.split("=") for word in process.stdout.readline().split()[1:])
            trust = ("--ca-cert", server / "ca.pem", "--key", device / "identity.pem")
            url = f"https://{addresses['https']}"
            command = [sys.executable, "-m", "est_client.cli", "enroll", "--url", url]
            client = [*command, *map(str, trust), "--out", str(device / "out.pem")]
            assert subprocess.run(client, env=ENVIRONMENT, timeout=PATIENCE).returncode != 0
            heard = process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert heard.startswith("compromised-key: device sensor-0001 from 127.0.0.1:")
    assert "kind='compromised-key'" in errors


def enrolls_and_renews(url: str, server: Path, device: Path) -> bool:
    said = run(path_of("enroll_and_renew"), url, server / "ca.pem", device)
    return said.startswith("enrolled as CN=sensor-0001\nrenewed until ")


def test_est_in_an_aiohttp_application(server: Path, device: Path, key_hash: str) -> None:
    list_device(server, key_hash)
    with running(server.parent, path_of("mount_in_aiohttp")) as [address]:
        assert enrolls_and_renews(f"https://{address}", server, device)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_page_about_curl_is_right_to_the_letter(
    server: Path, device: Path, key_hash: str
) -> None:
    """After the README, whose device has enrolled."""
    list_device(server, key_hash)
    page = (ROOT / "docs/how-to/enroll-with-curl.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.S)
    serve = ("-m", "est_server.cli", "serve", "--config", server / "est-server.toml")
    with running(server.parent, *serve) as addresses:
        https = dict(address.split("=") for address in addresses)["https"]
        assert enrolls_and_renews(f"https://{https}", server, device)

        def play(*blocks: str) -> subprocess.CompletedProcess[str]:
            command = f'est-server() {{ "{sys.executable}" -m est_server.cli "$@"; }}\n'
            script = command + "".join(blocks).replace("localhost:8443", https)
            return subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", script],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                env=ENVIRONMENT,
                cwd=server.parent,
            )

        done = play(*blocks)
        assert (done.returncode, done.stderr) == (0, "")
        assert "EST Root CA" in done.stdout
        certificate = x509.load_pem_x509_certificate((server.parent / "curl.pem").read_bytes())
        assert certificate.subject == pki.make_name("sensor-0002")
        # Once more, for a key that nobody has listed.
        refused = play(blocks[0].split("\n")[0] + "\n", blocks[2])
    assert refused.returncode == 22
    sentence = (server.parent / "enrolled.p7").read_text()
    assert "its key is not on the device list" in sentence


@pytest.mark.skipif(
    not Path(sys.executable).with_name("est-server").exists(),
    reason="the commands are not installed beside this Python",
)
def test_the_tour_goes_as_it_should() -> None:
    said = run(path_of("demo"))
    assert "FAIL" not in said
    assert re.search(r"\n(\d+) of \1 steps as expected", said)


def test_the_packages_export_what_their_documentation_names() -> None:
    for package in (est_client, est_server):
        assert package.__file__ is not None
        tree = ast.parse(Path(package.__file__).read_text())
        imported = {
            alias.asname or alias.name
            for statement in tree.body
            if isinstance(statement, ast.ImportFrom)
            for alias in statement.names
        }
        assert sorted(imported) == list(package.__all__)
