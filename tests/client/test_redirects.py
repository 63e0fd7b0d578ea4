"""Redirects, followed over real TLS connections (RFC 7030 section 3.2.1)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_client.bootstrap import CaFingerprint
from est_client.client import EstClient
from est_client.https import HttpsConnector
from est_client.redirects import Origin, RedirectPolicy
from est_client.retry import RetryPolicy
from est_client.secrets import HttpLogin
from est_client.trust import TrustDatabase
from est_protocol import base64_body, certs_only
from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.errors import ConfigurationError, EstError, PeerNotTrusted, ServerRefused
from est_protocol.pkcs10 import CertificationRequest, build
from est_protocol.secure_channel.context import LocalCredentials
from tests.client.memory import issue
from tests.client.test_https import Said, http
from tests.foreign_tls import HOST, foreign_server
from tests.pki import SERVER_AUTH, make_ca, make_key, make_leaf, make_name, make_server

ROOT = make_ca("root")
CA = make_ca("issuing", ROOT)
STRANGER = make_ca("stranger")
TRUST = TrustDatabase(explicit=(ROOT.certificate,))
KEY = make_key("device")


class Server:
    """One server, and what it was asked; each answer is made when it is its turn."""

    def __init__(self, credentials: LocalCredentials | None = None) -> None:
        self.credentials = credentials or make_server(CA)
        self.said = Said()
        self.bindings: list[bytes] = []
        self.port = 0

    @property
    def paths(self) -> list[str]:
        return [line.split()[1] for line, _, _ in self.said.requests]

    @property
    def csrs(self) -> list[CertificationRequest]:
        return [
            CertificationRequest.decode(base64_body.decode(body))
            for line, _, body in self.said.requests
            if line.startswith("POST")
        ]

    def say(self, *answers: bytes) -> None:
        self.said.answers.extend(answers)

    def redirect(self, status: str, target: str, **headers: str) -> None:
        self.say(http(status, b"", None, headers={"Location": target, **headers}))

    def issue(self) -> None:
        """Answer the next request with a certificate for the key of its CSR."""
        csr = build(KEY, make_name("device"))
        self.say(http(body=base64_body.encode(certs_only.encode([issue(CA, csr)]))))

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unique = writer.get_extra_info("ssl_object").get_channel_binding("tls-unique")
        self.bindings.append(unique)
        await self.said(reader, writer)


@asynccontextmanager
async def serving(*servers: Server) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for server in servers:
            server.port = await stack.enter_async_context(
                foreign_server(server, server.credentials, version=ssl.TLSVersion.TLSv1_2)
            )
        yield


def client(server: Server, policy: RedirectPolicy | None = None, **options: Any) -> EstClient:
    given = {"trust": TRUST, "fetch_ca_certificates": False, "adopt_trust": False, **options}
    return EstClient(
        HttpsConnector(HOST, server.port, timeout=60.0),
        redirects=policy,
        retry=RetryPolicy(attempts=1),
        **given,
    )


def linked_to(csr: CertificationRequest, unique: bytes) -> bool:
    binding = ChannelBinding(ChannelBindingType.TLS_UNIQUE, unique)
    text = csr.challenges.challenge_password
    return text is not None and binding.matches(text)


@pytest.mark.conformance("STAT-08", "POP-13")
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_within_the_server_a_post_is_followed_unasked(status: str) -> None:
    server = Server()
    server.redirect(status, "/elsewhere/simpleenroll?shard=2")
    server.issue()
    async with serving(server), client(server) as est:
        certificate = await est.simpleenroll(key=KEY)
    assert certificate.public_key() == KEY.public_key()
    assert server.paths == ["/.well-known/est/simpleenroll", "/elsewhere/simpleenroll?shard=2"]
    assert all(linked_to(*pair) for pair in zip(server.csrs, server.bindings, strict=True))
    assert len(set(server.bindings)) == 2


@pytest.mark.conformance("STAT-08")
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 T", "308 P"])
async def test_within_the_server_a_get_is_followed_unasked(status: str) -> None:
    server = Server()
    async with serving(server), client(server) as est:
        server.redirect(status, f"https://{HOST}:{server.port}/cas", Connection="close")
        server.say(http(body=base64_body.encode(certs_only.encode([ROOT.certificate]))))
        assert await est.cacerts() == (ROOT.certificate,)
    assert server.paths == ["/.well-known/est/cacerts", "/cas"]


async def test_the_next_request_begins_where_the_caller_said() -> None:
    server = Server()
    cas = http(body=base64_body.encode(certs_only.encode([ROOT.certificate])))
    server.redirect("308 Permanent", "/cas")
    server.say(cas, cas)
    async with serving(server), client(server) as est:
        await est.cacerts()
        await est.cacerts()
    assert server.paths[-1] == "/.well-known/est/cacerts"


@pytest.mark.conformance("STAT-10")
@pytest.mark.parametrize("operation", ["cacerts", "simpleenroll"])
async def test_another_server_is_not_followed_unasked(operation: str) -> None:
    first, second = Server(), Server()
    async with serving(first, second), client(first) as est:
        first.redirect("307 Temporary", f"https://{HOST}:{second.port}/")
        ask = est.cacerts() if operation == "cacerts" else est.simpleenroll(key=KEY)
        with pytest.raises(ServerRefused, match=f"{second.port}/; that is another server"):
            await ask
    assert second.bindings == []


def agreed(*servers: Server) -> RedirectPolicy:
    return RedirectPolicy.allowing(*(f"{HOST}:{server.port}" for server in servers))


@pytest.mark.conformance("STAT-09", "STAT-10", "POP-13")
async def test_another_server_that_the_caller_agreed_to_gets_a_request_of_its_own() -> None:
    first, second = Server(), Server()
    second.issue()
    async with serving(first, second):
        first.redirect("307 Temporary", f"https://{HOST}:{second.port}/enroll")
        async with client(first, agreed(second)) as est:
            await est.simpleenroll(key=KEY)
            [sent], [resent] = first.csrs, second.csrs
            assert linked_to(sent, first.bindings[0])
            assert linked_to(resent, second.bindings[0])
            # The redirect was for that request only.
            first.say(http("403 Forbidden", b"no", "text/plain"))
            with pytest.raises(ServerRefused, match="403"):
                await est.simpleenroll(key=KEY)
    assert second.paths == ["/enroll"]


@pytest.mark.conformance("STAT-09", "AUTH-15")
@pytest.mark.parametrize(
    "credentials",
    [
        make_server(STRANGER),
        make_leaf(CA, "other.example", usage=SERVER_AUTH, names=(x509.DNSName("other.example"),)),
    ],
)
async def test_another_server_is_verified_like_the_first(credentials: LocalCredentials) -> None:
    first, second = Server(), Server(credentials)
    async with serving(first, second):
        first.redirect("307 Temporary", f"https://{HOST}:{second.port}/enroll")
        async with client(first, agreed(second)) as est:
            with pytest.raises(PeerNotTrusted):
                await est.simpleenroll(key=KEY)
    assert second.said.requests == []


@pytest.mark.conformance("AUTH-15")
async def test_a_name_is_checked_against_the_redirect_and_not_the_first_url() -> None:
    """Implicit trust: the second server would do under the first one's name."""
    first = Server()
    second = Server(
        make_leaf(CA, "h", usage=SERVER_AUTH, names=(x509.IPAddress(ip_address(HOST)),))
    )
    async with serving(first, second):
        first.redirect("307 Temporary", f"https://localhost:{second.port}/enroll")
        policy = RedirectPolicy.allowing(f"localhost:{second.port}")
        implicit = TrustDatabase(implicit=(ROOT.certificate,))
        async with client(first, policy, trust=implicit) as est:
            with pytest.raises(PeerNotTrusted, match="localhost"):
                await est.simpleenroll(key=KEY)


