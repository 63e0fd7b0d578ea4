"""Behind a real nginx, configured as docs/how-to/behind-a-proxy.md says."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from est_client.cli import main as client
from est_client.device_keys import chain_to_pem, key_to_pem
from est_client.https import HttpsConnector
from est_client.key_store import FileKeyStore
from est_protocol import pkcs10
from est_protocol.client_certificate_fields import encode_chain
from est_protocol.credentials import AnchorSet
from est_protocol.errors import ServerRefused
from est_protocol.keys import spki_sha256
from est_protocol.messages import CertificatesResponse, EstRequest, Transport
from est_protocol.operations import WELL_KNOWN_PATH, Operation
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors
from est_server.cli import main
from est_server.server import EstServer
from interop.peers import find_peer
from tests.foreign_tls import client_context, exchange
from tests.pki import make_key, make_leaf, make_name
from tests.ports import reserved_port

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "behind-a-proxy.md"

_AROUND = """\
daemon off;
master_process off;
error_log stderr warn;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {documented}
}}
"""


@dataclass
class Proxied:
    """A server behind nginx.

    :param port: where nginx listens.
    """

    port: int
    root: x509.Certificate

    async def post(
        self, operation: Operation, request: bytes, credentials: LocalCredentials | None
    ) -> x509.Certificate:
        connector = HttpsConnector("localhost", self.port)
        anchors = TrustAnchors({AnchorSet.EXPLICIT: (self.root,)})
        connection = await connector.connect(credentials=credentials, anchors=anchors)
        try:
            answer = await connection.request(EstRequest(operation, Transport.HTTPS, None, request))
        finally:
            await connection.close()
        assert isinstance(answer, CertificatesResponse)
        return answer.certificates[0]

    async def linked(self, key_name: str, credentials: LocalCredentials | None) -> None:
        """Send a request that is linked to the channel to nginx."""
        connector = HttpsConnector("localhost", self.port)
        anchors = TrustAnchors({AnchorSet.EXPLICIT: (self.root,)})
        connection = await connector.connect(credentials=credentials, anchors=anchors)
        binding = connection.server.channel_binding
        assert binding is not None
        request = pkcs10.build(make_key(key_name), make_name("x"), binding=binding).der
        try:
            await connection.request(
                EstRequest(Operation.SIMPLEENROLL, Transport.HTTPS, None, request)
            )
        finally:
            await connection.close()


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[Proxied]:
    program = find_peer("nginx")
    folder = tmp_path / "est"
    await command("init", str(folder), "--https-port", "0", "--coaps-port", "0")
    config = folder / "est-server.toml"
    config.write_text(
        config.read_text()
        + '\n[proxy]\nlisten = "127.0.0.1"\nport = 0\nclient_address_header = "X-Real-IP"\n'
    )
    key_hash = spki_sha256(make_key("device").public_key()).hex()
    (folder / "list.csv").write_text(f"udid,spki_sha256\nsensor-1,{key_hash}\n")
    listing = ("devices", "import", str(folder / "list.csv"), "--allow-unsigned")
    await command(*listing, "--config", str(config))
    root = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    async with EstServer.from_config(config) as server:
        assert server.proxy_address is not None
        with reserved_port() as port:
            async with running_nginx(program, tmp_path, folder, port, server.proxy_address):
                yield Proxied(port, root)


async def command(*arguments: str) -> None:
    """Run ``est-server``, which has an event loop of its own."""
    assert await asyncio.to_thread(main, arguments) == 0


@asynccontextmanager
async def running_nginx(
    program: str, folder: Path, est: Path, port: int, upstream: str
) -> AsyncIterator[None]:
    """nginx with the page's configuration, but for its ports and files."""
    [documented] = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.S)
    for theirs, ours in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/est", str(est)),
        ("127.0.0.1:8080", upstream),
    ):
        assert theirs in documented
        documented = documented.replace(theirs, ours)
    file = folder / "nginx.conf"
    file.write_text(_AROUND.format(folder=folder, documented=documented))
    nginx = await asyncio.create_subprocess_exec(
        program, "-e", "stderr", "-p", str(folder), "-c", str(file)
    )
    try:
        await until_it_listens(nginx, port)
        yield
    finally:
        if nginx.returncode is None:
            nginx.terminate()
        await nginx.wait()


