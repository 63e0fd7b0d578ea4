"""When a certificate is renewed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from est_client.renewal import RenewalPolicy
from est_protocol.errors import ConfigurationError
from tests.pki import PRESENT, make_ca, make_leaf

CERTIFICATE = make_leaf(
    make_ca("root"), "device", not_before=PRESENT, not_after=PRESENT + timedelta(days=90)
).chain[0]


@pytest.mark.conformance("CL-10")
@pytest.mark.parametrize(("random_fraction", "days"), [(0.0, 55.5), (0.5, 60.0), (1.0, 64.5)])
def test_comes_at_two_thirds_of_the_life_more_or_less(random_fraction: float, days: float) -> None:
    moment = RenewalPolicy().renew_at(CERTIFICATE, random_fraction)
    assert abs(moment - (PRESENT + timedelta(days=days))) < timedelta(seconds=1)


@pytest.mark.parametrize(
    ("fraction", "spread"), [(1.0, 0.0), (0.0, 0.0), (0.95, 0.2), (0.05, 0.2), (0.5, -0.1)]
)
def test_never_comes_after_the_end(fraction: float, spread: float) -> None:
    with pytest.raises(ConfigurationError):
        RenewalPolicy(fraction, spread)


@pytest.mark.parametrize("part", [-0.1, 1.0])
def test_anchors_are_fetched_again_before_the_end(part: float) -> None:
    with pytest.raises(ConfigurationError):
        RenewalPolicy(refresh_again=part)
