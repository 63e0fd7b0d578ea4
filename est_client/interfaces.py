"""What a device supplies: a place for its keys and certificates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cryptography import x509

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

    async def pending_key(self) -> SigningKey:
        """The key to certify next: made at the first call, the same one until it is replaced.

        :raises ConfigurationError: it cannot be read or stored.
        """
        ...

    async def replace_identity(self, key: SigningKey, chain: Sequence[x509.Certificate]) -> None:
        """Make ``key`` and ``chain`` the identity, and forget the pending key.

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
