"""What the certificates of a label look like."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

#: Twice as far as anybody plans, and far from where the calendar ends (the year 9999).
LONGEST_VALIDITY = timedelta(days=36_525)


class OperationalKey(StrEnum):
    """Which key an operational certificate may be issued for.

    ``BY_IDENTITY``: a device known by its bare listed key gets a certificate for that very key,
    a device with a birth certificate for any key it can prove possession of.
    ``LISTED``: always the listed root key. ``FRESH``: never the listed root key. ``ANY``: either.
    """

    BY_IDENTITY = "by-identity"
    LISTED = "listed"
    FRESH = "fresh"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class CertificateProfile:
    """What the certificates of a label look like.

    :param name: for logs and the configuration.
    :param validity: how long a certificate is valid from the moment of issue.
    :param backdate: how far notBefore lies in the past, for devices whose clock is slow.
    :param key_usages: names of RFC 5280 key usage bits as ``cryptography`` spells them.
    :param extended_key_usages: extended key usages; empty leaves the extension out.
    :param subject: RFC 4514 template; ``{udid}``, and ``{name}`` for each device attribute;
        ``{owner}`` is who owns the device now.
    :param subject_alt_names: templates with a type in front: ``dns:``, ``uri:``, ``ip:``,
        ``email:``; same placeholders as ``subject``.
    :param operational_key: which key may be certified.
    :param allowed_keys: kinds of key that may be certified, as
        :func:`est_protocol.keys.key_kind` names them. ``mldsa44``, ``mldsa65`` and ``mldsa87``
        have to be asked for: not everybody who gets a certificate to verify knows them yet.
    :param crl_distribution_points: addresses of the CA's CRL that certificates name (RFC 5280
        section 4.2.1.13): ``http://`` URLs; ``{crl}`` stands for the one under ``[crl] url``.
    """

    name: str = "default"
    validity: timedelta = timedelta(days=90)
    backdate: timedelta = timedelta(minutes=5)
    key_usages: frozenset[str] = frozenset({"digital_signature"})
    extended_key_usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,)
    subject: str = "CN={udid}"
    subject_alt_names: tuple[str, ...] = ()
    operational_key: OperationalKey = OperationalKey.BY_IDENTITY
    allowed_keys: frozenset[str] = frozenset(
        {
            "ec-p256",
            "ec-p384",
            "ec-p521",
            "ed25519",
            "rsa-2048",
            "rsa-3072",
            "rsa-4096",
        }
    )
    crl_distribution_points: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check it.

        :raises ValueError: no certificate is to live for so long.
        """
        if not timedelta(0) < self.validity <= LONGEST_VALIDITY:
            raise ValueError(f"a validity of {self.validity} is not above 0 and up to 100 years")
