"""Replacing a CA by its next generation without a person at any device (RFC 9810 section 4.4).

The new root has the name of the old one and another key. Two certificates tie the keys together:

- OldWithNew: the old key, signed by the new one; lets who trusts the new root only believe what
  the old CA has issued;
- NewWithOld: the new key, signed by the old one; lets who trusts the old root only find the new
  one. It is what a device that was made before the roll-over verifies the server by.

Both end with the old root, and with them the roll-over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from est_protocol.errors import ConfigurationError
from est_protocol.keys import SigningKey, spki_sha256
from est_server.authorities.building import authority_key_identifier
from est_server.authorities.creation import NewCa, begin_ca, create_named_ca
from est_server.authorities.signers.key import KeySigner

_GENERATION = re.compile(r"(.+) G([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class RolledOver:
    """A new CA, and what ties it to the one before it.

    :param ca: the new root (NewWithNew), the new issuing CA, and their keys.
    :param certificates: what /cacerts answers beside these: OldWithNew, NewWithOld, the old
        issuing CA and the old root (OldWithOld).
    """

    ca: NewCa
    certificates: tuple[x509.Certificate, ...]

    @property
    def new_with_old(self) -> x509.Certificate:
        """The new root's key, signed by the old root."""
        return self.certificates[1]


def roll_over(
    root_key: SigningKey,
    root: x509.Certificate,
    issuing: x509.Certificate,
    *,
    now: datetime,
    key_kind: str = "ec-p256",
    root_validity: timedelta = timedelta(days=25 * 365),
    issuing_validity: timedelta = timedelta(days=10 * 365),
    backdate: timedelta = timedelta(days=1),
) -> RolledOver:
    """Make the next generation of a CA that has a root and an issuing CA under it.

    :param root_key: the key of ``root``, which is needed this once.
    :param root: the old root.
    :param issuing: the old issuing CA; the new one has its name and a number.
    :param now: the time from which the new certificates are valid.
    :param key_kind: of both keys, one of :data:`est_protocol.keys.KEY_KINDS`.
    :param backdate: how far notBefore lies in the past, for devices whose clock is slow.
    :raises ConfigurationError: the key is not the root's, the root has expired, or the new root
        would not be valid for longer than the old one, by which devices know the new one.
    """
    if spki_sha256(root_key.public_key()) != spki_sha256(root.public_key()):
        raise ConfigurationError("the root key is not the key of the root certificate")
    start, old_end = now - backdate, root.not_valid_after_utc
    if old_end <= now:
        raise ConfigurationError(
            "the root has expired: devices trust nothing any more that it signs"
        )
    if now + root_validity <= old_end or issuing_validity > root_validity:
        raise ConfigurationError("the new root has to be valid for longest")
    ca = create_named_ca(
        root.subject,
        _next_generation(issuing.subject),
        key_kind=key_kind,
        start=start,
        root_end=now + root_validity,
        issuing_end=now + issuing_validity,
    )
    old_start = root.not_valid_before_utc
    old_with_new = _cross_sign(root, by=ca.root_key, issuer=ca.root, start=old_start, end=old_end)
    new_with_old = _cross_sign(ca.root, by=root_key, issuer=root, start=start, end=old_end)
    return RolledOver(ca, (old_with_new, new_with_old, issuing, root))


def _cross_sign(
    certificate: x509.Certificate,
    *,
    by: SigningKey,
    issuer: x509.Certificate,
    start: datetime,
    end: datetime,
) -> x509.Certificate:
    key = certificate.public_key()
    builder = begin_ca(
        certificate.subject, key, issuer.subject, start, end, certificates_below=1
    ).add_extension(authority_key_identifier(issuer), critical=False)
    return KeySigner(by).sign_certificate(builder)


def _next_generation(name: x509.Name) -> x509.Name:
    """``CN=Example Issuing CA`` becomes ``CN=Example Issuing CA G2``, that becomes ``... G3``.

    Another name than before, so that nobody takes the CRL of one for that of the other.
    """
    if not name.get_attributes_for_oid(NameOID.COMMON_NAME):
        raise ConfigurationError("the issuing CA has no common name to number")
    try:
        return x509.Name([x509.RelativeDistinguishedName(map(_numbered, rdn)) for rdn in name.rdns])
    except ValueError as error:
        raise ConfigurationError("the name of the issuing CA is too long for a number") from error


def _numbered(attribute: x509.NameAttribute[str | bytes]) -> x509.NameAttribute[str | bytes]:
    if attribute.oid != NameOID.COMMON_NAME:
        return attribute
    found = _GENERATION.fullmatch(str(attribute.value))
    base, number = (found[1], int(found[2])) if found else (str(attribute.value), 1)
    return x509.NameAttribute(NameOID.COMMON_NAME, f"{base} G{number + 1}")
