"""The commands of ``est-client`` that keep what a device has in a key store."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from cryptography import x509

from est_client.command_inputs import (
    DEFAULT_KIND,
    alt_names_of,
    announce,
    deliver,
    identity_of,
    location_of,
    make_client,
    say,
    subject_of,
    trust_of,
    values_of,
)
from est_client.key_store import FileKeyStore
from est_client.lifecycle import Waiting, enroll_device
from est_client.renewal import Upkeep, keep_current
from est_client.retry import RetryPolicy
from est_protocol.errors import ConfigurationError, EstError, StillPending
from est_protocol.keys import SigningKey, spki_der

_log = logging.getLogger(__name__)

#: After a failure ``--watch`` tries again in ten minutes, and then ever less often.
_AFTER_FAILURE = RetryPolicy(first_delay=600.0, longest_delay=6 * 3600.0)
#: Seconds for which ``--watch`` sleeps at most and at least, for clocks that are set meanwhile.
_LONGEST_SLEEP, _SHORTEST_SLEEP = 86400.0, 60.0


async def enroll_in_store(options: argparse.Namespace) -> None:
    """``est-client enroll --store``.

    :raises EstError: it did not work; the store is as it was, or knows what to ask again.
    """
    if options.new_key is not None:
        raise ConfigurationError("--new-key FILE and --store DIR do not go together")
    location, store = location_of(options), _store(options)
    with store.locked():
        birth = identity_of(options) if options.key else None
        if birth is not None and not birth.chain:
            # A bare key is good for a certificate of its own, and vouches for no other key.
            await _take_in(store, birth.key, options)
            birth = None
        trust = trust_of(options, await store.trust_anchors())
        async with make_client(
            options,
            location,
            None,
            trust,
            present_bare_key=birth is not None,
        ) as client:
            certificate = await enroll_device(
                client,
                store,
                birth=birth,
                subject=subject_of(options.subject),
                subject_alt_names=alt_names_of(options.alt_name),
                change_names=options.change_names,
                follow_csr_attributes=options.follow_csrattrs,
                values=values_of(options.value),
                kind=options.key_type,
                wait=options.wait,
            )
    _deliver_if_asked(options, certificate)
    announce("enrolled", certificate)


async def _take_in(store: FileKeyStore, key: SigningKey, options: argparse.Namespace) -> None:
    """Have a bare key in the store, to be certified there."""
    identity = await store.identity()
    if identity is None:
        await store.replace_identity(key, ())
        say(f"the key in {options.key} is in {options.store} now")
    elif spki_der(identity.key.public_key()) != spki_der(key.public_key()):
        raise ConfigurationError(
            f"{options.store} has another key than {options.key}: leave --key out to enroll the "
            "one that is there, or take another directory"
        )


async def renew(options: argparse.Namespace) -> None:
    """``est-client renew``.

    :raises EstError: it did not work; the store has the identity that it had. Never with
        ``--watch``, but for a store that cannot be used at all.
    """
    store = _store(options)
    with store.locked():

        async def once() -> Upkeep:
            return await _renew_once(options, store)

        if options.watch:
            await watch(once, sleep=asyncio.sleep)
        else:
            await once()


async def _renew_once(options: argparse.Namespace, store: FileKeyStore) -> Upkeep:
    trust = trust_of(options, await store.trust_anchors())
    async with make_client(options, location_of(options), None, trust, keep_secrets=True) as client:
        done = await keep_current(
            client,
            store,
            force=options.force,
            rekey=not options.keep_key,
            follow_csr_attributes=options.follow_csrattrs,
            values=values_of(options.value),
            waiting=Waiting(options.wait),
        )
    if done.new_anchors:
        say("the trust anchors have changed, as the server says")
    if done.renewed is None:
        say(f"not yet due: the certificate is renewed on {done.next_at:%Y-%m-%dT%H:%M:%SZ}")
    else:
        _deliver_if_asked(options, done.renewed)
        announce("renewed", done.renewed)
    return done


async def watch(
    once: Callable[[], Awaitable[Upkeep]],
    *,
    sleep: Callable[[float], Awaitable[None]],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    random_fraction: Callable[[], float] = random.random,
) -> None:
    """Renew whenever it is due, until cancelled; a failure is logged, and tried again later.

    :param sleep: waits for a number of seconds.
    :raises ConfigurationError: the store or an option is not usable.
    """
    failures = 0
    while True:
        try:
            done = await once()
        except ConfigurationError:
            raise
        except StillPending as pending:
            delay = max(float(pending.retry_after), _SHORTEST_SLEEP)
            _log.warning("%s", pending)
        except (EstError, OSError) as error:
            failures += 1
            delay = _AFTER_FAILURE.delay(min(failures, 16), random_fraction())
            _log.error("%s; trying again in %.0f s", error, delay)
        else:
            failures = 0
            left = (done.next_at - now()).total_seconds()
            delay = min(max(left, _SHORTEST_SLEEP), _LONGEST_SLEEP)
        await sleep(delay)


def _store(options: argparse.Namespace) -> FileKeyStore:
    return FileKeyStore(options.store, key_kind=options.key_type or DEFAULT_KIND)


def _deliver_if_asked(options: argparse.Namespace, certificate: x509.Certificate) -> None:
    if options.out is not None:
        deliver(options.out, [certificate])
