"""When the devices of a fleet come."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from est_protocol.errors import ConfigurationError


class Pattern(StrEnum):
    """How the arrivals of a fleet are spread."""

    AT_ONCE = "at-once"
    POISSON = "poisson"
    EVEN = "even"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When the devices of a fleet switch on, in seconds from the start.

    :param pattern: ``at-once``: all within a second, as after a power cut; ``poisson``:
        independently of one another, on average all within ``within`` seconds; ``even``: at
        random moments of ``within`` seconds, as the renewals of a day.
    :param within: seconds.
    """

    pattern: Pattern = Pattern.AT_ONCE
    within: float = 60.0

    def __post_init__(self) -> None:
        if self.within <= 0:
            raise ConfigurationError("arrivals need a positive time")

    def moments(self, devices: int, random: Random) -> list[float]:
        """One moment for each device, the earliest first."""
        if self.pattern is Pattern.POISSON:
            moment, moments = 0.0, []
            for _ in range(devices):
                moment += random.expovariate(devices / self.within)
                moments.append(moment)
            return moments
        spread = 1.0 if self.pattern is Pattern.AT_ONCE else self.within
        return sorted(random.random() * spread for _ in range(devices))
