"""How often a secret may be guessed."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from est_protocol.errors import RefusalReason, RequestRefused

#: What is counted: ``user`` or ``at``, and which.
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class GuessLimits:
    """Bounds of wrong guesses, which the worker processes of one server share: each takes an equal
    part, rounded up. Several servers over one store count each for themselves.

    :param per_user: wrong secrets of one user name within ``window``, under whatever label.
    :param per_address: wrong secrets from one address within ``window``.
    :param window: after which wrong guesses are forgotten.
    :param remembered: names and addresses that are counted at one time; the oldest go.
    """

    per_user: int = 10
    per_address: int = 30
    window: timedelta = timedelta(minutes=5)
    remembered: int = 10_000

    def shared_by(self, processes: int) -> Self:
        """The part of one of ``processes``: the kernel may give each the same peer's connections,
        and they do not know of one another's."""
        return replace(
            self,
            per_user=-(-self.per_user // processes),
            per_address=-(-self.per_address // processes),
        )


class Guess:
    """One guess under way; see :meth:`GuessCounter.guess`."""

    def __init__(self) -> None:
        #: Whether it was found wrong; one that was never found to be either is not.
        self.wrong = False


class GuessCounter:
    """Counts wrong guesses, and lets no more be under way than may still turn out wrong.

    Those beyond wait for the others, so that many right ones at one time, as of a fleet with one
    secret, all get their turn, and many wrong ones do not slip through.
    """

    def __init__(self, limits: GuessLimits) -> None:
        self._limits = limits
        self._wrong: OrderedDict[_Key, tuple[datetime, int]] = OrderedDict()
        self._under_way: Counter[_Key] = Counter()
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def guess(
        self, user: str, address: str, now: Callable[[], datetime]
    ) -> AsyncIterator[Guess]:
        """Make a guess within the context, and tell it if it was wrong.

        :raises RequestRefused: there were too many wrong ones; it must not be made.
        """
        keys = [("user", user), ("at", address)]
        await self._turn_of(keys, now)
        self._under_way.update(keys)
        guess = Guess()
        try:
            yield guess
        finally:
            self._end(keys, guess, now())

    async def _turn_of(self, keys: Sequence[_Key], now: Callable[[], datetime]) -> None:
        most = dict(zip(keys, (self._limits.per_user, self._limits.per_address), strict=True))
        while True:
            for key in keys:
                self._require_left(key, most[key], now())
            if all(self._count(k, now())[1] + self._under_way[k] < most[k] for k in keys):
                return
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting

    def _require_left(self, key: _Key, most: int, now: datetime) -> None:
        since, count = self._count(key, now)
        if count < most:
            return
        left = since + self._limits.window - now
        raise RequestRefused(
            RefusalReason.TOO_MANY_ATTEMPTS,
            "there were too many wrong credentials; try again later",
            detail=f"{key[0]} {key[1]!r}: {count} within {self._limits.window}",
            retry_after=max(1, int(left.total_seconds())),
        )

    def _end(self, keys: Sequence[_Key], guess: Guess, now: datetime) -> None:
        self._under_way.subtract(keys)
        for key in keys:
            if not self._under_way[key]:
                del self._under_way[key]
            if guess.wrong:
                since, count = self._count(key, now)
                self._wrong[key] = since, count + 1
                self._wrong.move_to_end(key)
        while len(self._wrong) > self._limits.remembered:
            self._wrong.popitem(last=False)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _count(self, key: _Key, now: datetime) -> tuple[datetime, int]:
        since, count = self._wrong.get(key, (now, 0))
        return (now, 0) if now - since >= self._limits.window else (since, count)
