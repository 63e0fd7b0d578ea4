from itertools import groupby, pairwise
from random import Random

import pytest

from est_client.simulation.draws import Draws
from est_client.simulation.loss import Loss, LossProcess
from est_protocol.errors import ConfigurationError

DRAWS = 40_000


def draws(loss: Loss, seed: int = 7) -> list[bool]:
    process = LossProcess(loss, Random(seed).random)
    return [process.loses() for _ in range(DRAWS)]


def bursts(lost: list[bool]) -> list[int]:
    return [len(list(group)) for value, group in groupby(lost) if value]


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("burst", [None, 10.0])
def test_loses_at_its_rate(rate: float, burst: float | None) -> None:
    lost = draws(Loss(rate, burst))
    assert sum(lost) / DRAWS == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize("burst", [1.5, 4.0, 20.0])
def test_loses_in_bursts_of_the_wanted_length(burst: float) -> None:
    lengths = bursts(draws(Loss(0.1, burst)))
    assert sum(lengths) / len(lengths) == pytest.approx(burst, rel=0.1)


def test_without_bursts_one_loss_says_nothing_of_the_next() -> None:
    lengths = bursts(draws(Loss(0.3)))
    assert sum(lengths) / len(lengths) == pytest.approx(1 / 0.7, rel=0.03)


def test_the_same_seed_loses_the_same() -> None:
    assert draws(Loss(0.3, 3)) == draws(Loss(0.3, 3))
    assert draws(Loss(0.3, 3)) != draws(Loss(0.3, 3), seed=8)


@pytest.mark.parametrize(("rate", "burst"), [(-0.1, None), (1.1, None), (0.5, 0.5), (0.9, 2.0)])
def test_there_is_no_such_loss(rate: float, burst: float | None) -> None:
    with pytest.raises(ConfigurationError):
        Loss(rate, burst)


def test_a_packet_draws_the_same_whatever_the_one_before_drew() -> None:
    one, other = Draws(5), Draws(5)
    for draws, before in ((one, 1), (other, 7)):
        draws.next_packet()
        for _ in range(before):
            draws()
        draws.next_packet()
    assert [one() for _ in range(10)] == [other() for _ in range(10)]


def test_draws_are_even_and_not_alike() -> None:
    draws = Draws(1)
    values = []
    for _ in range(5000):
        draws.next_packet()
        values += [draws(), draws()]
    assert sum(values) / len(values) == pytest.approx(0.5, abs=0.01)
    assert len(set(values)) == len(values)
    assert 0 <= min(values) < 0.001
    assert 0.999 < max(values) < 1
    below = sum(a < 0.3 and b < 0.3 for a, b in pairwise(values)) / len(values)
    assert below == pytest.approx(0.09, abs=0.01)
