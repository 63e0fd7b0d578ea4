from __future__ import annotations

import pytest

from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.coap.recent import RecentRequests
from est_protocol.errors import ConfigurationError


@pytest.mark.conformance("CR-12")
def test_a_duplicate_is_known_until_its_lifetime_is_over() -> None:
    recent = RecentRequests(count=4, octets=100, lifetime=10.0)
    recent.begin(7, now=0.0)
    assert recent.is_duplicate(7, now=9.9)
    assert recent.answer(7) is None
    recent.complete(7, b"answer")
    assert recent.answer(7) == b"answer"
    assert not recent.is_duplicate(7, now=10.0)
    assert recent.octets == 0


def test_count_is_bounded_and_unanswered_requests_stay() -> None:
    recent = RecentRequests(count=3, octets=1000, lifetime=10.0)
    recent.begin(0, now=0.0)
    for number in range(1, 100):
        recent.begin(number, now=0.0)
        recent.complete(number, b"x")
    assert len(recent) == 3
    assert recent.is_duplicate(0, now=1.0), "it is still being worked on"
    assert recent.is_duplicate(99, now=1.0)
    assert not recent.is_duplicate(50, now=1.0)


def test_octets_are_bounded() -> None:
    recent = RecentRequests(count=100, octets=50, lifetime=10.0)
    for number in range(20):
        recent.begin(number, now=0.0)
        recent.complete(number, b"x" * 20)
        assert recent.octets <= 50
    recent.complete(19, b"")
    recent.complete(12345, b"of no request")
    assert recent.octets == 20


@pytest.mark.conformance("PA-01", "PA-04")
def test_derived_parameters_follow_from_the_base_values() -> None:
    defaults = TransmissionParameters()
    assert (defaults.ack_timeout, defaults.ack_random_factor) == (2.0, 1.5)
    assert defaults.max_retransmit == 4
    assert (defaults.tuning.NSTART, defaults.tuning.DEFAULT_LEISURE) == (1, 5.0)
    assert defaults.max_transmit_span == 45.0
    assert defaults.max_transmit_wait == 93.0
    assert defaults.max_rtt == 202.0
    assert defaults.exchange_lifetime == 247.0
    assert defaults.non_lifetime == 145.0
    slow = TransmissionParameters(ack_timeout=4.0)
    assert slow.max_transmit_wait == 186.0
    assert slow.tuning.ACK_TIMEOUT == 4.0
    assert slow.tuning.EXCHANGE_LIFETIME == slow.exchange_lifetime


@pytest.mark.parametrize(
    "wrong",
    [
        {"ack_timeout": 0.0},
        {"ack_random_factor": 0.5},
        {"max_retransmit": -1},
        {"max_latency": 0.0},
        {"empty_ack_delay": 2.0},
    ],
)
def test_parameters_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        TransmissionParameters(**wrong)  # type: ignore[arg-type]
