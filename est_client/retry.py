"""How often and how long a client repeats a request."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from est_protocol.errors import ChannelError, EstError

#: Seconds to wait at least before a repeat, whatever the server says.
_MINIMUM_DELAY = 1.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What to do when the answer to a request is lost.

    The server recognizes the repeat and answers with the certificate that it has issued, or
    issues the one that it has not. RFC 9148 section 4.7 asks for "the identical CSR"; a CSR that
    is linked to its channel cannot be, so it is built anew over the same key.

    :param attempts: how often a request is sent at most; 1 never repeats.
    :param first_delay: seconds before the first repeat; doubled before each further one.
    :param longest_delay: seconds before any repeat at most.
    :param spread: the fraction by which a delay is lengthened at random, so that a fleet does
        not come back all at once.
    :param longest_heeded: seconds for which a server that says "not yet" is heeded at most. One
        that asks for more, by mistake or in order to have certificates expire, is asked again
        after this time.
    """

    attempts: int = 4
    first_delay: float = 1.0
    longest_delay: float = 60.0
    spread: float = 0.5
    longest_heeded: float = 86400.0

    def delay(self, losses: int, random_fraction: float) -> float:
        """Seconds to wait after the answer was lost for the ``losses``-th time, from 1.

        :param random_fraction: from 0 to 1.
        """
        delay = min(self.first_delay * 2.0 ** (losses - 1), self.longest_delay)
        return delay * (1.0 + self.spread * random_fraction)

    def heeded(self, retry_after: int) -> int:
        """Seconds to wait for a server that asks to come back in ``retry_after`` seconds."""
        return int(min(retry_after, self.longest_heeded))


class Patience:
    """What is left of the repeats and of the time for one request.

    :param wait: seconds to wait in all while the server says "not yet".
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        wait: float,
        monotonic: Callable[[], float],
        random_fraction: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._monotonic = monotonic
        self._random_fraction = random_fraction
        self._deadline = monotonic() + wait
        self._losses = 0

    def after_loss(self, error: ChannelError) -> float:
        """Seconds to wait after an answer was lost.

        :raises ChannelError: ``error``, if there is no attempt left.
        """
        self._losses += 1
        if self._losses >= self._policy.attempts:
            raise error
        return self._policy.delay(self._losses, self._random_fraction())

    def after_not_yet(self, retry_after: int, error: EstError) -> float:
        """Seconds to wait after the server asked to come back in ``retry_after`` seconds.

        :raises EstError: ``error``, if that is later than the caller wants to wait.
        """
        delay = max(float(retry_after), _MINIMUM_DELAY)
        if self._monotonic() + delay > self._deadline:
            raise error
        # The request was answered, so what is lost from here on is lost for the first time.
        self._losses = 0
        return delay
