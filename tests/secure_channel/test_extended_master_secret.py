"""Without RFC 7627 a channel of (D)TLS 1.2 has no binding that could be relied on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from OpenSSL import SSL

from est_protocol.channel_binding import ChannelBindingType
from est_protocol.credentials import PeerCredentials
from est_protocol.secure_channel.context import dtls_context, tls_context
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_listener import DtlsListener
from est_protocol.secure_channel.policy import DtlsPolicy, TlsPolicy, TlsVersion
from est_protocol.secure_channel.tls import TlsEngine
from tests.secure_channel.dtls_ends import CLIENT_ANCHORS, DEVICE, SERVER, SERVER_ANCHORS, Pair

#: SSL_OP_NO_EXTENDED_MASTER_SECRET of OpenSSL's ssl.h, which pyOpenSSL does not name.
OP_NO_EXTENDED_MASTER_SECRET = 1


def over_tls(policy: TlsPolicy, *, extended: bool) -> tuple[PeerCredentials, PeerCredentials]:
    """What each end learned of the other; without ``extended``, the client is an old one."""
    client_context = tls_context(policy, server=False, credentials=DEVICE, anchors=CLIENT_ANCHORS)
    if not extended:
        client_context.set_options(OP_NO_EXTENDED_MASTER_SECRET)
    server_context = tls_context(policy, server=True, credentials=SERVER, anchors=SERVER_ANCHORS)
    client = TlsEngine(client_context, CLIENT_ANCHORS, server=False)
    server = TlsEngine(server_context, SERVER_ANCHORS, server=True)
    client.start()
    while octets := client.octets_to_send():
        server.receive_octets(octets)
        client.receive_octets(server.octets_to_send())
    assert client.peer is not None
    assert server.peer is not None
    return client.peer, server.peer


def over_dtls(policy: DtlsPolicy, *, extended: bool) -> tuple[PeerCredentials, PeerCredentials]:
    """The same over DTLS."""
    client_context: SSL.Context = dtls_context(
        policy, server=False, credentials=DEVICE, anchors=CLIENT_ANCHORS
    )
    if not extended:
        client_context.set_options(OP_NO_EXTENDED_MASTER_SECRET)
    server_context = dtls_context(policy, server=True, credentials=SERVER, anchors=SERVER_ANCHORS)
    client = DtlsSession(client_context, CLIENT_ANCHORS, policy, server=False)
    client.start()
    server = Pair(DtlsListener(server_context, SERVER_ANCHORS, policy), client).shake_hands()
    assert client.peer is not None
    assert server.peer is not None
    return client.peer, server.peer


@pytest.mark.conformance("TLS-16")
def test_old_peers_of_tls_get_a_channel_but_no_binding() -> None:
    policy = TlsPolicy(maximum_version=TlsVersion.TLS1_2)
    assert all(peer.channel_binding is not None for peer in over_tls(policy, extended=True))
    assert all(peer.channel_binding is None for peer in over_tls(policy, extended=False))


@pytest.mark.conformance("CD-14")
def test_old_peers_of_dtls_get_a_channel_but_no_binding() -> None:
    policy = DtlsPolicy()
    assert all(peer.channel_binding is not None for peer in over_dtls(policy, extended=True))
    assert all(peer.channel_binding is None for peer in over_dtls(policy, extended=False))


def test_tls_1_3_needs_no_extension() -> None:
    for peer in over_tls(TlsPolicy(), extended=False):
        assert peer.channel_binding is not None
        assert peer.channel_binding.type is ChannelBindingType.TLS_EXPORTER


@pytest.mark.parametrize("transport", ["tls", "dtls"])
def test_an_operator_may_rely_on_tls_unique_all_the_same(transport: str) -> None:
    if transport == "tls":
        policy = TlsPolicy(
            maximum_version=TlsVersion.TLS1_2, bind_without_extended_master_secret=True
        )
        client, server = over_tls(policy, extended=False)
    else:
        lenient = replace(DtlsPolicy(), bind_without_extended_master_secret=True)
        client, server = over_dtls(lenient, extended=False)
    assert client.channel_binding == server.channel_binding
    assert server.channel_binding is not None
    assert server.channel_binding.type is ChannelBindingType.TLS_UNIQUE
