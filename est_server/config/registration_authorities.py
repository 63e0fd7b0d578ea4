"""The settings of registration authorities."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509

from est_protocol.errors import ConfigurationError
from est_server.config.hashes import sha256_of_hex
from est_server.registration_authorities import RegistrationAuthorityPolicy


@dataclass(frozen=True, slots=True)
class RegistrationAuthoritySettings:
    """Registration authorities (RFC 7030 section 3.7): clients with a certificate of the EST CA
    and the extended key usage id-kp-cmcRA in it, as ``est-server ra issue`` makes them. They
    enroll on behalf of devices; the device itself is authorized all the same, by the key of its
    request. Without this table there are none.

    :param subjects: subjects of their certificates (RFC 4514), issued by this label's authority.
    :param certificates: SHA-256 of their certificates in hexadecimal, of any authority here.
    :param foreign_linking: take requests that are linked to another channel than the registration
        authority's: it has to have checked them against its own.
    :param renewals: let them renew the certificate of a device, for the same key.
    :param retry_window: how long after a renewal a repeated request gets the same certificate.
    """

    subjects: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    foreign_linking: bool = False
    renewals: bool = False
    retry_window: timedelta = timedelta(minutes=5)

    def policy(self) -> RegistrationAuthorityPolicy:
        """What the service goes by.

        :raises ConfigurationError: none is named, or not in a form that can be read.
        """
        if not self.subjects and not self.certificates:
            raise ConfigurationError("neither subjects nor certificates name anybody")
        return RegistrationAuthorityPolicy(
            subjects=frozenset(map(_subject, self.subjects)),
            certificates=frozenset(map(sha256_of_hex, self.certificates)),
            foreign_linking=self.foreign_linking,
            renewals=self.renewals,
            retry_window=self.retry_window,
        )


def _subject(text: str) -> x509.Name:
    try:
        name = x509.Name.from_rfc4514_string(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no name (RFC 4514): {error}") from error
    if not name.rdns:
        raise ConfigurationError("an empty subject is nobody's name")
    return name
