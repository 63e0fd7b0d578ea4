from __future__ import annotations

from collections.abc import Iterator

import pytest
from OpenSSL._util import lib

from est_protocol.channel_binding import ChannelBindingType
from est_protocol.errors import (
    ChannelClosed,
    ChannelError,
    ConfigurationError,
    HandshakeFailed,
    PeerNotTrusted,
)
from est_protocol.secure_channel.context import TrustAnchors
from est_protocol.secure_channel.policy import DtlsPolicy
from tests import pki
from tests.secure_channel.dtls_ends import (
    DEVICE,
    Network,
    Pair,
    connect,
    make_client,
    make_listener,
    shake_hands_in_real_time,
)

CCM8 = DtlsPolicy(ciphers="ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0")


@pytest.mark.conformance("CD-11", "CD-12")
@pytest.mark.parametrize("mtu", [256, 512, 1232])
def test_handshake_fits_the_mtu_and_both_ends_agree_on_the_binding(mtu: int) -> None:
    policy = DtlsPolicy(mtu=mtu)
    pair = Pair(make_listener(policy), make_client(policy))
    server = pair.shake_hands()
    assert max(pair.sizes) <= mtu
    assert server.peer is not None
    assert pair.client.peer is not None
    assert server.peer.channel_binding == pair.client.peer.channel_binding
    assert server.peer.channel_binding is not None
    assert server.peer.channel_binding.type is ChannelBindingType.TLS_UNIQUE
    assert len(server.peer.channel_binding.value) == 12
    assert server.peer.chain == DEVICE.chain
    assert server.peer.protocol == "DTLSv1.2"


@pytest.mark.conformance("CD-01", "CD-02")
def test_mandatory_suite_of_rfc_9148() -> None:
    client, _ = connect(CCM8)
    assert client.peer is not None
    assert client.peer.cipher == "ECDHE-ECDSA-AES128-CCM8"


@pytest.mark.conformance("CD-02")
def test_a_client_hello_names_secp256r1_and_uncompressed_points() -> None:
    """RFC 8422 section 5.1: supported_groups is extension 10, ec_point_formats 11."""
    (hello,) = make_client().datagrams_to_send()
    extensions = dict(extensions_of(hello))
    groups = extensions[10]
    assert int.from_bytes(groups[:2], "big") == len(groups) - 2
    assert groups[2:4] == b"\x00\x17", "secp256r1 comes first"
    assert 0 in extensions[11][1:], "uncompressed"


def extensions_of(hello: bytes) -> Iterator[tuple[int, bytes]]:
    """The extensions of a ClientHello in one record without a cookie."""
    # Record header, handshake header, version, random.
    at = 13 + 12 + 2 + 32
    for size in (1, 1, 2, 1):  # session, cookie, suites, compression methods
        at += size + int.from_bytes(hello[at : at + size], "big")
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    assert end == len(hello)
    at += 2
    while at < end:
        kind, size = (int.from_bytes(hello[at + n : at + n + 2], "big") for n in (0, 2))
        yield kind, hello[at + 4 : at + 4 + size]
        at += 4 + size


@pytest.mark.conformance("CD-14")
def test_the_master_secret_covers_the_handshake() -> None:
    for end in connect():
        assert lib.SSL_get_extms_support(end._connection._ssl) == 1


@pytest.mark.conformance("CD-24")
def test_every_suite_has_forward_secrecy_and_aead() -> None:
    for end in connect():
        # Those of TLS 1.3 are on OpenSSL's list too, and not to be had with DTLS 1.2.
        suites = {s for s in end._connection.get_cipher_list() if not s.startswith("TLS_")}
        assert suites == {
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-AES128-CCM",
            "ECDHE-ECDSA-AES128-CCM8",
        }


def test_client_hello_fits_a_small_datagram() -> None:
    (hello,) = make_client(DtlsPolicy(mtu=256)).datagrams_to_send()
    assert len(hello) <= 256 - 16  # the second one carries a cookie of 16 octets


def test_plaintext_keeps_its_boundaries_both_ways() -> None:
    client, server = connect()
    client.send_plaintext(b"one")
    client.send_plaintext(b"two")
    assert [p for d in client.datagrams_to_send() for p in server.receive_datagram(d)] == [
        b"one",
        b"two",
    ]
    server.send_plaintext(b"x" * server.maximum_plaintext)
    (datagram,) = server.datagrams_to_send()
    assert len(datagram) <= 1232
    assert client.receive_datagram(datagram) == [b"x" * server.maximum_plaintext]


@pytest.mark.parametrize("size", [0, 1232])
def test_plaintext_that_does_not_fit_is_refused(size: int) -> None:
    client, _ = connect()
    with pytest.raises(ValueError, match="does not fit"):
        client.send_plaintext(b"x" * size)


