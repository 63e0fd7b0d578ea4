"""The TLS engine, both roles on a wire that is two lists of octets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL, crypto
from OpenSSL._util import lib

from est_protocol.channel_binding import ChannelBindingType
from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import (
    ChannelClosed,
    ChannelError,
    HandshakeFailed,
    PeerNotTrusted,
)
from est_protocol.keys import spki_sha256
from est_protocol.secure_channel import trusted_ca_keys
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, tls_context
from est_protocol.secure_channel.policy import TlsPolicy, TlsVersion
from est_protocol.secure_channel.tls import TlsEngine
from tests.pki import (
    CLIENT_AUTH,
    PRESENT,
    SERVER_AUTH,
    Ca,
    make_ca,
    make_key,
    make_leaf,
    make_name,
    make_server,
)

OPERATIONAL = make_ca("operational")
MANUFACTURER = make_ca("manufacturer")
STRANGER = make_ca("stranger")
SERVER = make_server(OPERATIONAL)

SERVER_ANCHORS = TrustAnchors(
    {
        AnchorSet.MANUFACTURER: [MANUFACTURER.certificate],
        AnchorSet.OPERATIONAL: [OPERATIONAL.certificate],
    }
)
CLIENT_ANCHORS = TrustAnchors({AnchorSet.EXPLICIT: [OPERATIONAL.certificate]})

TLS1_2 = TlsPolicy(maximum_version=TlsVersion.TLS1_2)
TLS1_3 = TlsPolicy(minimum_version=TlsVersion.TLS1_3)
both_versions = pytest.mark.parametrize("policy", [TLS1_2, TLS1_3], ids=["1.2", "1.3"])


def server_engine(
    policy: TlsPolicy = TlsPolicy(),  # noqa: B008
    credentials: LocalCredentials = SERVER,
    anchors: TrustAnchors = SERVER_ANCHORS,
) -> TlsEngine:
    context = tls_context(policy, server=True, credentials=credentials, anchors=anchors)
    return TlsEngine(context, anchors, server=True, address="192.0.2.7:4711")


def client_engine(
    policy: TlsPolicy = TlsPolicy(),  # noqa: B008
    credentials: LocalCredentials | None = None,
    anchors: TrustAnchors = CLIENT_ANCHORS,
    *,
    require_trust: bool = True,
) -> TlsEngine:
    context = tls_context(
        policy,
        server=False,
        credentials=credentials,
        anchors=anchors,
        require_trust=require_trust,
    )
    return TlsEngine(context, anchors, server=False, server_name="localhost")


def exchange(client: TlsEngine, server: TlsEngine, step: int = 1 << 20) -> list[bytes]:
    """Carry octets both ways, at most ``step`` at a time, until both are silent.

    Returns the plaintext that came out at either end.
    """
    plaintext: list[bytes] = []
    while True:
        to_server, to_client = client.octets_to_send(), server.octets_to_send()
        if not to_server and not to_client:
            return plaintext
        for start in range(0, len(to_server), step):
            plaintext += server.receive_octets(to_server[start : start + step])
        for start in range(0, len(to_client), step):
            plaintext += client.receive_octets(to_client[start : start + step])


def handshake(client: TlsEngine, server: TlsEngine, step: int = 1 << 20) -> None:
    client.start()
    assert exchange(client, server, step) == []
    assert client.established
    assert server.established


def peer_of(engine: TlsEngine) -> PeerCredentials:
    assert engine.peer is not None
    return engine.peer


# --- channel binding ---------------------------------------------------------------------------


def deep_ca(depth: int) -> Ca:
    ca = MANUFACTURER
    for level in range(depth):
        ca = make_ca(f"manufacturer {level} {'x' * 40}", ca)
    return ca


@pytest.mark.conformance("POP-09", "POP-10")
@pytest.mark.parametrize("depth", [0, 24], ids=["short-chain", "long-chain"])
@pytest.mark.parametrize("step", [1 << 20, 97], ids=["whole", "dribbled"])
@pytest.mark.parametrize(
    ("policy", "kind", "length", "protocol"),
    [
        (TLS1_2, ChannelBindingType.TLS_UNIQUE, 12, "TLSv1.2"),
        (TLS1_3, ChannelBindingType.TLS_EXPORTER, 32, "TLSv1.3"),
    ],
    ids=["1.2", "1.3"],
)
def test_both_ends_derive_the_same_binding(
    policy: TlsPolicy, kind: ChannelBindingType, length: int, protocol: str, step: int, depth: int
) -> None:
    device = make_leaf(deep_ca(depth), "device", usage=CLIENT_AUTH)
    client, server = client_engine(policy, device), server_engine()

    handshake(client, server, step)

    binding = peer_of(server).channel_binding
    assert binding is not None
    assert binding == peer_of(client).channel_binding
    assert binding.type is kind
    assert len(binding.value) == length
    assert peer_of(server).protocol == peer_of(client).protocol == protocol
    assert len(peer_of(server).chain) == 1 + depth


@pytest.mark.conformance("TLS-02")
@pytest.mark.parametrize(
    ("client", "server", "version"),
    [
        (TlsPolicy(), TlsPolicy(), "TLSv1.3"),
        (TLS1_2, TlsPolicy(), "TLSv1.2"),
        (TlsPolicy(), TLS1_2, "TLSv1.2"),
    ],
    ids=["both", "old-client", "old-server"],
)
def test_the_newest_version_that_both_know_is_taken(
    client: TlsPolicy, server: TlsPolicy, version: str
) -> None:
    one, other = client_engine(client), server_engine(server)
    handshake(one, other)
    assert peer_of(one).protocol == peer_of(other).protocol == version


@pytest.mark.conformance("TLS-16")
def test_the_master_secret_covers_the_handshake() -> None:
    client, server = client_engine(TLS1_2), server_engine()
    handshake(client, server)
    for engine in (client, server):
        assert lib.SSL_get_extms_support(engine._connection._ssl) == 1


@pytest.mark.conformance("TLS-13", "TLS-15")
@pytest.mark.parametrize("engine", [client_engine(), server_engine()], ids=["client", "server"])
def test_every_suite_has_forward_secrecy_certificates_and_aead(engine: TlsEngine) -> None:
    suites = engine._connection.get_cipher_list()
    assert suites
    for suite in suites:
        assert suite.startswith(("TLS_", "ECDHE-ECDSA-", "ECDHE-RSA-"))
        assert any(mode in suite for mode in ("GCM", "CCM", "CHACHA20"))


@both_versions
def test_every_channel_has_its_own_binding(policy: TlsPolicy) -> None:
    seen = set()
    for _ in range(2):
        client, server = client_engine(policy), server_engine()
        handshake(client, server)
        seen.add(peer_of(server).channel_binding)
    assert len(seen) == 2


@pytest.mark.conformance("POP-08")
def test_tls_unique_is_the_first_finished_message_as_openssl_has_it() -> None:
    client, server = client_engine(TLS1_2), server_engine()
    handshake(client, server)
    binding = peer_of(server).channel_binding
    assert binding is not None
    assert binding.value == client._connection.get_finished()


# --- credentials of the peer -------------------------------------------------------------------


@pytest.mark.conformance("TLS-05", "TLS-06")
@both_versions
@pytest.mark.parametrize(
    ("ca", "kind"),
    [(MANUFACTURER, AnchorSet.MANUFACTURER), (OPERATIONAL, AnchorSet.OPERATIONAL)],
    ids=["manufacturer", "operational"],
)
def test_a_verified_client_comes_with_the_set_of_its_anchor(
    policy: TlsPolicy, ca: Ca, kind: AnchorSet
) -> None:
    device = make_leaf(ca, "device", usage=CLIENT_AUTH)
    client, server = client_engine(policy, device), server_engine()
    handshake(client, server)
    peer = peer_of(server)
    assert peer.is_verified
    assert peer.anchor_set is kind
    assert peer.chain == device.chain
    assert peer.address == "192.0.2.7:4711"


@pytest.mark.conformance("TLS-19")
@both_versions
def test_a_client_without_certificate_is_taken(policy: TlsPolicy) -> None:
    client, server = client_engine(policy), server_engine()
    handshake(client, server)
    assert peer_of(server).chain == ()
    assert not peer_of(server).is_verified
    assert peer_of(server).failures == ()


@pytest.mark.conformance("AUTH-21")
def test_a_birth_certificate_as_ieee_802_1ar_has_it_verifies() -> None:
    """It never expires, and names the hardware (RFC 9148 appendix C.2)."""
    hardware = x509.OtherName(
        x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), bytes.fromhex("300a06032b06010403010203")
    )
    for_ever = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    device = make_leaf(
        MANUFACTURER, "device", usage=CLIENT_AUTH, names=(hardware,), not_after=for_ever
    )
    client, server = client_engine(credentials=device), server_engine()
    handshake(client, server)
    assert peer_of(server).is_verified
    assert peer_of(server).key_sha256 == spki_sha256(device.key.public_key())


EXPIRED = make_leaf(
    MANUFACTURER,
    "expired",
    usage=CLIENT_AUTH,
    not_before=PRESENT - timedelta(days=2),
    not_after=PRESENT - timedelta(days=1),
)
EARLY = make_leaf(
    MANUFACTURER,
    "early",
    usage=CLIENT_AUTH,
    not_before=PRESENT + timedelta(days=1),
    not_after=PRESENT + timedelta(days=2),
)


# cryptography could not load what it is to be passed.
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL X509 objects:DeprecationWarning")
@both_versions
@pytest.mark.parametrize("string_type", [0x13, 0x14], ids=["printable", "teletex"])
def test_a_client_certificate_that_nobody_can_read_fails_the_handshake(
    policy: TlsPolicy, string_type: int
) -> None:
    """OpenSSL takes a subject that is no text; cryptography notices at once, or when asked."""
    device = make_leaf(None, "damaged", usage=CLIENT_AUTH)
    der = device.chain[0].public_bytes(Encoding.DER)
    damaged = der.replace(b"\x0c\x07damaged", bytes([string_type]) + b"\x07\xff\xfemaged")
    client, server = client_engine(policy, device), server_engine()
    client._connection.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, damaged))
    client.start()
    with pytest.raises(HandshakeFailed, match="does not decode"):
        exchange(client, server)
    assert not server.established


@pytest.mark.conformance("TLS-05")
@both_versions
@pytest.mark.parametrize(
    ("device", "kind", "code"),
    [
        (EXPIRED, AnchorSet.MANUFACTURER, 10),
        (EARLY, AnchorSet.MANUFACTURER, 9),
        (make_leaf(STRANGER, "unknown", usage=CLIENT_AUTH), None, 20),
        (make_leaf(None, "self", usage=CLIENT_AUTH), None, 18),
        (make_leaf(MANUFACTURER, "purpose", usage=SERVER_AUTH), AnchorSet.MANUFACTURER, 26),
    ],
    ids=["expired", "not-yet-valid", "unknown-issuer", "self-signed", "wrong-purpose"],
)
def test_an_unverified_client_is_taken_and_its_failures_recorded(
    policy: TlsPolicy, device: LocalCredentials, kind: AnchorSet | None, code: int
) -> None:
    client, server = client_engine(policy, device), server_engine()
    handshake(client, server)
    peer = peer_of(server)
    assert not peer.is_verified
    assert peer.anchor_set is kind
    assert code in [failure.code for failure in peer.failures]
    assert all(failure.text for failure in peer.failures)
    assert peer.chain[0] == device.chain[0]
    assert [failure.is_expiry for failure in peer.failures] == [code == 10] * len(peer.failures)


@pytest.mark.conformance("TLS-03", "TLS-04")
@both_versions
def test_a_client_does_not_trust_a_server_of_another_ca(policy: TlsPolicy) -> None:
    client, server = client_engine(policy), server_engine(credentials=make_server(STRANGER))
    client.start()
    with pytest.raises(PeerNotTrusted, match="local issuer"):
        exchange(client, server)
    with pytest.raises(ChannelError, match="unknown ca"):
        # The alert that the client left behind.
        server.receive_octets(client.octets_to_send())


def constrained_ca(constraint: x509.ExtensionType) -> Ca:
    """A CA below the anchor that may not do everything."""
    key, issuer = make_key("constrained"), OPERATIONAL
    basic = x509.BasicConstraints(ca=True, path_length=None)
    constraints = {type(value): value for value in (basic, constraint)}
    builder = (
        x509.CertificateBuilder()
        .subject_name(make_name("constrained"))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(PRESENT - timedelta(days=1))
        .not_valid_after(PRESENT + timedelta(days=1))
    )
    for value in constraints.values():
        builder = builder.add_extension(value, critical=True)
    certificate = builder.sign(issuer.key, hashes.SHA256())
    return Ca(key, certificate, (issuer.certificate, *issuer.issuers))


def tampered(good: LocalCredentials) -> LocalCredentials:
    """The same credentials, with another signature on the certificate."""
    der = bytearray(good.chain[0].public_bytes(Encoding.DER))
    der[-1] ^= 1
    return LocalCredentials(good.key, (x509.load_der_x509_certificate(bytes(der)),))


ELSEWHERE = x509.NameConstraints([x509.DNSName("elsewhere.example")], None)


@pytest.mark.conformance("TLS-04")
@both_versions
@pytest.mark.parametrize(
    ("server", "why"),
    [
        (
            make_leaf(
                OPERATIONAL, "s", usage=SERVER_AUTH, not_after=PRESENT - timedelta(minutes=1)
            ),
            "has expired",
        ),
        (make_leaf(OPERATIONAL, "s", usage=CLIENT_AUTH), "purpose"),
        (tampered(SERVER), "signature"),
        (make_server(constrained_ca(x509.BasicConstraints(ca=False, path_length=None))), "CA"),
        (
            make_server(
                make_ca("below", constrained_ca(x509.BasicConstraints(ca=True, path_length=0)))
            ),
            "path length",
        ),
        (make_server(constrained_ca(ELSEWHERE)), "permitted subtree"),
    ],
    ids=["expired", "purpose", "signature", "no-ca", "path-length", "name-constraints"],
)
def test_a_client_does_not_trust_a_path_that_does_not_validate(
    policy: TlsPolicy, server: LocalCredentials, why: str
) -> None:
    """RFC 5280 section 6."""
    client = client_engine(policy)
    client.start()
    with pytest.raises(PeerNotTrusted, match=why):
        exchange(client, server_engine(credentials=server))
    assert not client.established


@both_versions
def test_a_provisional_client_records_why_the_server_is_not_trusted(policy: TlsPolicy) -> None:
    client = client_engine(policy, require_trust=False)
    server = server_engine(credentials=make_server(STRANGER))
    handshake(client, server)
    assert not peer_of(client).is_verified
    assert peer_of(client).anchor_set is None


# --- what is refused ---------------------------------------------------------------------------


def legacy(version: int) -> Callable[[SSL.Context], None]:
    def configure(context: SSL.Context) -> None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")

    return configure


def only(ciphers: bytes) -> Callable[[SSL.Context], None]:
    def configure(context: SSL.Context) -> None:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(ciphers + b":@SECLEVEL=0")

    return configure


@pytest.mark.conformance("TLS-01", "TLS-13")
@pytest.mark.parametrize(
    ("configure", "why"),
    [
        (legacy(SSL.TLS1_1_VERSION), "unsupported protocol"),
        (legacy(SSL.TLS1_VERSION), "unsupported protocol"),
        (only(b"eNULL"), "no shared cipher"),
        (only(b"aNULL"), "no shared cipher"),
        (only(b"AES128-SHA:AES128-GCM-SHA256"), "no shared cipher"),
        (only(b"ECDHE-ECDSA-AES128-SHA256"), "no shared cipher"),
    ],
    ids=["tls1.1", "tls1.0", "null", "anonymous", "no-forward-secrecy", "cbc"],
)
def test_weak_clients_are_refused_with_an_alert(
    configure: Callable[[SSL.Context], None], why: str
) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    configure(context)
    context.set_verify(SSL.VERIFY_NONE)
    client = TlsEngine(context, CLIENT_ANCHORS, server=False)
    server = server_engine()
    client.start()
    with pytest.raises(HandshakeFailed, match=why):
        server.receive_octets(client.octets_to_send())
    alert = server.octets_to_send()
    assert alert[0] == 21
    with pytest.raises(ChannelError):
        client.receive_octets(alert)


@pytest.mark.conformance("TLS-01")
@pytest.mark.parametrize("version", [SSL.TLS1_1_VERSION, SSL.TLS1_VERSION], ids=["1.1", "1.0"])
def test_a_client_does_not_speak_what_is_older_either(version: int) -> None:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    legacy(version)(context)
    context.use_certificate(SERVER.chain[0])
    assert isinstance(SERVER.key, ec.EllipticCurvePrivateKey)
    context.use_privatekey(SERVER.key)
    client = client_engine()
    client.start()
    server = SSL.Connection(context, None)
    server.set_accept_state()
    server.bio_write(client.octets_to_send())
    with pytest.raises(SSL.Error, match="unsupported protocol"):
        server.do_handshake()
    with pytest.raises(ChannelError, match="alert protocol version"):
        client.receive_octets(server.bio_read(1 << 14))


@pytest.mark.conformance("TLS-20")
def test_a_client_tells_its_explicit_anchors_once_no_others_count() -> None:
    """RFC 7030 section 4.1.3, RFC 6066 section 6: a list of names, of type x509_name."""
    names = [
        OPERATIONAL.certificate.subject.public_bytes(),
        STRANGER.certificate.subject.public_bytes(),
    ]
    told = b"".join(b"\x02" + len(name).to_bytes(2, "big") + name for name in names)
    told = len(told).to_bytes(2, "big") + told
    extension = b"\x00\x03" + len(told).to_bytes(2, "big") + told
    explicit = (OPERATIONAL.certificate, STRANGER.certificate)

    def hello(anchors: TrustAnchors, policy: TlsPolicy = TLS1_2) -> bytes:
        client = client_engine(policy, anchors=anchors)
        client.start()
        return client.octets_to_send()

    learned = TrustAnchors({AnchorSet.EXPLICIT: explicit, AnchorSet.IMPLICIT: ()})
    assert extension in hello(learned)
    assert extension in hello(learned, TlsPolicy())
    both = TrustAnchors({AnchorSet.EXPLICIT: explicit, AnchorSet.IMPLICIT: explicit})
    for anchors in (both, TrustAnchors({AnchorSet.IMPLICIT: explicit}), TrustAnchors()):
        assert told not in hello(anchors)
    # Servers that say it back, or nothing, are all right.
    client, server = client_engine(TLS1_2), server_engine()
    handshake(client, server)


def test_no_more_anchors_are_told_than_a_hello_has_room_for() -> None:
    anchors = [make_ca(f"anchor {number}").certificate for number in range(9)]
    long = (
        x509.CertificateBuilder(None)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 64)] * 4))
        .issuer_name(OPERATIONAL.certificate.subject)
        .public_key(OPERATIONAL.key.public_key())
        .serial_number(1)
        .not_valid_before(PRESENT)
        .not_valid_after(PRESENT)
        .sign(OPERATIONAL.key, hashes.SHA256())
    )
    octets = trusted_ca_keys.encode([long, anchors[0], *anchors])
    assert int.from_bytes(octets[:2], "big") == len(octets) - 2
    told = [anchor for anchor in anchors if anchor.subject.public_bytes() in octets]
    assert told == anchors[:8]


def foreign_client(policy: TlsPolicy) -> TlsEngine:
    """A client without this implementation's restraint: it renegotiates and keeps sessions."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(policy.minimum_version)
    context.set_max_proto_version(policy.maximum_version)
    context.set_verify(SSL.VERIFY_NONE)
    return TlsEngine(context, CLIENT_ANCHORS, server=False)


