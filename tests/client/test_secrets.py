"""To whom a client tells its secrets, and how often."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes

from est_client import EstClient, HttpLogin, RetryPolicy, TrustDatabase
from est_client.bootstrap import CaFingerprint
from est_client.secrets import answer
from est_protocol import digest_authentication
from est_protocol.credentials import AnchorSet
from est_protocol.errors import (
    ChannelClosed,
    ConfigurationError,
    PeerNotTrusted,
    ServerRefused,
)
from est_protocol.http_authentication import (
    BasicCredentials,
    DigestAlgorithm,
    DigestCredentials,
    HttpCredentials,
)
from est_protocol.key_package import encode_private_key
from est_protocol.messages import EstRequest, EstResponse, GeneratedKeyResponse, Transport
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest, build
from est_protocol.secure_channel.context import LocalCredentials
from tests.client.memory import Handler, MemoryConnection, MemoryServer, grant, issue
from tests.pki import CLIENT_AUTH, make_ca, make_key, make_leaf, make_server

ROOT = make_ca("root")
CA = make_ca("issuing", ROOT)
TRUST = TrustDatabase(explicit=(ROOT.certificate,))
LOGIN = HttpLogin("alice", "s3cret")

BASIC = 'Basic realm="plant", charset="UTF-8"'
SHA_256 = 'Digest realm="plant", qop="auth-int, auth", algorithm=SHA-256, nonce="n", opaque="o"'
MD5 = 'Digest realm="plant", qop="auth", algorithm=MD5, nonce="n"'


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer(CA, make_server(CA))


def client_of(
    server: MemoryServer,
    *,
    trust: TrustDatabase | CaFingerprint = TRUST,
    login: HttpLogin | None = LOGIN,
    otp: str | None = None,
    over_implicit_trust: bool = False,
    keep: bool = False,
) -> EstClient:
    return EstClient(
        server,
        trust=trust,
        identity=LocalCredentials(make_key("device"), ()),
        http_credentials=login,
        otp_challenge=otp,
        secrets_over_implicit_trust=over_implicit_trust,
        keep_secrets=keep,
        retry=RetryPolicy(attempts=2, first_delay=0.0),
    )


def ask(*challenges: str) -> Handler:
    async def handler(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        raise ServerRefused("401", "who are you?", challenges=challenges)

    return handler


def told(server: MemoryServer) -> list[HttpCredentials | None]:
    """What every request for a certificate carried."""
    return [r.http_credentials for _, r in server.requests if r.operation.enrolls]


# -- What is answered -----------------------------------------------------------------------------


def chosen(login: HttpLogin, *challenges: str) -> HttpCredentials | None:
    return answer(challenges, login, method="POST", uri="/x", cnonce="c")


@pytest.mark.conformance("AUTH-06")
def test_the_strongest_challenge_is_answered() -> None:
    best = chosen(HttpLogin("alice", "s3cret", md5=True), BASIC, MD5, SHA_256)
    assert isinstance(best, DigestCredentials)
    assert best.algorithm is DigestAlgorithm.SHA_256
    assert best.opaque == "o"
    secret = digest_authentication.user_secret(DigestAlgorithm.SHA_256, "alice", "plant", "s3cret")
    assert digest_authentication.is_right(best, secret, method="POST")


@pytest.mark.conformance("AUTH-06")
def test_md5_is_answered_where_it_is_allowed_and_before_basic() -> None:
    assert chosen(LOGIN, MD5, BASIC) == BasicCredentials("alice", "s3cret")
    allowed = chosen(HttpLogin("alice", "s3cret", md5=True), f"{BASIC}, {MD5}")
    assert isinstance(allowed, DigestCredentials)
    assert allowed.algorithm is DigestAlgorithm.MD5


@pytest.mark.parametrize(
    "challenge",
    [
        MD5,
        'Digest realm="plant", qop="auth-int", algorithm=SHA-256, nonce="n"',
        'Digest qop="auth", algorithm=SHA-256, nonce="n"',
        'Digest realm="plant", algorithm=SHA-256, nonce="n"',
        'Digest realm="plant", qop="auth", algorithm=SHA-512-256, nonce="n"',
        "Negotiate",
        "!!!",
        "",
    ],
)
def test_what_cannot_be_answered(challenge: str) -> None:
    assert chosen(LOGIN, challenge) is None
    assert chosen(LOGIN, challenge, BASIC) is not None


def test_basic_is_not_answered_where_it_is_not_allowed() -> None:
    assert chosen(HttpLogin("alice", "s3cret", basic=False), BASIC) is None


@pytest.mark.parametrize(("user", "password"), [("a:b", "c"), ("a\n", "b"), ("a", "b\x00")])
def test_what_no_header_can_carry_is_refused_at_once(user: str, password: str) -> None:
    with pytest.raises(ConfigurationError):
        HttpLogin(user, password)


def test_no_password_is_shown() -> None:
    assert "s3cret" not in repr(LOGIN)


# -- To whom, and when ----------------------------------------------------------------------------


@pytest.mark.conformance("AUTH-13")
async def test_a_verified_server_that_asks_is_told_over_the_same_connection(
    server: MemoryServer,
) -> None:
    server.handlers = [ask(BASIC)]
    async with client_of(server) as client:
        await client.simpleenroll()
    assert told(server) == [None, BasicCredentials("alice", "s3cret")]
    assert len(server.connections) == 1


async def test_a_server_that_does_not_ask_is_not_told(server: MemoryServer) -> None:
    async with client_of(server) as client:
        await client.simpleenroll()
    assert told(server) == [None]


@pytest.mark.conformance("AUTH-11")
async def test_secrets_are_forgotten_after_the_first_enrollment(server: MemoryServer) -> None:
    server.handlers = [ask(BASIC), grant, ask(BASIC)]
    async with client_of(server, otp="n:s") as client:
        await client.simpleenroll()
        with pytest.raises(ServerRefused):
            await client.simpleenroll()
    assert told(server)[-1] is None
    secrets = [csr.challenges.otp_challenge for _, csr in server.enrollments]
    assert secrets == ["n:s", "n:s", None]


async def test_secrets_are_kept_for_renewals_where_that_is_wanted(server: MemoryServer) -> None:
    server.handlers = [ask(BASIC), grant, ask(BASIC), grant, grant]
    async with client_of(server, otp="n:s", keep=True) as client:
        client.identity = LocalCredentials(
            make_key("device"), client.chain_of(await client.simpleenroll())
        )
        await client.simplereenroll()
        await client.simplereenroll()
    said = BasicCredentials("alice", "s3cret")
    # The last renewal is not asked, and says nothing.
    assert told(server) == [None, said, None, said, None]
    assert {csr.challenges.otp_challenge for _, csr in server.enrollments} == {"n:s"}


async def test_a_certificate_renews_itself_where_nothing_else_is_wanted(
    server: MemoryServer,
) -> None:
    leaf = make_leaf(CA, "device", usage=CLIENT_AUTH)
    async with client_of(server, otp="n:s") as client:
        client.identity = leaf
        await client.simplereenroll()
    assert [csr.challenges.otp_challenge for _, csr in server.enrollments] == [None]


async def generate(connection: MemoryConnection, request: EstRequest) -> EstResponse:
    csr = CertificationRequest.decode(request.body)
    key = make_key("device")
    certificate = issue(CA, build(key, csr.subject))
    return GeneratedKeyResponse((certificate,), encode_private_key(key), protected=False)


async def test_secrets_are_told_for_a_generated_key_and_then_forgotten(
    server: MemoryServer,
) -> None:
    server.handlers = [ask(BASIC), generate, ask(BASIC)]
    async with client_of(server, otp="n:s") as client:
        await client.serverkeygen(encrypted=False)
        with pytest.raises(ServerRefused):
            await client.serverkeygen(encrypted=False)
    assert told(server) == [None, BasicCredentials("alice", "s3cret"), None]
    requests = [r for _, r in server.requests if r.operation is Operation.SERVERKEYGEN]
    challenges = [CertificationRequest.decode(r.body).challenges for r in requests]
    assert [c.otp_challenge for c in challenges] == ["n:s", "n:s", None]


async def test_secrets_outlive_a_lost_answer(server: MemoryServer) -> None:
    async def lose(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        raise ChannelClosed("gone")

    server.handlers = [ask(SHA_256), lose, ask(SHA_256)]
    async with client_of(server, otp="n:s") as client:
        await client.simpleenroll()
    # The nonce of the connection that was lost is tried once, and then the new one.
    assert [bool(credentials) for credentials in told(server)] == [False, True, True, True]
    assert len({str(credentials) for credentials in told(server)[1:]}) == 3
    assert {csr.challenges.otp_challenge for _, csr in server.enrollments} == {"n:s"}


@pytest.mark.parametrize("login", [None, LOGIN])
@pytest.mark.conformance("AUTH-08")
async def test_a_question_without_an_answer_ends_the_connection(
    server: MemoryServer, login: HttpLogin | None
) -> None:
    server.handlers = [ask(MD5)]
    async with client_of(server, login=login) as client:
        with pytest.raises(ServerRefused):
            await client.simpleenroll()
        assert all(connection.closed for connection in server.connections)


@pytest.mark.conformance("AUTH-08")
async def test_wrong_credentials_are_not_repeated(server: MemoryServer) -> None:
    server.handlers = [ask(BASIC, SHA_256), ask(BASIC, SHA_256)]
    async with client_of(server) as client:
        with pytest.raises(ServerRefused):
            await client.simpleenroll()
    assert len(told(server)) == 2
    assert all(connection.closed for connection in server.connections)


async def test_a_stale_nonce_is_answered_again(server: MemoryServer) -> None:
    server.handlers = [ask(SHA_256), ask(SHA_256.replace('"n"', '"m"') + ", stale=true")]
    async with client_of(server) as client:
        await client.simpleenroll()
    nonces = [c.nonce for c in told(server) if isinstance(c, DigestCredentials)]
    assert nonces == ["n", "m"]


async def test_a_server_that_calls_every_nonce_stale_is_not_answered_for_ever(
    server: MemoryServer,
) -> None:
    server.handlers = [ask(SHA_256 + ", stale=true")] * 100
    async with client_of(server) as client:
        with pytest.raises(ServerRefused):
            await client.simpleenroll()
    assert len(told(server)) == 4


@pytest.mark.parametrize("otp", [None, "n:s"])
@pytest.mark.conformance("AUTH-12", "TLS-07")
async def test_a_server_of_an_implicit_anchor_is_told_nothing(
    server: MemoryServer, otp: str | None
) -> None:
    server.handlers = [ask(BASIC)]
    trust = TrustDatabase(implicit=(ROOT.certificate,))
    async with client_of(server, trust=trust, otp=otp) as client:
        with pytest.raises(PeerNotTrusted, match="Explicit"):
            await client.simpleenroll()
        assert client.verified_by is AnchorSet.IMPLICIT
        assert not any(told(server))
        assert all(csr.challenges.otp_challenge is None for _, csr in server.enrollments)
        assert all(connection.closed for connection in server.connections)


async def test_unless_it_is_wanted(server: MemoryServer) -> None:
    server.handlers = [ask(BASIC)]
    trust = TrustDatabase(implicit=(ROOT.certificate,))
    async with client_of(server, trust=trust, over_implicit_trust=True) as client:
        await client.simpleenroll()
    assert told(server)[-1] is not None


@pytest.mark.conformance("AUTH-09", "CL-04")
async def test_the_provisional_connection_is_told_nothing(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        raise ServerRefused("401", "who are you?", challenges=(BASIC, SHA_256))

    monkeypatch.setattr(server, "answer", refuse)
    fingerprint = CaFingerprint(ROOT.certificate.fingerprint(hashes.SHA256()))
    async with client_of(server, trust=fingerprint, otp="n:s") as client:
        with pytest.raises(ServerRefused):
            await client.simpleenroll()
    ((connection, request),) = server.requests
    assert connection.provisional
    assert connection.closed
    assert request == EstRequest(Operation.CACERTS, Transport.HTTPS)


async def test_a_renewal_carries_no_one_time_secret(server: MemoryServer) -> None:
    async with client_of(server) as client:
        certificate = await client.simpleenroll()
        identity = LocalCredentials(make_key("device"), client.chain_of(certificate))
    async with client_of(server, otp="n:s") as client:
        client.identity = identity
        await client.simplereenroll()
    assert server.enrollments[-1][1].challenges.otp_challenge is None


def ask_and_end(*challenges: str) -> list[Handler]:
    """A server that asks, and ends the connection without having announced it."""

    async def end(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        raise ChannelClosed("the server has gone")

    return [ask(*challenges), end]


@pytest.mark.conformance("POP-02", "AUTH-06")
async def test_a_server_that_ends_the_connection_after_asking_is_told_over_a_new_one(
    server: MemoryServer,
) -> None:
    server.handlers = ask_and_end(BASIC)
    async with client_of(server) as client:
        await client.simpleenroll()
    first, second = server.connections
    assert first.closed
    assert [request.http_credentials for request in second.requests] == [
        BasicCredentials("alice", "s3cret")
    ]
    # The request is linked to the channel that it went over.
    (_, asked), (_, told_in_vain), (_, told_anew) = server.enrollments
    assert asked.challenges.challenge_password == told_in_vain.challenges.challenge_password
    assert told_anew.challenges.challenge_password != asked.challenges.challenge_password


async def test_a_server_that_always_ends_the_connection_is_a_lost_one(
    server: MemoryServer,
) -> None:
    asks, ends = ask_and_end(BASIC)
    server.handlers = [asks, ends, ends] * 2
    async with client_of(server) as client:
        with pytest.raises(ChannelClosed):
            await client.simpleenroll()
    # Each of the two attempts asks anonymously, tells, and tells once more.
    assert [
        sum(request.operation.enrolls for request in connection.requests)
        for connection in server.connections
    ] == [2, 1, 2, 1]


@pytest.mark.parametrize(("challenge", "connections"), [(BASIC, 2), (SHA_256, 3)])
async def test_a_wrong_password_is_told_no_more_often_than_that(
    server: MemoryServer, challenge: str, connections: int
) -> None:
    server.handlers = [*ask_and_end(challenge), ask(challenge), ask(challenge)]
    async with client_of(server) as client:
        with pytest.raises(ServerRefused):
            await client.simpleenroll()
    assert len(server.connections) == connections
