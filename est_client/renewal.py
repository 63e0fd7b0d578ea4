"""When to renew a certificate: early enough to try for a long time, and not all at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

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

    def renew_at(self, certificate: x509.Certificate, random_fraction: float) -> datetime:
        """The moment from which to renew ``certificate``, timezone-aware.

        :param random_fraction: from 0 to 1. Draw it once per certificate and keep it: drawn at
            each look, the earliest of many looks wins.
        """
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        part = self.fraction + self.spread * (random_fraction - 0.5)
        return begin + (end - begin) * part
