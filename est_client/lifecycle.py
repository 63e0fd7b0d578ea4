"""A device's identity from the first enrollment on: EstClient and key store together.

Interrupted anywhere, even by a power loss, each function can simply be called again: it repeats
the request with the key that it was made for, and the server answers with the same certificate.
So can it where the server has said "not yet": the store knows what was asked, and when to ask
again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509

from est_client.client import EstClient
from est_client.csr_contents import kind_wished, names_to_ask_for
from est_client.interfaces import KeyStore
from est_client.pending_request import PendingRequest
from est_client.self_signed import udid_name
from est_protocol import pkcs10, wanted_keys
from est_protocol.csr_wishes import CsrWishes
from est_protocol.errors import ConfigurationError, ServerRefused, StillPending
from est_protocol.keys import SigningKey, key_kind, spki_sha256
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials

#: Seconds before a request is repeated at least, whatever the server says.
_MINIMUM_DELAY = 1.0


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How to wait for a server that says "not yet".

    :param seconds: to wait in all before giving up for now.
    :param now: the current time, timezone-aware.
    :param sleep: waits for a number of seconds.
    """

    seconds: float = 0.0
    now: Callable[[], datetime] = _now
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


async def enroll_device(
    client: EstClient,
    store: KeyStore,
    *,
    fresh_key: bool = False,
    birth: LocalCredentials | None = None,
    subject: x509.Name | None = None,
    subject_alt_names: tuple[x509.GeneralName, ...] = (),
    change_names: bool = False,
    follow_csr_attributes: bool = False,
    values: Mapping[str, str] | None = None,
    kind: str | None = None,
    wait: float | Waiting = 0.0,
) -> x509.Certificate:
    """Enroll with what is in ``store``, and make the result its identity.

    An empty store gets a new bare key first.

    :param fresh_key: certify a new key under the stored identity, a birth certificate for
        instance, instead of the identity's own.
    :param birth: authenticate with this instead of what is in the store; implies ``fresh_key``.
    :param subject: the name to ask for; by default that of a request that is pending, or the
        UDID.
    :param subject_alt_names: subjectAltName entries to ask for; likewise.
    :param change_names: as for :meth:`~est_client.client.EstClient.simpleenroll`; likewise.
    :param follow_csr_attributes: make key and CSR as the server asks for them at /csrattrs; the
        key only where it is a fresh one.
    :param values: texts for attributes that the server asks for, by short name or OID.
    :param kind: the kind of key to make, where one is made.
    :param wait: seconds to wait in all while the server says "not yet".
    :raises EstError: as :meth:`~est_client.client.EstClient.simpleenroll`; the store keeps the
        identity that it had.
    """
    waiting = _waiting(wait)
    identity = birth or await store.identity()
    if identity is None:
        identity = LocalCredentials(await store.pending_key(kind), ())
        await store.replace_identity(identity.key, ())
    client.identity = identity
    wishes = await client.csrattrs() if follow_csr_attributes else None
    pending = await store.pending_request()

    async def ask(key: SigningKey, wishes: CsrWishes | None) -> x509.Certificate:
        name, alt_names, changes = subject, subject_alt_names, change_names
        if name is None and not alt_names and _is_for(pending, Operation.SIMPLEENROLL, key):
            assert pending is not None
            name, alt_names = pending.csr.subject, pending.csr.subject_alt_names
            if change := pending.csr.change_subject_name:
                changes = True
                name, alt_names = change.subject, change.subject_alt_names or ()
        if name is None and not changes:
            name = udid_name(key.public_key())

        async def once() -> x509.Certificate:
            return await client.simpleenroll(
                key=key,
                subject=name,
                subject_alt_names=alt_names,
                change_names=changes,
                follow_csr_attributes=wishes or False,
                values=values,
            )

        asked = _remembered(key, name, alt_names, changes=changes)
        return await _until_decided(once, Operation.SIMPLEENROLL, asked, store, waiting)

    if fresh_key or birth is not None:
        key, certificate = await _with_fresh_key(store, wishes, kind, ask)
    else:
        key, certificate = identity.key, await ask(identity.key, wishes)
    chain = client.chain_of(certificate)
    await keep_trust(client, store, waiting.now())
    await store.replace_identity(key, chain)
    client.identity = LocalCredentials(key, chain)
    return certificate


def _remembered(
    key: SigningKey,
    name: x509.Name | None,
    alt_names: tuple[x509.GeneralName, ...],
    *,
    changes: bool,
) -> pkcs10.CertificationRequest:
    """What is kept of a request, to go on with it: its key, and the names that are asked for."""
    if not changes:
        assert name is not None
        return pkcs10.build(key, name, subject_alt_names=alt_names)
    change = names_to_ask_for(name, alt_names)
    return pkcs10.build(key, udid_name(key.public_key()), change=change)