@pytest.mark.conformance("TLS-12")
def test_renegotiation_is_refused() -> None:
    client, server = foreign_client(TLS1_2), server_engine()
    handshake(client, server)
    binding = peer_of(server).channel_binding
    assert client._connection.renegotiate()
    client._continue_handshake()
    request = client.octets_to_send()
    assert request
    assert server.receive_octets(request) == []
    with pytest.raises(ChannelError, match="no renegotiation"):
        client.receive_octets(server.octets_to_send())
    assert peer_of(server).channel_binding == binding


@pytest.mark.conformance("TLS-17")
@both_versions
def test_sessions_are_not_resumed(policy: TlsPolicy) -> None:
    first = foreign_client(policy)
    server_context = tls_context(
        TlsPolicy(), server=True, credentials=SERVER, anchors=SERVER_ANCHORS
    )
    handshake(first, TlsEngine(server_context, SERVER_ANCHORS, server=True))
    session = first._connection.get_session()
    assert session is not None

    second = TlsEngine(first._connection.get_context(), CLIENT_ANCHORS, server=False)
    second._connection.set_session(session)
    again = TlsEngine(server_context, SERVER_ANCHORS, server=True)
    handshake(second, again)
    assert lib.SSL_session_reused(again._connection._ssl) == 0


def test_compression_is_not_negotiated() -> None:
    client, server = client_engine(TLS1_2), server_engine()
    client.start()
    hello = client.octets_to_send()
    # Record header (5), handshake header (4), version (2), random (32), then session_id.
    position = 43 + 1 + hello[43]
    position += 2 + int.from_bytes(hello[position : position + 2], "big")
    assert hello[position : position + 2] == b"\x01\x00"

    # A foreign client that offers DEFLATE beside null is not given it.
    lengthened = bytearray(hello[:position] + b"\x02\x01\x00" + hello[position + 2 :])
    lengthened[3:5] = (len(lengthened) - 5).to_bytes(2, "big")
    lengthened[6:9] = (len(lengthened) - 9).to_bytes(3, "big")
    server.receive_octets(bytes(lengthened))
    answer = server.octets_to_send()
    assert answer[5] == 2
    assert answer[43 + 1 + answer[43] + 2] == 0


