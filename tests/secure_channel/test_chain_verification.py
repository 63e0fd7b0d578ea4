"""A conveyed chain is worth what it would be in a handshake with this server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL._util import lib

from est_protocol.chain import verify_chain
from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import CertificateRejected
from est_protocol.secure_channel.chain_verification import verify_client_chain
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, tls_context
from est_protocol.secure_channel.policy import TlsPolicy
from est_protocol.secure_channel.tls import TlsEngine
from tests.pki import CLIENT_AUTH, PRESENT, SERVER_AUTH, make_ca, make_key, make_leaf, make_server

ROOT = make_ca("root")
ISSUING = make_ca("issuing", ROOT)
MANUFACTURER = make_ca("manufacturer")
LINE = make_ca("line", MANUFACTURER)
ANCHORS = TrustAnchors(
    {
        AnchorSet.OPERATIONAL: (ISSUING.certificate,),
        AnchorSet.MANUFACTURER: (MANUFACTURER.certificate,),
    }
)
PAST = PRESENT - timedelta(minutes=5)
FUTURE = PRESENT + timedelta(hours=5)

CLIENTS: dict[str, Callable[[], LocalCredentials]] = {
    "operational": lambda: make_leaf(ISSUING, "device", usage=CLIENT_AUTH),
    "birth": lambda: make_leaf(LINE, "device"),
    "expired": lambda: make_leaf(ISSUING, "device", not_after=PAST),
    "not yet valid": lambda: make_leaf(LINE, "device", not_before=FUTURE),
    "of a server": lambda: make_leaf(ISSUING, "device", usage=SERVER_AUTH),
    "expired, of a server": lambda: make_leaf(ISSUING, "device", usage=SERVER_AUTH, not_after=PAST),
}
NOBODYS: dict[str, Callable[[], LocalCredentials]] = {
    "self-signed": lambda: make_leaf(None, "device"),
    "of nobody known": lambda: make_leaf(make_ca("stranger"), "device"),
    "without its issuer": lambda: LocalCredentials(
        make_key("device"), make_leaf(LINE, "device").chain[:1]
    ),
    "of the root above the anchor": lambda: make_leaf(ROOT, "device"),
}


def in_a_handshake(credentials: LocalCredentials) -> PeerCredentials:
    policy = TlsPolicy()
    server = TlsEngine(
        tls_context(policy, server=True, credentials=make_server(ISSUING), anchors=ANCHORS),
        ANCHORS,
        server=True,
    )
    nothing = TrustAnchors()
    client = TlsEngine(
        tls_context(policy, server=False, credentials=credentials, anchors=nothing),
        nothing,
        server=False,
    )
    client.start()
    while octets := client.octets_to_send():
        server.receive_octets(octets)
        client.receive_octets(server.octets_to_send())
    assert server.peer is not None
    return server.peer


@pytest.mark.conformance("HTTP-21")
@pytest.mark.parametrize("name", CLIENTS)
def test_a_chain_to_an_anchor_is_worth_what_the_handshake_says(name: str) -> None:
    peer = in_a_handshake(CLIENTS[name]())
    anchor_set, failures = verify_client_chain(peer.chain, ANCHORS, now=datetime.now(UTC))
    assert anchor_set is peer.anchor_set is not None
    assert set(failures) == set(peer.failures)


@pytest.mark.parametrize("name", NOBODYS)
def test_a_chain_to_no_anchor_is_worth_nothing_either_way(name: str) -> None:
    peer = in_a_handshake(NOBODYS[name]())
    anchor_set, failures = verify_client_chain(peer.chain, ANCHORS, now=datetime.now(UTC))
    assert anchor_set is peer.anchor_set is None
    assert failures
    assert peer.failures


def test_a_forged_signature_reaches_no_anchor() -> None:
    der = bytearray(make_leaf(ISSUING, "device").chain[0].public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_certificate(bytes(der))
    anchor_set, failures = verify_client_chain((forged,), ANCHORS, now=datetime.now(UTC))
    assert anchor_set is None
    assert failures


def test_the_time_is_the_callers() -> None:
    chain = make_leaf(ISSUING, "device").chain
    assert verify_client_chain(chain, ANCHORS, now=PRESENT) == (AnchorSet.OPERATIONAL, ())
    _, late = verify_client_chain(chain, ANCHORS, now=PRESENT + timedelta(days=400))
    assert all(failure.is_expiry for failure in late)
    assert late
    _, early = verify_client_chain(chain, ANCHORS, now=PRESENT - timedelta(days=400))
    assert early
    assert not any(failure.is_expiry for failure in early)


def test_no_error_is_left_for_the_next_connection() -> None:
    """OpenSSL before 4.0 takes what is left in the queue for an error of whatever comes next."""
    certificate = make_leaf(ISSUING, "device").chain[0]
    der = bytearray(certificate.public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_certificate(bytes(der))
    _, failures = verify_client_chain([forged], ANCHORS, now=datetime.now(UTC))
    assert "signature" in failures[0].text
    assert lib.ERR_peek_error() == 0
    with pytest.raises(CertificateRejected, match="signature"):
        verify_chain(forged, anchors=[ISSUING.certificate], intermediates=[], now=datetime.now(UTC))
    assert lib.ERR_peek_error() == 0