async def renew_device(
    client: EstClient,
    store: KeyStore,
    *,
    rekey: bool = True,
    follow_csr_attributes: bool = False,
    values: Mapping[str, str] | None = None,
    kind: str | None = None,
    wait: float | Waiting = 0.0,
) -> x509.Certificate:
    """Renew the identity in ``store``.

    The CA certificates are fetched first, so that a roll-over of the CA is followed (RFC 7030
    section 4.1.3); what they say is kept before anything is asked for.

    :param rekey: for a new key rather than the current one.
    :param follow_csr_attributes: make key and CSR as the server asks for them, but for the names.
    :param values: as for :func:`enroll_device`.
    :param kind: the kind of key to make; as the server asks, or as the current one, by default.
    :param wait: seconds to wait in all while the server says "not yet".
    :raises EstError: as :meth:`~est_client.client.EstClient.simplereenroll`; the store keeps the
        identity that it had.
    """
    waiting = _waiting(wait)
    identity = await store.identity()
    if identity is None or not identity.chain:
        raise ConfigurationError("there is no certificate to renew in the key store")
    client.identity, current = identity, identity.chain[0]
    await client.cacerts()
    await keep_trust(client, store, waiting.now())
    wishes = await client.csrattrs() if follow_csr_attributes else None

    async def ask(key: SigningKey, wishes: CsrWishes | None) -> x509.Certificate:
        async def once() -> x509.Certificate:
            return await client.simplereenroll(
                key=key, follow_csr_attributes=wishes or False, values=values
            )

        asked = pkcs10.build(key, current.subject)
        return await _until_decided(once, Operation.SIMPLEREENROLL, asked, store, waiting)

    if rekey:
        same_kind = key_kind(identity.key.public_key())
        key, certificate = await _with_fresh_key(store, wishes, kind, ask, otherwise=same_kind)
    else:
        key, certificate = identity.key, await ask(identity.key, wishes)
    await store.replace_identity(key, client.chain_of(certificate))
    return certificate


async def keep_trust(client: EstClient, store: KeyStore, now: datetime) -> None:
    """Keep the trust anchors that ``client`` has learned, if it has, and when."""
    if client.adopts_trust and client.authority is not None and client.trust is not None:
        await store.replace_trust_anchors(client.trust.explicit, now)


async def _with_fresh_key(
    store: KeyStore,
    wishes: CsrWishes | None,
    kind: str | None,
    ask: Callable[[SigningKey, CsrWishes | None], Awaitable[x509.Certificate]],
    *,
    otherwise: str | None = None,
) -> tuple[SigningKey, x509.Certificate]:
    """Ask for the pending key of ``store``, and for another if that one will not do.

    A pending key of the wrong kind is asked for all the same, once: if it was certified and the
    answer got lost, the server repeats it, and would not certify any other.

    :param kind: the kind that the caller wants.
    :param otherwise: the kind to make if neither the caller nor the server wants one.
    """
    made = kind or kind_wished(wishes) or otherwise
    key = await store.pending_key(made)
    if _fits(key, kind, wishes):
        return key, await ask(key, wishes)
    try:
        return key, await ask(key, replace(wishes, key=None) if wishes else None)
    except ServerRefused as refused:
        if refused.retry_after is not None:
            raise
    await store.discard_pending_key()
    key = await store.pending_key(made)
    return key, await ask(key, wishes)


def _fits(key: SigningKey, kind: str | None, wishes: CsrWishes | None) -> bool:
    public = key.public_key()
    if kind is not None:
        return key_kind(public) == kind
    return wishes is None or wishes.key is None or wanted_keys.fits(wishes.key, public)


def _is_for(pending: PendingRequest | None, operation: Operation, key: SigningKey) -> bool:
    return pending is not None and pending.is_for(operation, spki_sha256(key.public_key()))


def _waiting(wait: float | Waiting) -> Waiting:
    return wait if isinstance(wait, Waiting) else Waiting(wait)


async def _until_decided(
    ask: Callable[[], Awaitable[x509.Certificate]],
    operation: Operation,
    csr: pkcs10.CertificationRequest,
    store: KeyStore,
    waiting: Waiting,
) -> x509.Certificate:
    """Ask as often as the server puts it off and there is time, and not before it says.

    :raises StillPending: the server has not decided, or may not be asked yet.
    """
    pending, left, delay = await store.pending_request(), waiting.seconds, 0.0
    if pending is not None and pending.is_for(operation, csr.key_sha256):
        delay = pending.seconds_left(waiting.now())
    while True:
        if delay > left:
            raise StillPending(math.ceil(delay))
        if delay > 0:
            await waiting.sleep(delay)
            left -= delay
        try:
            return await ask()
        except StillPending as error:
            delay = max(_MINIMUM_DELAY, error.retry_after)
        except ServerRefused as error:
            if error.retry_after is None:
                await store.forget_request()
                raise
            if error.retry_after > left:
                raise
            delay = max(_MINIMUM_DELAY, error.retry_after)
            continue
        now = waiting.now()
        until = now + timedelta(seconds=delay)
        await store.remember_request(PendingRequest(operation, csr, now, until))
