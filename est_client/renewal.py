"""When to renew a certificate: early enough to try for a long time, and not all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_client.client import EstClient
from est_client.interfaces import KeyStore
from est_client.lifecycle import Waiting, keep_trust, renew_device
from est_protocol.errors import ConfigurationError

#: CA certificates are fetched for their own sake at most once in this time.
_SHORTEST_REFRESH = timedelta(days=1)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """At which part of a certificate's life to renew it.

    :param fraction: of the lifetime, from 0 to 1; what remains is the time for repeats.
    :param spread: of the lifetime; a renewal comes up to half of it earlier or later, so that
        devices that were made together do not come together.
    :param refresh_again: of what is left of the life of a CA certificate that has come of age;
        after it /cacerts is asked once more, and a day later at the earliest.
    :raises ConfigurationError: the latest renewal would be after the end, or the earliest before
        the beginning.
    """

    fraction: float = 2 / 3
    spread: float = 0.1
    refresh_again: float = 0.1

    def __post_init__(self) -> None:
        half = self.spread / 2
        if not (self.spread >= 0 and self.fraction - half > 0 and self.fraction + half < 1):
            raise ConfigurationError("a renewal must fall within the life of the certificate")
        if not 0 <= self.refresh_again < 1:
            raise ConfigurationError("a CA has to be asked again before its certificate ends")

    def renew_at(
        self, certificate: x509.Certificate, random_fraction: float | None = None
    ) -> datetime:
        """The moment from which to renew ``certificate``, timezone-aware.

        :param random_fraction: from 0 to 1, the same at each look: of many draws the earliest
            would win. By default it is taken from the hash of the certificate.
        """
        if random_fraction is None:
            random_fraction = _fraction_of(certificate)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        part = self.fraction + self.spread * (random_fraction - 0.5)
        return begin + (end - begin) * part

    def refresh_at(
        self, certificate: x509.Certificate, fetched_at: datetime | None, random_fraction: float
    ) -> datetime:
        """The moment from which to ask /cacerts for what comes after a CA's ``certificate``.

        :param fetched_at: when it was asked last, timezone-aware; ``None`` if that is not known.
        :param random_fraction: from 0 to 1, another for each device and the same at each look.
        """
        of_age = self.renew_at(certificate, random_fraction)
        if fetched_at is None or fetched_at < of_age:
            return of_age
        left = certificate.not_valid_after_utc - fetched_at
        return fetched_at + max(left * self.refresh_again, _SHORTEST_REFRESH)


def _fraction_of(certificate: x509.Certificate) -> float:
    return int.from_bytes(certificate.fingerprint(hashes.SHA256())[:6], "big") / 2.0**48


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What :func:`keep_current` has done.

    :param renewed: the new certificate, if there is one.
    :param new_anchors: whether the trust anchors are no longer those of before.
    :param next_at: when the certificate is renewed next, timezone-aware.
    """

    renewed: x509.Certificate | None
    new_anchors: bool
    next_at: datetime


async def keep_current(
    client: EstClient,
    store: KeyStore,
    *,
    policy: RenewalPolicy | None = None,
    force: bool = False,
    rekey: bool = True,
    follow_csr_attributes: bool = False,
    values: Mapping[str, str] | None = None,
    waiting: Waiting | None = None,
) -> Upkeep:
    """Renew what is in ``store`` if it is time to; connect to nobody if it is not.

    The certificate of the device is renewed, after the CA certificates have been fetched. These
    are also fetched when only they come of age (RFC 7030 section 4.1.2), for a CA is rolled over
    before it ends, and then now and again; the store remembers when. To be called time and again,
    such as every hour, by whatever runs such jobs.

    :param policy: when it is time.
    :param force: renew in any case.
    :param rekey: for a new key rather than the current one.
    :param follow_csr_attributes: as for :func:`~est_client.lifecycle.renew_device`; and so
        ``values``.
    :param waiting: how to wait while the server says "not yet".
    :raises ConfigurationError: there is no certificate in the store.
    :raises EstError: as :func:`~est_client.lifecycle.renew_device`; the store keeps the identity
        that it had.
    """
    policy, waiting = policy or RenewalPolicy(), waiting or Waiting()
    before = await store.trust_anchors()
    renew_at, refresh_at = await _times(store, policy, waiting.now())
    renewed = None
    if force or waiting.now() >= renew_at:
        renewed = await renew_device(
            client,
            store,
            rekey=rekey,
            follow_csr_attributes=follow_csr_attributes,
            values=values,
            wait=waiting,
        )
    elif client.adopts_trust and waiting.now() >= refresh_at:
        client.identity = await store.identity()
        await client.cacerts()
        await keep_trust(client, store, waiting.now())
    renew_at, _ = await _times(store, policy, waiting.now())
    return Upkeep(renewed, await store.trust_anchors() != before, renew_at)


async def _times(
    store: KeyStore, policy: RenewalPolicy, now: datetime
) -> tuple[datetime, datetime]:
    """When to renew the device's certificate, and when to fetch those of the CA."""
    identity = await store.identity()
    if identity is None or not identity.chain:
        raise ConfigurationError("there is no certificate to renew in the key store: enroll first")
    fetched_at = await store.trust_fetched_at()
    if fetched_at is not None and fetched_at > now:
        # The clock was wrong then, or is now.
        fetched_at = None
    # The device's own, for all devices have the same certificates of the CA.
    random_fraction = _fraction_of(identity.chain[0])
    refresh = [
        policy.refresh_at(certificate, fetched_at, random_fraction)
        for certificate in (*await store.trust_anchors(), *identity.chain[1:])
    ]
    return policy.renew_at(identity.chain[0]), min(refresh, default=_NEVER)
