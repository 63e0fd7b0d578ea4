from __future__ import annotations

import random

import pytest

from est_protocol.errors import HandshakeFailed
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_listener import DtlsListener
from est_protocol.secure_channel.policy import DtlsPolicy
from tests.secure_channel.dtls_ends import make_client, make_listener


def hello(client: DtlsSession) -> bytes:
    (datagram,) = client.datagrams_to_send()
    return datagram


def hello_with_cookie(listener: DtlsListener, client: DtlsSession, address: str) -> bytes:
    (verify_request,), session = listener.receive_datagram(hello(client), address, 0.0)
    assert session is None
    client.receive_datagram(verify_request)
    return hello(client)


def test_hello_verify_request_is_shorter_than_the_hello() -> None:
    first = hello(make_client())
    (answer,), session = make_listener().receive_datagram(first, "a", 0.0)
    assert session is None
    assert len(answer) < len(first)


def test_returning_with_the_cookie_opens_a_session() -> None:
    listener = make_listener()
    client = make_client()
    flight, session = listener.receive_datagram(hello_with_cookie(listener, client, "a"), "a", 1.0)
    assert session is not None
    assert flight, "the server's flight comes at once"
    assert session.client_random


def test_who_returned_its_cookie_is_told_that_no_suite_is_shared() -> None:
    listener = make_listener(DtlsPolicy(ciphers="ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0"))
    client = make_client(DtlsPolicy(ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"))
    second = hello_with_cookie(listener, client, "a")
    (alert,), session = listener.receive_datagram(second, "a", 0.0)
    assert session is None
    with pytest.raises(HandshakeFailed, match="handshake failure"):
        client.receive_datagram(alert)
    # The next client finds a listener in order.
    second = hello_with_cookie(listener, make_client(), "b")
    assert listener.receive_datagram(second, "b", 0.0)[1] is not None


def test_a_cookie_is_known_at_a_glance() -> None:
    listener = make_listener()
    assert not listener.knows_the_cookie(hello(make_client()), "a")
    second = hello_with_cookie(listener, make_client(), "a")
    assert listener.knows_the_cookie(second, "a")
    assert not listener.knows_the_cookie(second, "b")
    for end in range(len(second)):
        assert not listener.knows_the_cookie(second[:end], "a")


def test_cookie_is_bound_to_the_address() -> None:
    listener = make_listener()
    second = hello_with_cookie(listener, make_client(), "a")
    answers, session = listener.receive_datagram(second, "b", 0.0)
    assert session is None
    assert len(answers) == 1


def test_secret_rotates_and_the_one_before_still_counts() -> None:
    listener = make_listener(lifetime=60.0)
    second = hello_with_cookie(listener, make_client(), "a")
    assert listener.receive_datagram(second, "a", 61.0)[1] is not None
    listener = make_listener(lifetime=60.0)
    second = hello_with_cookie(listener, make_client(), "a")
    assert listener.receive_datagram(b"junk", "a", 61.0)[1] is None
    assert listener.receive_datagram(hello(make_client()), "x", 61.0)[1] is None
    assert listener.receive_datagram(second, "a", 122.0)[1] is None


def test_a_long_pause_outdates_every_cookie() -> None:
    listener = make_listener(lifetime=60.0)
    second = hello_with_cookie(listener, make_client(), "a")
    assert listener.receive_datagram(second, "a", 1000.0)[1] is None


def test_many_peers_at_once_are_told_apart() -> None:
    listener = make_listener()
    clients = {f"peer {n}": make_client() for n in range(20)}
    seconds = {a: hello_with_cookie(listener, client, a) for a, client in clients.items()}
    for address, second in seconds.items():
        _, session = listener.receive_datagram(second, address, 0.0)
        assert session is not None


def test_garbage_is_neither_answered_nor_harmful() -> None:
    listener = make_listener()
    generator = random.Random(1)
    for _ in range(300):
        answers, session = listener.receive_datagram(
            generator.randbytes(generator.randrange(400)), "a", 0.0
        )
        assert answers == []
        assert session is None
    first = bytearray(hello(make_client()))
    for position in range(25, len(first)):
        broken = bytes([*first[:position], first[position] ^ 0xFF, *first[position + 1 :]])
        assert listener.receive_datagram(broken, "a", 0.0)[1] is None
    client = make_client()
    assert listener.receive_datagram(hello_with_cookie(listener, client, "a"), "a", 0.0)[1]


def test_lost_hello_verify_request_is_given_again() -> None:
    listener = make_listener()
    first = hello(make_client())
    lost, _ = listener.receive_datagram(first, "a", 0.0)
    again, _ = listener.receive_datagram(first, "a", 1.0)
    assert len(lost) == len(again) == 1
