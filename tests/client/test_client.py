"""What EstClient does, against a server in memory."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import est_client
from est_client.bootstrap import CaFingerprint
from est_client.client import EstClient
from est_client.retry import RetryPolicy
from est_client.self_signed import udid_name
from est_client.trust import TrustDatabase
from est_protocol.credentials import AnchorSet
from est_protocol.csr_attributes import NameAttributeTemplate
from est_protocol.csr_wishes import CsrWishes
from est_protocol.errors import (
    CertificateRejected,
    ChannelClosed,
    ConfigurationError,
    MessageError,
    PeerNotTrusted,
    ServerRefused,
    StillPending,
)
from est_protocol.keys import spki_der, spki_sha256
from est_protocol.messages import CertificatesResponse, EstRequest, EstResponse, Pending, Transport
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.secure_channel.context import LocalCredentials
from est_protocol.secure_channel.policy import TlsPolicy
from tests.client.memory import Handler, MemoryConnection, MemoryServer, grant, issue
from tests.pki import (
    CLIENT_AUTH,
    PRESENT,
    Ca,
    make_ca,
    make_key,
    make_leaf,
    make_name,
    make_server,
)

ROOT = make_ca("root")
CA = make_ca("issuing", ROOT)
TRUST = TrustDatabase(explicit=(ROOT.certificate,))


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer(CA, make_server(CA))


def bare_key(name: str = "device") -> LocalCredentials:
    return LocalCredentials(make_key(name), ())


def client_of(
    server: MemoryServer,
    time: FakeTime | None = None,
    *,
    trust: TrustDatabase | CaFingerprint = TRUST,
    identity: LocalCredentials | None = None,
    pop_linking: bool = True,
    present_bare_key: bool = False,
    adopt_trust: bool = True,
) -> EstClient:
    time = time or FakeTime()
    return EstClient(
        server,
        trust=trust,
        identity=identity or bare_key(),
        pop_linking=pop_linking,
        present_bare_key=present_bare_key,
        adopt_trust=adopt_trust,
        retry=RetryPolicy(attempts=3, first_delay=1.0, spread=0.0),
        sleep=time.sleep,
        monotonic=time.monotonic,
    )


async def lose_answer(connection: MemoryConnection, request: EstRequest) -> EstResponse:
    await grant(connection, request)
    raise ChannelClosed("gone")


def refuse(status: str, retry_after: int | None = None) -> Handler:
    async def handler(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        raise ServerRefused(status, "no", retry_after=retry_after)

    return handler


def put_off(seconds: int) -> Handler:
    async def handler(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        return Pending(seconds)

    return handler


@pytest.mark.conformance("POP-02", "SE-01", "CL-06", "POP-06")
@pytest.mark.parametrize("policy", [TlsPolicy(), None], ids=["TLS 1.3", "TLS 1.2"])
async def test_enrolls_a_bare_key_linked_to_its_channel(
    server: MemoryServer, policy: TlsPolicy | None
) -> None:
    server.policy = policy or server.policy
    async with client_of(server) as client:
        certificate = await client.simpleenroll()
    assert spki_der(certificate.public_key()) == spki_der(make_key("device").public_key())
    assert certificate.subject == udid_name(make_key("device").public_key())
    [(connection, csr)] = server.enrollments
    assert connection.client.chain == ()
    assert connection.client.channel_binding is not None
    assert (
        csr.challenges.challenge_password == connection.client.channel_binding.challenge_password()
    )
    assert connection.closed


async def test_pop_linking_can_be_left_out(server: MemoryServer) -> None:
    async with client_of(server, pop_linking=False) as client:
        await client.simpleenroll()
    [(_, csr)] = server.enrollments
    assert csr.challenges.challenge_password is None


@pytest.mark.conformance("TLS-16")
async def test_a_request_that_cannot_be_linked_is_not_sent(server: MemoryServer) -> None:
    server.options = 1  # SSL_OP_NO_EXTENDED_MASTER_SECRET, which pyOpenSSL does not name
    async with client_of(server) as client:
        with pytest.raises(PeerNotTrusted, match="RFC 7627"):
            await client.simpleenroll()
    assert server.enrollments == []
    async with client_of(server, pop_linking=False) as client:
        await client.simpleenroll()


@pytest.mark.conformance("SE-10", "CD-15", "CA-14")
async def test_gets_the_ca_certificates_before_it_enrolls_over_one_channel(
    server: MemoryServer,
) -> None:
    async with client_of(server) as client:
        await client.simpleenroll()
        assert client.authority is not None
        assert client.authority.all == (ROOT.certificate, CA.certificate)
    assert [r.operation for _, r in server.requests] == [Operation.CACERTS, Operation.SIMPLEENROLL]
    assert len(server.connections) == 1


async def test_asks_for_the_names_that_it_is_given(server: MemoryServer) -> None:
    subject = x509.Name.from_rfc4514_string("CN=pump 7,O=Example")
    names = (x509.DNSName("pump7.example"),)
    async with client_of(server) as client:
        await client.simpleenroll(subject=subject, subject_alt_names=names)
    [(_, csr)] = server.enrollments
    assert csr.subject == subject
    assert csr.subject_alt_names == names


@pytest.mark.conformance("SR-01", "SR-02", "TLS-08")
async def test_renewal_repeats_the_names_and_presents_the_certificate(server: MemoryServer) -> None:
    names = (x509.DNSName("pump7.example"), x509.DNSName("pump.example"))
    identity = make_leaf(CA, "pump 7", usage=CLIENT_AUTH, names=names)
    async with client_of(server, identity=identity) as client:
        certificate = await client.simplereenroll()
    [(connection, csr)] = server.enrollments
    assert connection.client.certificate == identity.chain[0]
    assert (csr.subject, csr.subject_alt_names) == (identity.chain[0].subject, names)
    assert client.identity is not None
    assert client.identity.chain == (certificate, CA.certificate)


async def test_rekey_goes_on_under_the_new_key(server: MemoryServer) -> None:
    identity = make_leaf(CA, "pump 7", usage=CLIENT_AUTH)
    new_key = make_key("pump 7, second key")
    async with client_of(server, identity=identity) as client:
        first = await client.simplereenroll(key=new_key)
        await client.simplereenroll()
    (before, _), (after, _) = server.enrollments
    assert before.client.certificate == identity.chain[0]
    assert after.client.certificate == first
    assert first.public_key() == new_key.public_key()


@pytest.mark.conformance("CL-09")
async def test_a_failed_renewal_keeps_the_old_identity(server: MemoryServer) -> None:
    identity = make_leaf(CA, "pump 7", usage=CLIENT_AUTH)
    server.handlers = [refuse("403")]
    async with client_of(server, identity=identity) as client:
        with pytest.raises(ServerRefused):
            await client.simplereenroll(key=make_key("other"))
        assert client.identity is identity


async def test_renewal_without_a_certificate_is_a_local_error(server: MemoryServer) -> None:
    async with client_of(server) as client:
        with pytest.raises(ConfigurationError):
            await client.simplereenroll()
    assert server.attempts == 0


@pytest.mark.conformance("POP-13", "STAT-06")
async def test_a_lost_answer_is_asked_for_again_over_a_new_channel(
    server: MemoryServer, time: FakeTime
) -> None:
    server.handlers = [lose_answer, lose_answer]
    async with client_of(server, time) as client:
        await client.simpleenroll()
    connections, requests = zip(*server.enrollments, strict=True)
    assert len({id(c) for c in connections}) == 3
    assert len({csr.challenges.challenge_password for csr in requests}) == 3
    assert {csr.key_sha256 for csr in requests} == {spki_sha256(make_key("device").public_key())}
    assert time.slept == [1.0, 2.0]


async def test_attempts_are_bounded(server: MemoryServer, time: FakeTime) -> None:
    server.handlers = [lose_answer] * 3
    async with client_of(server, time) as client:
        with pytest.raises(ChannelClosed):
            await client.simpleenroll()
    assert len(server.enrollments) == 3


async def test_an_absent_server_is_reported_at_once(time: FakeTime) -> None:
    class Absent(MemoryServer):
        async def connect(self, **_: object) -> MemoryConnection:
            self.attempts += 1
            raise ChannelClosed("connection refused")

    server = Absent(CA, make_server(CA))
    async with client_of(server, time) as client:
        with pytest.raises(ChannelClosed):
            await client.cacerts()
    assert (server.attempts, time.slept) == (1, [])


@pytest.mark.conformance("STAT-02", "STAT-04", "STAT-06", "CR-08")
@pytest.mark.parametrize("transport", Transport)
async def test_a_pending_request_is_repeated_after_the_time_that_the_server_says(
    server: MemoryServer, time: FakeTime, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "est_client")
    server.transport = transport
    server.handlers = [put_off(30), put_off(0)]
    async with client_of(server, time) as client:
        await client.simpleenroll(wait=60)
    assert time.slept == [30.0, 1.0]
    assert "asking again in 30.0 s" in caplog.text
    connections, requests = zip(*server.enrollments, strict=True)
    for connection, csr in server.enrollments:
        binding = connection.client.channel_binding
        assert binding is not None
        assert csr.challenges.challenge_password == binding.challenge_password()
    assert len({id(connection) for connection in connections}) == 3
    assert len({csr.key_sha256 for csr in requests}) == 1


async def test_waiting_for_a_pending_request_ends(server: MemoryServer, time: FakeTime) -> None:
    server.handlers = [put_off(30), put_off(30), put_off(30)]
    async with client_of(server, time) as client:
        with pytest.raises(StillPending) as raised:
            await client.simpleenroll(wait=70)
    assert raised.value.retry_after == 30
    assert time.slept == [30.0, 30.0]


YEARS = 2**32 - 1


@pytest.mark.parametrize("handler", [put_off(YEARS), refuse("503", YEARS)])
async def test_no_server_makes_a_client_wait_for_years(
    server: MemoryServer, time: FakeTime, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    server.handlers = [handler] * 2
    async with client_of(server, time) as client:
        with pytest.raises((StillPending, ServerRefused)) as raised:
            await client.simpleenroll(wait=86399)
        assert await client.simpleenroll(wait=86400)
    assert isinstance(raised.value, StillPending | ServerRefused)
    assert raised.value.retry_after == 86400
    assert time.slept == [86400.0]
    assert f"asked again in {YEARS} s; it will be after 86400 s already" in caplog.text


@pytest.mark.conformance("STAT-13")
async def test_a_busy_server_is_a_refusal_unless_there_is_time(
    server: MemoryServer, time: FakeTime
) -> None:
    server.handlers = [refuse("503", 5), refuse("503", 5)]
    async with client_of(server, time) as client:
        with pytest.raises(ServerRefused):
            await client.simpleenroll()
        await client.simpleenroll(wait=10)
    assert time.slept == [5.0]


async def test_a_refusal_is_final(server: MemoryServer, time: FakeTime) -> None:
    server.handlers = [refuse("403")]
    async with client_of(server, time) as client:
        with pytest.raises(ServerRefused, match="403"):
            await client.simpleenroll(wait=1000)
    assert time.slept == []


@pytest.mark.conformance("AUTH-08")
async def test_a_challenge_that_nobody_can_answer_ends_the_connection(server: MemoryServer) -> None:
    server.handlers = [refuse("401")]
    async with client_of(server) as client:
        with pytest.raises(ServerRefused, match="401"):
            await client.simpleenroll()
        assert server.connections[0].closed


@pytest.mark.conformance("SE-04")
async def test_the_leaf_is_found_by_its_key_among_the_chain(server: MemoryServer) -> None:
    async def with_chain(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        leaf = issue(CA, CertificationRequest.decode(request.body))
        return CertificatesResponse((ROOT.certificate, CA.certificate, leaf))

    server.handlers = [with_chain]
    async with client_of(server) as client:
        certificate = await client.simpleenroll()
    assert certificate.public_key() == make_key("device").public_key()


@pytest.mark.conformance("CL-08")
async def test_a_certificate_for_another_key_is_rejected(server: MemoryServer) -> None:
    other = make_leaf(CA, "somebody else").chain[0]

    async def wrong(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        return CertificatesResponse((other,))

    server.handlers = [wrong]
    async with client_of(server) as client:
        with pytest.raises(CertificateRejected):
            await client.simpleenroll()


@pytest.mark.conformance("CL-08")
async def test_a_certificate_of_another_ca_is_rejected(server: MemoryServer) -> None:
    # Same name, another key: only the signature tells them apart.
    foreign = Ca(ec.generate_private_key(ec.SECP256R1()), CA.certificate)

    async def wrong(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        return CertificatesResponse((issue(foreign, CertificationRequest.decode(request.body)),))

    identity = make_leaf(CA, "pump 7", usage=CLIENT_AUTH)
    server.handlers = [wrong]
    async with client_of(server, identity=identity) as client:
        with pytest.raises(CertificateRejected):
            await client.simplereenroll(key=make_key("other"))
        assert client.identity is identity


@pytest.mark.conformance("AUTH-13", "TLS-03")
async def test_an_untrusted_server_gets_no_request(server: MemoryServer) -> None:
    trust = TrustDatabase(explicit=(make_ca("somebody").certificate,))
    async with client_of(server, trust=trust) as client:
        with pytest.raises(PeerNotTrusted):
            await client.simpleenroll()
    assert server.requests == []


@pytest.mark.conformance("CD-08")
async def test_a_client_without_anchors_does_not_connect(server: MemoryServer) -> None:
    async with client_of(server, trust=TrustDatabase()) as client:
        with pytest.raises(ConfigurationError):
            await client.cacerts()
    assert server.attempts == 0


@pytest.mark.conformance("AUTH-13", "AUTH-14")
async def test_a_server_of_another_name_gets_no_request(server: MemoryServer) -> None:
    server.host = "other.example"
    async with client_of(server) as client:
        with pytest.raises(PeerNotTrusted, match=r"other\.example"):
            await client.cacerts()
    assert server.requests == []
    assert server.connections[0].closed


@pytest.mark.conformance("CA-11", "CA-12")
async def test_cacerts_makes_the_database_explicit(server: MemoryServer) -> None:
    web = make_ca("web PKI")
    trust = TrustDatabase(implicit=(ROOT.certificate, web.certificate))
    async with client_of(server, trust=trust) as client:
        await client.cacerts()
        assert client.trust is not None
        assert client.trust == TRUST
        await client.close()
        await client.cacerts()
        databases = [connection.server.anchor_set for connection in server.connections]
        assert databases == [AnchorSet.IMPLICIT, AnchorSet.EXPLICIT]
        # A certificate of whom it trusted before, for the same name, is worth nothing now.
        server.credentials = make_server(web)
        await client.close()
        with pytest.raises(PeerNotTrusted):
            await client.cacerts()


@pytest.mark.conformance("CA-08")
async def test_a_roll_over_of_the_root_needs_nobodys_help(server: MemoryServer) -> None:
    old, new = make_ca("old root"), make_ca("new root")
    name = old.certificate.subject
    old_ca, new_ca = Ca(old.key, old.certificate), Ca(new.key, self_issue(name, new, new, days=9))
    old_with_new, new_with_old = self_issue(name, old, new), self_issue(name, new, old)
    server.ca_certificates = [
        old_ca.certificate,
        old_with_new,
        new_with_old,
        new_ca.certificate,
    ]
    server.ca = old_ca
    server.credentials = make_server(old_ca)
    trust = TrustDatabase(explicit=(old_ca.certificate,))
    async with client_of(server, trust=trust) as client:
        await client.simpleenroll()
        assert client.trust is not None
        assert client.trust.explicit == (new_ca.certificate, old_with_new)
        # Before the server itself has changed over, and after.
        for authority in (old_ca, new_ca):
            await client.close()
            server.ca = authority
            server.credentials = make_server(authority)
            await client.simpleenroll()
        # The old key is worth nothing once the new one does not vouch for it any more.
        server.ca_certificates = [new_ca.certificate]
        await client.cacerts()
        await client.close()
        server.credentials = make_server(old_ca)
        with pytest.raises(PeerNotTrusted):
            await client.cacerts()


@pytest.mark.conformance("CA-11")
async def test_a_server_of_another_ca_than_it_names_is_still_known_afterwards(
    server: MemoryServer,
) -> None:
    other = make_ca("the server's own root")
    server.credentials = make_server(other)
    trust = TrustDatabase(explicit=(other.certificate,))
    async with client_of(server, trust=trust) as client:
        await client.simpleenroll()
        assert client.trust == TrustDatabase(explicit=(ROOT.certificate, other.certificate))
        await client.close()
        await client.simpleenroll()
        # Once the server is of its own CA, the other one goes.
        server.credentials = make_server(CA)
        await client.close()
        await client.cacerts()
        assert client.trust == TRUST


@pytest.mark.conformance("CA-12")
async def test_a_server_that_could_not_be_verified_again_is_refused(server: MemoryServer) -> None:
    other = make_ca("web PKI")
    server.credentials = make_server(other)
    trust = TrustDatabase(implicit=(other.certificate,))
    async with client_of(server, trust=trust) as client:
        with pytest.raises(PeerNotTrusted, match="not one of the CA"):
            await client.simpleenroll()
        assert client.trust == trust
    assert not server.enrollments
    async with client_of(server, trust=trust, adopt_trust=False) as client:
        await client.simpleenroll()


def self_issue(name: x509.Name, subject: Ca, issuer: Ca, *, days: int = 1) -> x509.Certificate:
    """A certificate of one key of a CA by another one of its keys."""
    key = subject.key.public_key()
    issuer_key = issuer.key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(PRESENT - timedelta(hours=1))
        .not_valid_after(PRESENT + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
        )
        .sign(issuer.key, hashes.SHA256())
    )


@pytest.mark.conformance("CL-01", "CL-03")
async def test_bootstrap_trusts_the_designated_ca_over_a_new_connection(
    server: MemoryServer,
) -> None:
    fingerprint = CaFingerprint(ROOT.certificate.fingerprint(hashes.SHA256()))
    async with client_of(server, trust=fingerprint) as client:
        await client.simpleenroll()
    provisional, verified = server.connections
    assert provisional.provisional
    assert provisional.closed
    assert [r.operation for r in provisional.requests] == [Operation.CACERTS]
    assert provisional.client.chain == ()
    assert not verified.provisional
    assert verified.server.anchor_set is AnchorSet.EXPLICIT


@pytest.mark.conformance("CL-02", "CA-15")
async def test_bootstrap_with_another_fingerprint_ends_there(server: MemoryServer) -> None:
    async with client_of(server, trust=CaFingerprint(bytes(32))) as client:
        with pytest.raises(PeerNotTrusted):
            await client.simpleenroll()
    assert len(server.connections) == 1
    assert server.enrollments == []


@pytest.mark.conformance("CL-02")
async def test_bootstrap_by_the_fingerprint_of_a_leaf_is_refused(server: MemoryServer) -> None:
    leaf = server.credentials.chain[0]
    server.ca_certificates = (ROOT.certificate, CA.certificate, leaf)
    fingerprint = CaFingerprint(leaf.fingerprint(hashes.SHA256()))
    async with client_of(server, trust=fingerprint) as client:
        with pytest.raises(PeerNotTrusted):
            await client.cacerts()


async def test_bootstrap_still_wants_the_name(server: MemoryServer) -> None:
    server.host = "other.example"
    fingerprint = CaFingerprint(ROOT.certificate.fingerprint(hashes.SHA256()))
    async with client_of(server, trust=fingerprint) as client:
        with pytest.raises(PeerNotTrusted):
            await client.simpleenroll()
    assert server.enrollments == []


def coaps(server: MemoryServer, *, send_root: bool = False) -> MemoryServer:
    server.transport = Transport.COAPS
    if send_root:
        server.credentials = LocalCredentials(
            server.credentials.key, (*server.credentials.chain, ROOT.certificate)
        )
    return server


async def test_coaps_presents_a_self_signed_certificate_for_a_bare_key(
    server: MemoryServer,
) -> None:
    async with client_of(coaps(server)) as client:
        await client.simpleenroll()
    [(connection, _)] = server.enrollments
    certificate = connection.client.certificate
    assert certificate is not None
    assert certificate.subject == certificate.issuer == udid_name(make_key("device").public_key())
    assert connection.client.key_sha256 == spki_sha256(make_key("device").public_key())


async def test_https_presents_it_when_asked_to(server: MemoryServer) -> None:
    async with client_of(server, present_bare_key=True) as client:
        await client.simpleenroll(key=make_key("other"))
    [(connection, csr)] = server.enrollments
    assert connection.client.key_sha256 == spki_sha256(make_key("device").public_key())
    assert csr.key_sha256 == spki_sha256(make_key("other").public_key())


async def test_coaps_bootstrap_requests_nothing_before_the_server_is_verified(
    server: MemoryServer,
) -> None:
    fingerprint = CaFingerprint(ROOT.certificate.fingerprint(hashes.SHA256()))
    async with client_of(coaps(server, send_root=True), trust=fingerprint) as client:
        await client.simpleenroll()
    provisional, verified = server.connections
    assert provisional.requests == []
    assert provisional.closed
    assert len(verified.requests) == 2


@pytest.mark.parametrize("send_root", [True, False])
async def test_coaps_bootstrap_needs_the_designated_ca_in_the_handshake(
    server: MemoryServer, send_root: bool
) -> None:
    named = make_ca("somebody").certificate if send_root else ROOT.certificate
    fingerprint = CaFingerprint(named.fingerprint(hashes.SHA256()))
    async with client_of(coaps(server, send_root=send_root), trust=fingerprint) as client:
        with pytest.raises(PeerNotTrusted):
            await client.cacerts()
    assert len(server.connections) == 1
    assert server.connections[0].closed
    assert server.requests == []


async def test_coaps_bootstrap_is_not_fooled_by_a_certificate_along_the_chain() -> None:
    # The designated CA certificate is public: showing it is no proof of having been issued by it.
    rogue = make_server(make_ca("rogue"))
    server = MemoryServer(CA, LocalCredentials(rogue.key, (*rogue.chain, ROOT.certificate)))
    fingerprint = CaFingerprint(ROOT.certificate.fingerprint(hashes.SHA256()))
    async with client_of(coaps(server), trust=fingerprint) as client:
        with pytest.raises(PeerNotTrusted):
            await client.cacerts()
    assert server.requests == []


@pytest.mark.conformance("CD-17", "CD-18", "CD-19")
async def test_coaps_session_ends_if_the_server_is_outside_the_new_trust_anchor(
    server: MemoryServer,
) -> None:
    server.ca_certificates = (make_ca("new root").certificate,)
    async with client_of(coaps(server)) as client:
        with pytest.raises(PeerNotTrusted):
            await client.simpleenroll()
        assert server.connections[0].closed
        with pytest.raises(PeerNotTrusted):
            await client.cacerts()
    assert server.enrollments == []


async def test_trust_stays_as_configured_when_it_is_not_to_be_adopted(server: MemoryServer) -> None:
    server.ca_certificates = (make_ca("new root").certificate,)
    async with client_of(coaps(server), adopt_trust=False) as client:
        assert await client.cacerts() == tuple(server.ca_certificates)
        assert client.trust == TRUST
        await client.cacerts()


@pytest.mark.conformance("HTTP-01", "CL-07")
async def test_a_url_will_do() -> None:
    trust = TrustDatabase(explicit=(ROOT.certificate,))
    async with EstClient("https://localhost:1/.well-known/est/a", trust=trust) as client:
        assert client.trust == trust
    with pytest.raises(ConfigurationError):
        EstClient("https://localhost/.well-known/est/a", trust=trust, label="b")
    with pytest.raises(ConfigurationError):
        EstClient("http://localhost", trust=trust)


async def test_nothing_to_certify_is_a_local_error(server: MemoryServer) -> None:
    async with EstClient(server, trust=TRUST) as client:
        with pytest.raises(ConfigurationError):
            await client.simpleenroll()
    assert server.attempts == 0


@pytest.mark.conformance("CD-06")
async def test_coaps_needs_a_key(server: MemoryServer) -> None:
    async with EstClient(coaps(server), trust=TRUST) as client:
        with pytest.raises(ConfigurationError, match="9148"):
            await client.cacerts()
    assert server.attempts == 0


@pytest.mark.conformance("CA-02")
async def test_bootstrap_does_not_wait_for_anybody(server: MemoryServer) -> None:
    class Lazy(MemoryServer):
        async def answer(self, connection: MemoryConnection, request: EstRequest) -> EstResponse:
            return Pending(5)

    lazy = Lazy(CA, make_server(CA))
    fingerprint = CaFingerprint(ROOT.certificate.fingerprint(hashes.SHA256()))
    async with client_of(lazy, trust=fingerprint) as client:
        with pytest.raises(MessageError):
            await client.cacerts()
    assert lazy.connections[0].closed


@pytest.mark.parametrize("text", ["", "ab" * 31, "xy" * 32, "ab" * 33, "sha256:" + "ab" * 32])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ConfigurationError):
        CaFingerprint.parse(text)


@pytest.mark.parametrize("text", ["aB" * 32, ":".join(["Ab"] * 32), " ".join(["aB"] * 32)])
def test_how_a_fingerprint_may_be_written(text: str) -> None:
    assert CaFingerprint.parse(text).sha256 == b"\xab" * 32


async def test_the_newest_of_several_certificates_for_the_key_counts(server: MemoryServer) -> None:
    older = make_leaf(CA, "device", not_before=PRESENT - timedelta(minutes=30)).chain[0]
    newest = make_leaf(CA, "device", not_before=PRESENT - timedelta(minutes=1)).chain[0]

    async def both(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        return CertificatesResponse((newest, older))

    server.handlers = [both]
    async with client_of(server) as client:
        assert await client.simpleenroll() == newest


@pytest.mark.conformance("CL-08")
async def test_an_expired_certificate_is_rejected(server: MemoryServer) -> None:
    expired = make_leaf(CA, "device", not_after=PRESENT - timedelta(minutes=1)).chain[0]

    async def stale(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        return CertificatesResponse((expired,))

    server.handlers = [stale]
    async with client_of(server) as client:
        with pytest.raises(CertificateRejected, match="expired"):
            await client.simpleenroll()


async def test_without_the_ca_certificates_only_the_key_is_verified(server: MemoryServer) -> None:
    client = EstClient(server, trust=TRUST, identity=bare_key(), fetch_ca_certificates=False)
    async with client:
        certificate = await client.simpleenroll()
        assert client.chain_of(certificate) == (certificate,)
    assert [r.operation for _, r in server.requests] == [Operation.SIMPLEENROLL]


@pytest.mark.conformance("CD-20")
async def test_a_mere_name_behind_an_implicit_anchor_is_warned_of_on_coaps(
    server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    trust = TrustDatabase(implicit=(ROOT.certificate,))
    async with client_of(coaps(server), trust=trust) as client:
        await client.cacerts()
    assert "id-kp-cmcRA" in caplog.text


async def test_an_answer_without_a_root_changes_nothing(server: MemoryServer) -> None:
    server.ca_certificates = [CA.certificate]
    async with client_of(server) as client:
        with pytest.raises(MessageError):
            await client.simpleenroll()
        assert client.trust == TRUST
    assert server.enrollments == []


async def test_a_connection_is_kept_for_a_moment_only(server: MemoryServer, time: FakeTime) -> None:
    async with client_of(server, time) as client:
        await client.cacerts()
        time.seconds += 5
        await client.cacerts()
        assert len(server.connections) == 1
        time.seconds += 11
        await client.cacerts()
    assert len(server.connections) == 2
    assert server.connections[0].closed


def test_the_transports_are_not_loaded_before_they_are_used() -> None:
    script = "import sys, est_client; print(*{'aiohttp', 'aiocoap'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert found.stdout.split() == []


def test_what_the_package_offers() -> None:
    assert est_client.__all__ == sorted(est_client.__all__)
    assert all(hasattr(est_client, name) for name in est_client.__all__)


@pytest.mark.conformance("SR-01", "SR-02", "SR-04")
async def test_a_renewal_asks_for_another_name_beside_the_current_ones() -> None:
    names = (x509.DNSName("pump.example"),)
    device = make_leaf(CA, "pump", usage=CLIENT_AUTH, names=names)
    server = MemoryServer(CA, make_server(CA))
    new, new_names = make_name("new"), (x509.DNSName("new.example"),)
    async with EstClient(server, trust=TRUST, identity=device) as client:
        await client.simplereenroll(subject=new)
        client.identity = device
        await client.simplereenroll(subject_alt_names=new_names)
        client.identity = device
        await client.simplereenroll()
    csrs = [csr for _, csr in server.enrollments]
    assert {(csr.subject, csr.subject_alt_names) for csr in csrs} == {(make_name("pump"), names)}
    wanted = [(new, names), (make_name("pump"), new_names), (make_name("pump"), names)]
    assert [csr.wanted_names for csr in csrs] == wanted


@pytest.mark.conformance("SE-08")
@pytest.mark.parametrize(
    "follow", [False, CsrWishes(subject=((NameAttributeTemplate("2.5.4.3", None),),))]
)
async def test_a_first_enrollment_asks_for_another_name_than_the_birth_certificates(
    follow: bool | CsrWishes,
) -> None:
    names = (x509.DNSName("born.example"),)
    birth = make_leaf(make_ca("manufacturer"), "born", usage=CLIENT_AUTH, names=names)
    server = MemoryServer(CA, make_server(CA))
    new, new_names = make_name("new"), (x509.DNSName("new.example"),)
    async with EstClient(server, trust=TRUST, identity=birth) as client:
        await client.simpleenroll(
            key=make_key("fresh"),
            subject=new,
            subject_alt_names=new_names,
            change_names=True,
            follow_csr_attributes=follow,
        )
    [(_, csr)] = server.enrollments
    assert csr.proves_possession()
    assert (csr.subject, csr.subject_alt_names) == (make_name("born"), names)
    assert csr.wanted_names == (new, new_names)


async def test_names_are_changed_from_those_of_a_certificate_to_others() -> None:
    server = MemoryServer(CA, make_server(CA))
    birth = make_leaf(make_ca("manufacturer"), "born", usage=CLIENT_AUTH)
    bare = LocalCredentials(make_key("bare"), ())
    for identity, subject in ((birth, None), (bare, make_name("new"))):
        async with EstClient(server, trust=TRUST, identity=identity) as client:
            with pytest.raises(ConfigurationError):
                await client.simpleenroll(subject=subject, change_names=True)
    assert not server.enrollments