# --- data, and the end -------------------------------------------------------------------------


@both_versions
def test_plaintext_passes_both_ways(policy: TlsPolicy) -> None:
    client, server = client_engine(policy), server_engine()
    handshake(client, server)
    client.send_plaintext(b"question " * 5000)
    assert b"".join(exchange(client, server)) == b"question " * 5000
    server.send_plaintext(b"answer")
    assert exchange(client, server) == [b"answer"]


def test_plaintext_right_behind_the_handshake_is_not_lost() -> None:
    client, server = client_engine(TLS1_3), server_engine()
    client.start()
    server.receive_octets(client.octets_to_send())
    client.receive_octets(server.octets_to_send())
    client.send_plaintext(b"early bird")
    assert server.receive_octets(client.octets_to_send()) == [b"early bird"]


@both_versions
def test_close_notify_is_noticed(policy: TlsPolicy) -> None:
    client, server = client_engine(policy), server_engine()
    handshake(client, server)
    client.send_plaintext(b"last words")
    client.close()
    client.close()
    assert server.receive_octets(client.octets_to_send()) == [b"last words"]
    assert server.peer_closed
    server.close()
    client.receive_octets(server.octets_to_send())
    assert client.peer_closed


def test_an_end_without_close_notify_is_tolerated_and_told_apart() -> None:
    client, server = client_engine(), server_engine()
    handshake(client, server)
    server.receive_eof()
    assert not server.peer_closed


