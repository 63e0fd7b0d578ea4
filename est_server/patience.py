"""How long the server waits for those that it asks."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from est_protocol.errors import RefusalReason, RequestRefused

#: Seconds after which a client that was not answered in time should ask again.
_RETRY_AFTER = 30


def in_time(
    seconds: float, reason: RefusalReason, sentence: str
) -> AbstractAsyncContextManager[None]:
    """Refuse the request if what is inside takes longer than ``seconds``; it is cancelled then.

    :raises RequestRefused: with ``reason`` and ``sentence``.
    """
    return _InTime(seconds, reason, sentence)


class _InTime(AbstractAsyncContextManager[None]):
    # A generator would be shorter, but three of these are entered per enrollment.
    __slots__ = ("_reason", "_seconds", "_sentence", "_timeout")

    def __init__(self, seconds: float, reason: RefusalReason, sentence: str) -> None:
        self._seconds = seconds
        self._reason = reason
        self._sentence = sentence
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            raise self._refusal() from late
        if isinstance(error, TimeoutError):
            # Whatever is inside has its own time-outs, which mean the same.
            raise self._refusal() from error

    def _refusal(self) -> RequestRefused:
        return RequestRefused(
            self._reason,
            self._sentence,
            detail=f"no answer within {self._seconds:g} s",
            retry_after=_RETRY_AFTER,
        )
