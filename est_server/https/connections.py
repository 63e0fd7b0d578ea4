"""What the listeners of HTTP know of what they serve, be it EST alone or any application."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Protocol


class HttpConnection(asyncio.Protocol):
    """The protocol of one HTTP connection, which keeps the time-outs of its requests itself."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether there is nothing to do but wait for the client: for a request or the rest of
        its body, or until it takes what it was answered."""


class RunningHttp(Protocol):
    """What is served."""

    def connection(self) -> HttpConnection:
        """The protocol of a new connection."""
        ...

    async def close(self) -> None:
        """Finish what is under way within bounds, and end the connections."""
        ...