def test_an_end_within_the_handshake_fails_it() -> None:
    server = server_engine()
    with pytest.raises(HandshakeFailed, match="ended the connection"):
        server.receive_eof()


def test_nothing_is_sent_after_the_end() -> None:
    client, server = client_engine(), server_engine()
    with pytest.raises(ChannelClosed):
        client.send_plaintext(b"too early")
    handshake(client, server)
    client.close()
    with pytest.raises(ChannelClosed):
        client.send_plaintext(b"too late")


@both_versions
def test_a_forged_record_ends_the_channel(policy: TlsPolicy) -> None:
    client, server = client_engine(policy), server_engine()
    handshake(client, server)
    client.send_plaintext(b"genuine")
    record = bytearray(client.octets_to_send())
    record[-1] ^= 1
    with pytest.raises(ChannelError, match="bad record mac"):
        server.receive_octets(bytes(record))
    assert server.receive_octets(b"more") == []
    with pytest.raises(ChannelClosed):
        server.send_plaintext(b"more")


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 99])
def test_garbage_instead_of_a_handshake_fails_it(octets: bytes) -> None:
    server = server_engine()
    with pytest.raises(HandshakeFailed):
        server.receive_octets(octets)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_whatever_arrives_only_channel_errors_come_out(pieces: list[bytes]) -> None:
    server = server_engine()
    for piece in pieces:
        try:
            assert server.receive_octets(piece) == []
        except ChannelError:
            assert server.receive_octets(piece) == []
        server.octets_to_send()


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_a_damaged_handshake_only_raises_channel_errors(data: st.DataObject) -> None:
    client = client_engine()
    client.start()
    hello = bytearray(client.octets_to_send())
    position = data.draw(st.integers(0, len(hello) - 1))
    hello[position] = data.draw(st.integers(0, 255))
    server = server_engine()
    with contextlib.suppress(ChannelError):
        assert server.receive_octets(bytes(hello)) == []
        client.receive_octets(server.octets_to_send())
        server.receive_octets(client.octets_to_send())
