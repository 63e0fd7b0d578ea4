"""What a device supplies: a place for its keys, its certificates and what it trusts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from cryptography import x509

from est_client.pending_request import PendingRequest
from est_protocol.keys import SigningKey
from est_protocol.secure_channel.context import LocalCredentials


class KeyStore(Protocol):
    """Keeps the identity of one device, and the key that is to become its next one.

    Every method is atomic and durable: once it has returned, its effect survives a power loss,
    and interrupted at any moment it has happened or has not. So there is always a working
    identity, and a request that was interrupted is repeated with the same key, by which the
    server recognizes it.
    """

    async def identity(self) -> LocalCredentials | None:
        """The current key and certificate chain; an empty chain is a bare key.

        :raises ConfigurationError: what is stored cannot be read.
        """
        ...

    async def pending_key(self, kind: str | None = None) -> SigningKey:
        """The key to certify next: made at the first call, the same one until it is replaced.

        :param kind: what to make, if one is made; see :data:`~est_protocol.keys.KEY_KINDS`.
        :raises ConfigurationError: it cannot be read or stored.
        """
        ...

    async def replace_identity(self, key: SigningKey, chain: Sequence[x509.Certificate]) -> None:
        """Make ``key`` and ``chain`` the identity, and forget the pending key and request.

        :param chain: the verified certificate and its issuers; empty for a bare key.
        :raises ConfigurationError: they do not belong together, or cannot be stored; the old
            identity is still there.
        """
        ...

    async def discard_pending_key(self) -> None:
        """Forget the pending key, such as after a refusal for good.

        :raises ConfigurationError: it cannot be removed.
        """
        ...

    async def pending_request(self) -> PendingRequest | None:
        """The request that the server has put off, if there is one.

        :raises ConfigurationError: what is stored cannot be read.
        """
        ...

    async def remember_request(self, request: PendingRequest) -> None:
        """Keep ``request`` until the identity is replaced, or it is forgotten.

        :raises ConfigurationError: it cannot be stored.
        """
        ...

    async def forget_request(self) -> None:
        """Forget the pending request, such as after a refusal for good.

        :raises ConfigurationError: it cannot be removed.
        """
        ...

    async def trust_anchors(self) -> tuple[x509.Certificate, ...]:
        """The trust anchors that were learned from the server; none before.

        :raises ConfigurationError: they cannot be read.
        """
        ...

    async def trust_fetched_at(self) -> datetime | None:
        """When the server was asked for them last, timezone-aware; ``None`` if that is not known.

        :raises ConfigurationError: what is stored cannot be read.
        """
        ...

    async def replace_trust_anchors(
        self, anchors: Sequence[x509.Certificate], fetched_at: datetime
    ) -> None:
        """Trust ``anchors``, at least one, and no longer those before.

        :param fetched_at: when the server was asked for them, timezone-aware.
        :raises ConfigurationError: they cannot be stored; the old ones are still there.
        """
        ...