async def test_no_password_goes_to_another_server() -> None:
    first, second = Server(), Server()
    async with serving(first, second):
        first.redirect("307 Temporary", f"https://{HOST}:{second.port}/enroll")
        second.say(http("401 Who", b"", None, headers={"WWW-Authenticate": 'Basic realm="second"'}))
        login = HttpLogin("user", "secret")
        async with client(first, agreed(second), http_credentials=login) as est:
            with pytest.raises(PeerNotTrusted, match="secrets are not told"):
                await est.simpleenroll(key=KEY)
    assert all("Authorization" not in headers for _, headers, _ in second.said.requests)


async def test_no_one_time_secret_goes_to_another_server() -> None:
    first, second = Server(), Server()
    async with serving(first, second):
        first.redirect("307 Temporary", f"https://{HOST}:{second.port}/enroll")
        async with client(first, agreed(second), otp_challenge="name:secret") as est:
            with pytest.raises(PeerNotTrusted, match="secrets are not told"):
                await est.simpleenroll(key=KEY)
    assert second.said.requests == []


async def test_credentials_are_computed_for_the_new_path() -> None:
    server = Server()
    server.redirect("307 Temporary", "/enroll")
    challenge = 'Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256'
    server.say(http("401 Who", b"", None, headers={"WWW-Authenticate": challenge}))
    server.issue()
    async with serving(server), client(server, http_credentials=HttpLogin("user", "pw")) as est:
        await est.simpleenroll(key=KEY)
    assert 'uri="/enroll"' in server.said.requests[-1][1]["Authorization"]


@pytest.mark.conformance("STAT-11")
async def test_a_loop_ends() -> None:
    server = Server()
    for _ in range(6):
        server.redirect("302 Found", "/.well-known/est/cacerts")
    async with serving(server), client(server) as est:
        with pytest.raises(ServerRefused, match="no more than 5"):
            await est.cacerts()
    assert len(server.paths) == 6


@pytest.mark.conformance("STAT-11")
async def test_nothing_leads_out_of_https() -> None:
    server = Server()
    server.redirect("302 Found", f"http://{HOST}/.well-known/est/cacerts")
    async with serving(server), client(server) as est:
        with pytest.raises(EstError, match="only https"):
            await est.cacerts()


@pytest.mark.conformance("CA-15")
async def test_a_provisional_connection_follows_nothing() -> None:
    server = Server(make_server(STRANGER))
    server.redirect("302 Found", "/cas")
    fingerprint = CaFingerprint(ROOT.certificate.fingerprint(hashes.SHA256()))
    async with serving(server), client(server, trust=fingerprint) as est:
        with pytest.raises(ServerRefused, match="redirected to"):
            await est.cacerts()
    assert server.paths == ["/.well-known/est/cacerts"]


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("Other.Example.", Origin("other.example", 443)),
        ("other.example:8443", Origin("other.example", 8443)),
        ("[::1]:8443", Origin("::1", 8443)),
        ("[0:0::1]", Origin("::1", 443)),
    ],
)
def test_origins_as_people_write_them(text: str, origin: Origin) -> None:
    assert Origin.parse(text) == origin
    assert Origin.parse(str(origin)) == origin


@pytest.mark.parametrize(
    "text", ["", ":8443", "h:port", "h/path", "u@h", "https://h", "h?a", "h#a"]
)
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Origin.parse(text)
