"""HTTP authentication and one-time secrets, over the wire and from both ends."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_client import EstClient, HttpLogin, TrustDatabase
from est_protocol import base64_body, certs_only, pkcs10
from est_protocol.csr_wishes import CsrWishes
from est_protocol.errors import ConfigurationError, ServerRefused
from est_protocol.http_authentication import DigestAlgorithm
from est_protocol.operations import WELL_KNOWN_PATH
from est_protocol.secure_channel.context import LocalCredentials
from est_server.authorization.http_user import AnyDevice, HttpUserAuthorizer
from est_server.coaps.server import CoapsEndpoint
from est_server.coaps.server import serve as serve_coaps
from est_server.https import HttpsEndpoint, est_application
from est_server.https import serve as serve_https
from est_server.user_credentials import HttpAuthentication
from tests.pki import make_key, make_name, make_server
from tests.server.users import CA, Clerk, Users, clerk

TRUST = TrustDatabase(explicit=CA.issuers)
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@asynccontextmanager
async def https(server: Clerk) -> AsyncIterator[str]:
    app = web.Application()
    app.add_subapp(WELL_KNOWN_PATH, est_application(server.service))
    endpoint = HttpsEndpoint(make_server(CA), port=0)
    async with await serve_https(app, endpoint) as listening:
        yield f"https://localhost:{listening.port}"


@asynccontextmanager
async def with_users(
    directory: Path, *digest: DigestAlgorithm, basic: bool = True
) -> AsyncIterator[tuple[Clerk, str]]:
    """A server whose user alice may enroll any listed device; ``device`` is one."""
    users = Users()
    policy = HttpAuthentication(users, basic=basic, digest=digest)
    async with clerk(directory, http=policy) as server:
        server.use(HttpUserAuthorizer(server.store, users, {"alice": AnyDevice.LISTED}))
        await server.list_device("device")
        async with https(server) as url:
            yield server, url


def client_of(url: str, **secrets: object) -> EstClient:
    identity = LocalCredentials(make_key("device"), ())
    return EstClient(url, trust=TRUST, identity=identity, **secrets)  # type: ignore[arg-type]


# -- Our client ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digest", "basic"),
    [((), True), ((DigestAlgorithm.SHA_256,), False), ((DigestAlgorithm.MD5,), False)],
)
@pytest.mark.conformance("AUTH-06", "TLS-10")
async def test_our_client_answers(
    tmp_path: Path, digest: tuple[DigestAlgorithm, ...], basic: bool
) -> None:
    async with with_users(tmp_path, *digest, basic=basic) as (_, url):
        login = HttpLogin("alice", "s3cret \u00fc", md5=True)
        async with client_of(url, http_credentials=login, pop_linking=False) as client:
            certificate = await client.simpleenroll()
    assert certificate.subject.rfc4514_string() == "CN=udid-device"


async def test_our_client_with_a_wrong_password_is_told_so(tmp_path: Path) -> None:
    async with with_users(tmp_path, DigestAlgorithm.SHA_256) as (_, url):
        login = HttpLogin("alice", "hunter2")
        async with client_of(url, http_credentials=login, pop_linking=False) as client:
            with pytest.raises(ServerRefused) as refused:
                await client.simpleenroll()
    assert refused.value.status == "401"
    assert refused.value.explanation == "the HTTP credentials are wrong"


async def test_a_one_time_secret_over_coaps_and_https(tmp_path: Path) -> None:
    async with clerk(tmp_path, otp=True) as server:
        await server.list_device("device")
        await server.add_secret("batch", "open sesame")
        endpoint = CoapsEndpoint(make_server(CA), port=0)
        async with await serve_coaps(server.service, endpoint) as listening:
            url = f"coaps://127.0.0.1:{listening.port}"
            async with client_of(url, otp_challenge="batch:open barley") as client:
                with pytest.raises(ServerRefused, match=r"4\.03"):
                    await client.simpleenroll()
            async with client_of(url, otp_challenge="batch:open sesame") as client:
                certificate = await client.simpleenroll()
        assert certificate.subject.rfc4514_string() == "CN=udid-device"
        secret = await server.store.find_secret("batch")
        assert secret is not None
        assert secret.uses == 1


@pytest.mark.conformance("POP-18")
async def test_a_server_may_ask_for_a_one_time_secret_and_for_linking(tmp_path: Path) -> None:
    wishes = CsrWishes(otp_challenge=True, identity_linking=True)
    async with clerk(tmp_path, otp=True, wishes=wishes) as server:
        await server.list_device("device")
        await server.add_secret("batch", "open sesame")
        async with https(server) as url:
            async with client_of(url, otp_challenge="batch:open sesame") as client:
                await client.simpleenroll(follow_csr_attributes=True)
            async with client_of(url) as client:
                with pytest.raises(ConfigurationError, match="one-time secret"):
                    await client.simpleenroll(follow_csr_attributes=True)
                with pytest.raises(ServerRefused, match="400"):
                    await client.simpleenroll()


# -- curl ------------------------------------------------------------------------------------------


async def curl(
    directory: Path, url: str, *options: str, linked: bool = False
) -> tuple[str, bytes, list[str]]:
    """The last status, the last body, and every WWW-Authenticate that was seen."""
    csr = pkcs10.build(make_key("device"), make_name("a wish"))
    ca, body, out = directory / "ca.pem", directory / "csr.b64", directory / "out.b64"
    await asyncio.to_thread(ca.write_bytes, CA.issuers[0].public_bytes(Encoding.PEM))
    await asyncio.to_thread(body.write_bytes, base64_body.encode(csr.der))
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--cacert", str(ca), "--max-time", "20"),
        *("--header", "Content-Type: application/pkcs10", "--data-binary", f"@{body}"),
        *("--dump-header", "-", "--output", str(out), *options),
        f"{url}{WELL_KNOWN_PATH}/simpleenroll",
        stdout=asyncio.subprocess.PIPE,
    )
    octets, _ = await process.communicate()
    headers = octets.decode()
    statuses = re.findall(r"HTTP/1\.1 (\d+)", headers)
    challenges = re.findall(r"(?im)^www-authenticate: (.*?)\r$", headers)
    return statuses[-1], await asyncio.to_thread(out.read_bytes), challenges


def certificate_in(body: bytes) -> x509.Certificate:
    (certificate,) = certs_only.decode(base64_body.decode(body))
    return certificate


@needs_curl
@pytest.mark.parametrize(
    ("options", "digest"),
    [
        (("--basic",), ()),
        (("--digest",), (DigestAlgorithm.SHA_256,)),
        (("--digest",), (DigestAlgorithm.MD5,)),
        (("--anyauth",), (DigestAlgorithm.SHA_256,)),
    ],
)
@pytest.mark.conformance("AUTH-04", "AUTH-07")
async def test_curl_enrolls(
    tmp_path: Path, options: tuple[str, ...], digest: tuple[DigestAlgorithm, ...]
) -> None:
    async with with_users(tmp_path, *digest) as (_, url):
        status, body, _ = await curl(tmp_path, url, *options, "--user", "alice:s3cret \u00fc")
    assert status == "200", body
    assert certificate_in(body).subject.rfc4514_string() == "CN=udid-device"


@needs_curl
@pytest.mark.parametrize(
    "options", [(), ("--basic", "--user", "alice:x"), ("--digest", "--user", "a:b")]
)
@pytest.mark.conformance("AUTH-07")
async def test_curl_is_asked(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with with_users(tmp_path, DigestAlgorithm.SHA_256) as (_, url):
        status, body, challenges = await curl(tmp_path, url, *options)
    assert status == "401"
    assert body.decode().isprintable() or body.endswith(b"\n")
    assert challenges[-1] == 'Basic realm="EST", charset="UTF-8"'
    assert challenges[-2].startswith('Digest realm="EST", qop="auth", algorithm=SHA-256, nonce="')


@needs_curl
@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Basic !",
        "Authorization: Digest x",
        'Authorization: Digest username="alice", realm="EST", nonce="n", uri="/elsewhere", '
        f'qop=auth, nc=00000001, cnonce="c", algorithm=SHA-256, response="{"0" * 64}"',
    ],
)
async def test_credentials_that_make_no_sense(tmp_path: Path, header: str) -> None:
    async with with_users(tmp_path, DigestAlgorithm.SHA_256) as (_, url):
        status, _, challenges = await curl(tmp_path, url, "--header", header)
    assert status == "400"
    assert not challenges


@needs_curl
async def test_two_sets_of_credentials_are_one_too_many(tmp_path: Path) -> None:
    async with with_users(tmp_path) as (_, url):
        twice = ("--header", "Authorization: Basic YTpi") * 2
        status, _, _ = await curl(tmp_path, url, *twice)
    assert status == "400"


@needs_curl
async def test_another_scheme_is_asked_for_ours(tmp_path: Path) -> None:
    async with with_users(tmp_path) as (_, url):
        status, _, challenges = await curl(tmp_path, url, "--oauth2-bearer", "token")
    assert status == "401"
    assert challenges


@needs_curl
async def test_no_more_guesses(tmp_path: Path) -> None:
    async with with_users(tmp_path) as (server, url):
        for _ in range(10):
            guesses = server.service._users._guesses
            async with guesses.guess("alice", "192.0.2.1", server.clock.now) as guess:
                guess.wrong = True
        status, body, _ = await curl(tmp_path, url, "--basic", "--user", "alice:s3cret \u00fc")
    assert status == "429"
    assert body == b"there were too many wrong credentials; try again later\n"