async def until_it_listens(nginx: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            assert nginx.returncode is None, "nginx did not start"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return


def request_of(key_name: str, subject: str = "x") -> bytes:
    return pkcs10.build(make_key(key_name), make_name(subject), binding=None).der


SELF_SIGNED = make_leaf(None, "device", key=make_key("device"))


@pytest.mark.conformance("HTTP-21")
async def test_a_device_enrolls_and_renews(proxied: Proxied) -> None:
    issued = await proxied.post(Operation.SIMPLEENROLL, request_of("device"), SELF_SIGNED)
    assert issued.subject == make_name("sensor-1")
    assert issued.not_valid_after_utc > datetime.now(UTC)
    operational = LocalCredentials(make_key("device"), (issued,))
    renewal = request_of("fresh", "sensor-1")
    renewed = await proxied.post(Operation.SIMPLEREENROLL, renewal, operational)
    assert spki_sha256(renewed.public_key()) == spki_sha256(make_key("fresh").public_key())


@pytest.mark.conformance("HTTP-22")
@pytest.mark.parametrize("credentials", [None, SELF_SIGNED], ids=["bare", "self-signed"])
async def test_a_request_that_is_linked_to_the_channel_is_refused(
    proxied: Proxied, credentials: LocalCredentials | None
) -> None:
    with pytest.raises(ServerRefused) as refusal:
        await proxied.linked("device", credentials)
    assert refusal.value.status == "403"
    assert "ends elsewhere" in refusal.value.explanation


@pytest.mark.conformance("HTTP-22")
async def test_our_client_is_told_not_to_link(
    proxied: Proxied,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The commands that the page names, and a timer's."""
    store = FileKeyStore(tmp_path / "store")
    (tmp_path / "device.key").write_bytes(key_to_pem(SELF_SIGNED.key))
    (tmp_path / "device.key").chmod(0o600)
    (tmp_path / "self.pem").write_bytes(chain_to_pem(SELF_SIGNED.chain))
    monkeypatch.chdir(tmp_path)
    common = ("--url", f"https://localhost:{proxied.port}", "--ca-cert", "est/ca.pem")
    for command in (
        ("enroll", "--key", "device.key", "--cert", "self.pem", "--out", "device.pem"),
        ("reenroll", "--key", "device.key", "--cert", "device.pem", "--out", "next.pem"),
        ("renew", "--store", "store", "--force"),
    ):
        if command[0] == "renew":
            chain = x509.load_pem_x509_certificates((tmp_path / "next.pem").read_bytes())
            await store.replace_identity(SELF_SIGNED.key, chain)
        assert await asyncio.to_thread(client, [*command, *common]) == 1
        assert "ends elsewhere" in capsys.readouterr().err
        assert await asyncio.to_thread(client, [*command, *common, "--no-pop-linking"]) == 0


async def test_an_unlisted_key_is_refused(proxied: Proxied) -> None:
    with pytest.raises(ServerRefused):
        await proxied.post(
            Operation.SIMPLEENROLL, request_of("other"), make_leaf(None, "x", key=make_key("other"))
        )


@pytest.mark.conformance("HTTP-21")
@pytest.mark.parametrize("own", [None, make_leaf(None, "x", key=make_key("other"))])
async def test_what_clients_say_of_themselves_is_removed(
    proxied: Proxied, own: LocalCredentials | None
) -> None:
    """The fields of the device that is listed, sent by somebody who has not its key."""
    fields = encode_chain(SELF_SIGNED.chain * 2)
    body = base64.encodebytes(request_of("device"))
    lines = [
        f"POST {WELL_KNOWN_PATH}/simpleenroll HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        "Content-Type: application/pkcs10",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    octets = "\r\n".join([*lines, "", ""]).encode() + body
    context: ssl.SSLContext = client_context(own)
    answer = await exchange(proxied.port, octets, context)
    assert answer.split(b" ")[1] == b"403"