@pytest.mark.parametrize("closer", ["client", "server"])
def test_close_notify_ends_both_ends(closer: str) -> None:
    client, server = connect()
    first, other = (client, server) if closer == "client" else (server, client)
    first.close()
    for datagram in first.datagrams_to_send():
        other.receive_datagram(datagram)
    assert other.peer_closed
    assert other.over
    with pytest.raises(ChannelClosed):
        first.send_plaintext(b"late")
    with pytest.raises(ChannelClosed):
        other.send_plaintext(b"late")
    other.close()
    assert len(other.datagrams_to_send()) == 1


def test_a_client_without_certificate_completes_the_handshake() -> None:
    pair = Pair(make_listener(), make_client(credentials=None))
    server = pair.shake_hands()
    assert server.peer is not None
    assert server.peer.chain == ()


def test_a_stranger_completes_the_handshake_and_is_recorded_as_unverified() -> None:
    pair = Pair(make_listener(), make_client(credentials=pki.make_leaf(None, "stranger")))
    server = pair.shake_hands()
    assert server.peer is not None
    assert not server.peer.is_verified
    assert server.peer.failures


@pytest.mark.conformance("CD-05")
def test_client_ends_the_handshake_if_the_server_is_not_trusted() -> None:
    pair = Pair(make_listener(), make_client(anchors=TrustAnchors()))
    with pytest.raises(PeerNotTrusted):
        pair.shake_hands()
    assert pair.server is not None
    (alert,) = pair.client.datagrams_to_send()
    with pytest.raises(HandshakeFailed, match="alert"):
        pair.server.receive_datagram(alert)


def test_garbage_and_forged_records_are_dropped() -> None:
    client, server = connect()
    client.send_plaintext(b"hello")
    (datagram,) = client.datagrams_to_send()
    forged = datagram[:-1] + bytes([datagram[-1] ^ 1])
    for junk in (b"", b"\x00", b"\xff" * 200, datagram[:20], forged, forged):
        assert server.receive_datagram(junk) == []
    assert server.forged_records == 2
    assert server.receive_datagram(datagram) == [b"hello"]
    assert server.receive_datagram(datagram) == []
    assert server.forged_records == 2, "a duplicate is no forgery"


def test_whole_record_before_garbage_in_one_datagram_is_taken() -> None:
    client, server = connect()
    client.send_plaintext(b"hello")
    (datagram,) = client.datagrams_to_send()
    assert server.receive_datagram(datagram + b"\x17\xfe\xfd") == [b"hello"]


@pytest.mark.conformance("CD-04")
def test_ccm_8_session_is_closed_before_its_tag_is_guessed() -> None:
    client, server = connect(CCM8)
    client.send_plaintext(b"hello")
    (datagram,) = client.datagrams_to_send()
    forged = datagram[:-1] + bytes([datagram[-1] ^ 1])
    for _ in range(127):
        server.receive_datagram(forged)
    with pytest.raises(ChannelError, match="128 records did not decrypt"):
        server.receive_datagram(forged)
    assert server.over
    assert server.receive_datagram(datagram) == []


def test_other_suites_survive_any_number_of_forgeries() -> None:
    client, server = connect()
    client.send_plaintext(b"hello")
    (datagram,) = client.datagrams_to_send()
    forged = datagram[:-1] + bytes([datagram[-1] ^ 1])
    for _ in range(200):
        server.receive_datagram(forged)
    assert server.receive_datagram(datagram) == [b"hello"]


@pytest.mark.conformance("CD-12")
def test_handshakes_over_a_lossy_network() -> None:
    listener = make_listener(DtlsPolicy(mtu=512))
    pairs = [
        Pair(
            listener,
            make_client(DtlsPolicy(mtu=512)),
            Network(seed=seed, loss=0.2, duplicate=0.2, reorder=0.3, garbage=0.2),
            address=f"127.0.0.1:{seed}",
        )
        for seed in range(8)
    ]
    shake_hands_in_real_time(pairs, seconds=120)
    assert sum(pair.network.lost for pair in pairs) > 8
    for pair in pairs:
        assert pair.server is not None
        assert pair.server.peer is not None
        assert pair.client.peer is not None
        assert pair.server.peer.channel_binding == pair.client.peer.channel_binding


def test_lost_finished_of_the_server_is_sent_again() -> None:
    pair = Pair(make_listener(), make_client())
    pair.turn()
    pair.turn()
    assert pair.server is not None
    for datagram in pair.client.datagrams_to_send():
        pair.server.receive_datagram(datagram)
    assert pair.server.established
    assert pair.server.datagrams_to_send(), "the last flight, which is lost here"
    assert not pair.client.established
    shake_hands_in_real_time([pair], seconds=60)


@pytest.mark.parametrize("mtu", [255, 16385])
def test_mtu_out_of_range_is_a_configuration_error(mtu: int) -> None:
    with pytest.raises(ConfigurationError):
        DtlsPolicy(mtu=mtu)


def test_no_timer_runs_once_the_handshake_is_complete() -> None:
    client, server = connect()
    assert client.deadline(10.0) is None
    assert server.deadline(10.0) is None


def test_timer_runs_during_the_handshake() -> None:
    client = make_client()
    deadline = client.deadline(100.0)
    assert deadline is not None
    assert 100.0 < deadline <= 101.0
