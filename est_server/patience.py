"""How long the server waits for those that it asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from est_protocol.errors import RefusalReason, RequestRefused

#: Seconds after which a client that was not answered in time should ask again.
_RETRY_AFTER = 30


@asynccontextmanager
async def in_time(seconds: float, reason: RefusalReason, sentence: str) -> AsyncIterator[None]:
    """Refuse the request if what is inside takes longer than ``seconds``; it is cancelled then.

    :raises RequestRefused: with ``reason`` and ``sentence``.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RequestRefused(
            reason, sentence, detail=f"no answer within {seconds:g} s", retry_after=_RETRY_AFTER
        ) from error
