"""A device's memory that outlasts a power loss, and the key store in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from cryptography import x509

from est_client.pending_request import PendingRequest
from est_protocol.errors import ConfigurationError
from est_protocol.keys import SigningKey, spki_der
from est_protocol.secure_channel.context import LocalCredentials


class LastWrite(StrEnum):
    """What becomes of a write that a power loss interrupts."""

    SURVIVES = "survives"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class FlashParameters:
    """The memory of a device.

    :param write_time: seconds that a write takes.
    :param last_write: what an interrupted write leaves behind. Either way it is whole: a device's
        file system sees to that.
    """

    write_time: float = 0.02
    last_write: LastWrite = LastWrite.LOST

    def __post_init__(self) -> None:
        if self.write_time < 0:
            raise ConfigurationError("a write takes no negative time")


class Flash:
    """Named values that a power loss leaves alone.

    :param parameters: how it writes.
    :param on_step: called before and after each write.
    """

    def __init__(
        self, parameters: FlashParameters, on_step: Callable[[], None] = lambda: None
    ) -> None:
        self._parameters = parameters
        self._on_step = on_step
        self._values: dict[str, Any] = {}
        #: How many writes were begun.
        self.writes = 0

    def read(self, name: str) -> Any:
        """A value, ``None`` if there is none."""
        return self._values.get(name)

    async def write(self, **values: Any) -> None:
        """Change values, all of them or none; ``None`` removes one."""
        self.writes += 1
        survives = self._parameters.last_write is LastWrite.SURVIVES
        self._on_step()
        if survives:
            self._change(values)
        await asyncio.sleep(self._parameters.write_time)
        if not survives:
            self._change(values)
        self._on_step()

    def erase(self, *names: str) -> None:
        """Remove values at once, as a factory reset does."""
        for name in names:
            self._values.pop(name, None)

    def _change(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if value is None:
                self._values.pop(name, None)
            else:
                self._values[name] = value


class FlashKeyStore:
    """A :class:`~est_client.interfaces.KeyStore` in a :class:`Flash`.

    :param make_key: makes the keys; is told the kind that is asked for, ``None`` for any.
    """

    def __init__(self, flash: Flash, make_key: Callable[[str | None], SigningKey]) -> None:
        self._flash = flash
        self._make_key = make_key

    async def identity(self) -> LocalCredentials | None:
        """The current key and certificate chain; see the protocol."""
        identity: LocalCredentials | None = self._flash.read("identity")
        return identity

    async def pending_key(self, kind: str | None = None) -> SigningKey:
        """The key to certify next; see the protocol."""
        key: SigningKey | None = self._flash.read("pending")
        if key is None:
            key = self._make_key(kind)
            await self._flash.write(pending=key)
        return key

    async def replace_identity(self, key: SigningKey, chain: Sequence[x509.Certificate]) -> None:
        """Make ``key`` and ``chain`` the identity; see the protocol."""
        if chain and spki_der(chain[0].public_key()) != spki_der(key.public_key()):
            raise ConfigurationError("the certificate is not for the key")
        await self._flash.write(
            identity=LocalCredentials(key, tuple(chain)), pending=None, request=None
        )

    async def discard_pending_key(self) -> None:
        """Forget the pending key; see the protocol."""
        await self._flash.write(pending=None)

    async def pending_request(self) -> PendingRequest | None:
        """The request that the server has put off; see the protocol."""
        request: PendingRequest | None = self._flash.read("request")
        return request

    async def remember_request(self, request: PendingRequest) -> None:
        """Keep ``request``; see the protocol."""
        await self._flash.write(request=request)

    async def forget_request(self) -> None:
        """Forget the pending request; see the protocol."""
        await self._flash.write(request=None)

    async def trust_anchors(self) -> tuple[x509.Certificate, ...]:
        """The trust anchors that were learned from the server; see the protocol."""
        return self._flash.read("anchors") or ()

    async def trust_fetched_at(self) -> datetime | None:
        """When the server was asked for them last; see the protocol."""
        fetched_at: datetime | None = self._flash.read("fetched_at")
        return fetched_at

    async def replace_trust_anchors(
        self, anchors: Sequence[x509.Certificate], fetched_at: datetime
    ) -> None:
        """Trust ``anchors``; see the protocol."""
        await self._flash.write(anchors=tuple(anchors), fetched_at=fetched_at)
