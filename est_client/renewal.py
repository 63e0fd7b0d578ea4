"""When to renew a certificate: early enough to try for a long time, and not all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_client.client import EstClient
from est_client.interfaces import KeyStore
from est_client.lifecycle import Waiting, keep_trust, renew_device
from est_protocol.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """At which part of a certificate's life to renew it.

    :param fraction: of the lifetime, from 0 to 1; what remains is the time for repeats.
    :param spread: of the lifetime; a renewal comes up to half of it earlier or later, so that
        devices that were made together do not come together.
    :raises ConfigurationError: the latest renewal would be after the end, or the earliest before
        the beginning.
    """

    fraction: float = 2 / 3
    spread: float = 0.1

    def __post_init__(self) -> None:
        half = self.spread / 2
        if not (self.spread >= 0 and self.fraction - half > 0 and self.fraction + half < 1):
            raise ConfigurationError("a renewal must fall within the life of the certificate")

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
    before it ends. To be called time and again, such as every hour, by whatever runs such jobs.

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
    renew_at, refresh_at = await _times(store, policy)
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
    elif refresh_at is not None and waiting.now() >= refresh_at:
        client.identity = await store.identity()
        await client.cacerts()
        await keep_trust(client, store)
    renew_at, _ = await _times(store, policy)
    return Upkeep(renewed, await store.trust_anchors() != before, renew_at)


async def _times(store: KeyStore, policy: RenewalPolicy) -> tuple[datetime, datetime | None]:
    """When to renew the device's certificate, and when to fetch those of the CA."""
    identity = await store.identity()
    if identity is None or not identity.chain:
        raise ConfigurationError("there is no certificate to renew in the key store: enroll first")
    anchors = await store.trust_anchors()
    return policy.renew_at(identity.chain[0]), _earliest(policy, (*anchors, *identity.chain[1:]))


def _earliest(policy: RenewalPolicy, certificates: Iterable[x509.Certificate]) -> datetime | None:
    return min((policy.renew_at(certificate) for certificate in certificates), default=None)
