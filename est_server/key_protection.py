"""What an operator says about keys that the server generates, and where it may be asked for more.

Part of :mod:`est_server.interfaces`, which would be too long with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from cryptography import x509

from est_protocol.key_package import KeyGenerator
from est_protocol.keys import PublicKey


class KeyProtection(Protocol):
    """Finds the keys that generated keys are encrypted with, beside TLS (RFC 7030 4.4.1).

    Verified before the call: an authorizer has granted a certificate for ``device`` to the client
    that asks. How such a key came to both ends is no part of EST. Whoever holds the key that is
    returned can read the generated one, so answer with a key of this very device, or ``None``.
    """

    async def symmetric_key(self, identifier: bytes, device: str, /) -> bytes | None:
        """The key, of 16, 24 or 32 octets, that DecryptKeyIdentifier names."""
        ...

    async def recipient_key(
        self, identifier: bytes, device: str, /
    ) -> x509.Certificate | PublicKey | None:
        """The RSA or EC key that AsymmetricDecryptKeyIdentifier names, or the certificate
        around it, whose key usage then has to allow it. Asked only if it is not the key of the
        certificate that the client presented."""
        ...


@dataclass(frozen=True, slots=True)
class KeyGenerationPolicy:
    """How private keys are generated for clients (RFC 7030 section 4.4).

    :param kinds: kinds of key, as :data:`est_protocol.keys.KEY_KINDS` names them; the kind of
        the key in the CSR if it is one of them, else the first.
    :param require_protected_key: refuse clients that do not have the key encrypted beside TLS.
    :param retry_window: for how long the same client may ask again because its answer was lost.
        Its repeat replaces the certificate whose key it never saw; later it is refused, until an
        operator resets the device.
    :param generator: signs the encrypted keys; without one, no key can be had encrypted.
    :param protection: finds keys to encrypt with beside those of client certificates.
    """

    kinds: tuple[str, ...] = ("ec-p256",)
    require_protected_key: bool = False
    retry_window: timedelta = timedelta(minutes=5)
    generator: KeyGenerator | None = None
    protection: KeyProtection | None = None
