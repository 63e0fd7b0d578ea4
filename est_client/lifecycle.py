"""A device's identity from the first enrollment on: EstClient and key store together.

Interrupted anywhere, even by a power loss, each function can simply be called again: it repeats
the request with the key that it was made for, and the server answers with the same certificate.
"""

from __future__ import annotations

from cryptography import x509

from est_client.client import EstClient
from est_client.interfaces import KeyStore
from est_protocol.errors import ConfigurationError
from est_protocol.secure_channel.context import LocalCredentials


async def enroll_device(
    client: EstClient,
    store: KeyStore,
    *,
    fresh_key: bool = False,
    subject: x509.Name | None = None,
    wait: float = 0.0,
) -> x509.Certificate:
    """Enroll with what is in ``store``, and make the result its identity.

    An empty store gets a new bare key first.

    :param fresh_key: certify a new key under the stored identity, a birth certificate for
        instance, instead of the identity's own.
    :param subject: the name to ask for; the UDID by default.
    :param wait: seconds to wait in all while the server says "not yet".
    :raises EstError: as :meth:`~est_client.client.EstClient.simpleenroll`; the store keeps the
        identity that it had.
    """
    identity = await store.identity()
    if identity is None:
        identity = LocalCredentials(await store.pending_key(), ())
        await store.replace_identity(identity.key, ())
    client.identity = identity
    key = await store.pending_key() if fresh_key else identity.key
    certificate = await client.simpleenroll(key=key, subject=subject, wait=wait)
    chain = client.chain_of(certificate)
    await store.replace_identity(key, chain)
    client.identity = LocalCredentials(key, chain)
    return certificate


async def renew_device(
    client: EstClient, store: KeyStore, *, rekey: bool = True, wait: float = 0.0
) -> x509.Certificate:
    """Renew the identity in ``store``.

    :param rekey: for a new key rather than the current one.
    :param wait: seconds to wait in all while the server says "not yet".
    :raises EstError: as :meth:`~est_client.client.EstClient.simplereenroll`; the store keeps the
        identity that it had.
    """
    identity = await store.identity()
    if identity is None or not identity.chain:
        raise ConfigurationError("there is no certificate to renew in the key store")
    client.identity = identity
    key = await store.pending_key() if rekey else identity.key
    certificate = await client.simplereenroll(key=key, wait=wait)
    await store.replace_identity(key, client.chain_of(certificate))
    return certificate
