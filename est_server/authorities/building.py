"""The parts that every certificate of this CA has (RFC 5280 section 4)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPublicKeyTypes,
    CertificatePublicKeyTypes,
)

from est_protocol.errors import ConfigurationError
from est_protocol.keys import PublicKey

#: Key usage bits by the names of ``cryptography``.
KEY_USAGES = frozenset(
    {
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    }
)
_CA_USAGES = frozenset({"key_cert_sign", "crl_sign"})
_SIGNING = frozenset({"digital_signature", "content_commitment"})
_AGREEMENT = frozenset({"key_agreement", "encipher_only", "decipher_only"})


def begin_certificate(
    subject: x509.Name,
    public_key: PublicKey,
    *,
    issuer: x509.Name,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    """A certificate with the fields that all have, a fresh serial number and a key identifier.

    The serial number is 159 random bits, in 20 octets (RFC 5280 section 4.1.2.2).
    """
    # The builder refuses the few kinds of key that cannot be certified.
    key = cast(CertificatePublicKeyTypes, public_key)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before.replace(microsecond=0))
        .not_valid_after(not_after.replace(microsecond=0))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The identifier that points from a certificate to ``issuer`` (RFC 5280 section 4.2.1.1)."""
    try:
        extension = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        key = cast(CertificateIssuerPublicKeyTypes, issuer.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def key_usage(names: Collection[str]) -> x509.KeyUsage:
    """The key usage extension with the bits called ``names``."""
    return _key_usage(frozenset(names))


@cache
def _key_usage(names: frozenset[str]) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in names for name in KEY_USAGES})


def end_entity_usages(names: Collection[str], key: PublicKey) -> frozenset[str]:
    """Those of the key usages ``names`` that a certificate for ``key`` may have.

    What the algorithm cannot do is left out (RFC 8813 section 3, RFC 9295 section 3), so that
    one profile serves RSA and EC keys.

    :raises ConfigurationError: a name is unknown or for CA certificates only, or the bits do not
        go together.
    """
    wanted = frozenset(names)
    unknown = wanted - KEY_USAGES
    if unknown:
        raise ConfigurationError(f"no such key usage: {', '.join(sorted(unknown))}")
    if wanted & _CA_USAGES:
        raise ConfigurationError("key_cert_sign and crl_sign are for CA certificates only")
    if wanted & _AGREEMENT and "key_agreement" not in wanted:
        raise ConfigurationError("encipher_only and decipher_only go with key_agreement only")
    if isinstance(key, rsa.RSAPublicKey):
        return wanted - _AGREEMENT
    if isinstance(key, ec.EllipticCurvePublicKey):
        return wanted & (_SIGNING | _AGREEMENT)
    return wanted & _SIGNING
