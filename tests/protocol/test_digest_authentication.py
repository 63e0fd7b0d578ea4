"""Digest's arithmetic, against RFC 7616's example, and nonces without state."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from est_protocol.digest_authentication import Nonces, is_right, response, user_secret
from est_protocol.http_authentication import DigestAlgorithm
from tests.protocol.test_http_authentication import CNONCE, MUFASA, NONCE, SHA_256_RESPONSE

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
REALM = "http-auth@example.org"


def nonces(most_used: int = 100) -> Nonces:
    return Nonces(b"k" * 32, lifetime=5 * MINUTE, most_used=most_used)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (DigestAlgorithm.SHA_256, SHA_256_RESPONSE),
        (DigestAlgorithm.MD5, "8ca523f5e9506fed4657c9700eebdbec"),
    ],
)
def test_the_example_of_rfc_7616(algorithm: DigestAlgorithm, expected: str) -> None:
    secret = user_secret(algorithm, "Mufasa", REALM, "Circle of Life")
    made = response(
        secret,
        algorithm,
        method="GET",
        uri="/dir/index.html",
        nonce=NONCE,
        nonce_count=1,
        cnonce=CNONCE,
    )
    assert made == expected


def test_a_response_is_right_for_its_request_and_its_password_only() -> None:
    secret = user_secret(DigestAlgorithm.SHA_256, "Mufasa", REALM, "Circle of Life")
    wrong = user_secret(DigestAlgorithm.SHA_256, "Mufasa", REALM, "circle of life")
    assert is_right(MUFASA, secret, method="GET")
    assert not is_right(MUFASA, wrong, method="GET")
    assert not is_right(MUFASA, secret, method="POST")
    assert not is_right(replace(MUFASA, nonce_count=2), secret, method="GET")
    assert not is_right(replace(MUFASA, uri="/other"), secret, method="GET")


def test_a_nonce_serves_until_it_is_too_old() -> None:
    ours = nonces()
    nonce = ours.make(NOW, bytes(16))
    assert ours.use(nonce, 1, NOW)
    assert ours.use(nonce, 2, NOW + 5 * MINUTE)
    assert not ours.use(nonce, 3, NOW + 5 * MINUTE + timedelta(microseconds=1))
    assert not ours.use(nonce, 3, NOW - timedelta(microseconds=1))


def test_no_count_serves_twice() -> None:
    ours = nonces()
    nonce = ours.make(NOW, bytes(16))
    assert ours.use(nonce, 7, NOW)
    assert not ours.use(nonce, 7, NOW)
    assert not ours.use(nonce, 6, NOW)
    assert ours.use(nonce, 8, NOW)


@pytest.mark.parametrize("nonce", ["", "\u00e9", "a", "A" * 56, "!" * 56])
def test_what_we_did_not_make_does_not_serve(nonce: str) -> None:
    assert not nonces().use(nonce, 1, NOW)


def test_a_nonce_of_another_key_or_an_altered_one_does_not_serve() -> None:
    ours = nonces()
    theirs = Nonces(b"x" * 32, lifetime=5 * MINUTE, most_used=1).make(NOW, bytes(16))
    assert not ours.use(theirs, 1, NOW)
    nonce = ours.make(NOW, bytes(16))
    assert not ours.use("B" + nonce[1:], 1, NOW)


def test_a_full_memory_lets_no_replay_through() -> None:
    ours = nonces(most_used=4)
    used = []
    for number in range(50):
        moment = NOW + timedelta(microseconds=number)
        nonce = ours.make(moment, number.to_bytes(16, "big"))
        assert ours.use(nonce, 1, moment)
        used.append(nonce)
    assert not any(ours.use(nonce, 1, NOW + MINUTE) for nonce in used)
    assert ours.use(ours.make(NOW + MINUTE, bytes(16)), 1, NOW + MINUTE)
