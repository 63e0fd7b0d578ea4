"""Which of the things sent over a link are lost: independently, or in bursts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from est_protocol.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Loss:
    """How much is lost, and how closely together.

    Bursts follow the simple Gilbert model: in the good state nothing is lost, in the bad one
    everything, and the chances to move from one to the other are those that give ``rate`` and
    ``burst``.

    :param rate: the share that is lost in the long run, from 0 to 1.
    :param burst: how many in a row are lost on average, at least 1; ``None``: each one is lost
        or not whatever became of the one before.
    :raises ConfigurationError: there is no such loss.
    """

    rate: float = 0.0
    burst: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ConfigurationError(f"a loss rate of {self.rate:g} is not in 0..1")
        if self.burst is not None:
            if self.burst < 1:
                raise ConfigurationError("a burst has a mean length of at least 1")
            if self.rate < 1 and self.rate / (1 - self.rate) > self.burst:
                raise ConfigurationError(
                    f"a loss rate of {self.rate:g} needs longer bursts than {self.burst:g}"
                )


class LossProcess:
    """Draws what is lost, one thing after the other.

    :param loss: how much, and how closely together.
    :param random: draws from 0 up to 1.
    """

    def __init__(self, loss: Loss, random: Callable[[], float]) -> None:
        self._loss = loss
        self._random = random
        self._bad = False
        if loss.burst is not None:
            # Begin where the chain is in the long run, not always in the good state.
            self._bad = loss.rate > 0 and random() < loss.rate

    def loses(self) -> bool:
        """Whether the next thing is lost."""
        rate, burst = self._loss.rate, self._loss.burst
        if rate in (0.0, 1.0):
            return rate == 1.0
        if burst is None:
            return self._random() < rate
        lost = self._bad
        # Mean stay in the bad state is ``burst``; the balance of both moves gives ``rate``.
        move = 1 / burst if self._bad else rate / (burst * (1 - rate))
        if self._random() < move:
            self._bad = not self._bad
        return lost
