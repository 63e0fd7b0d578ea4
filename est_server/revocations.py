"""Revoked certificates and the lists of them (RFC 5280 section 5): values, and who keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from cryptography import x509


class RevocationReason(StrEnum):
    """Why a certificate was revoked (RFC 5280 section 5.3.1).

    ``KEY_COMPROMISE`` is more than a word: the key gets no other certificate, and nobody who
    holds it gets one by it. ``CERTIFICATE_HOLD`` is for certificates of suspended devices; it is
    the only one that can be taken back.
    """

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    AFFILIATION_CHANGED = "affiliation-changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation-of-operation"
    CERTIFICATE_HOLD = "certificate-hold"
    PRIVILEGE_WITHDRAWN = "privilege-withdrawn"

    @property
    def flag(self) -> x509.ReasonFlags:
        """The same as ``cryptography`` writes it."""
        return x509.ReasonFlags[self.name.lower()]


@dataclass(frozen=True, slots=True)
class RevokedCertificate:
    """One entry of a CRL."""

    serial: int
    revoked_at: datetime
    reason: RevocationReason


@dataclass(frozen=True, slots=True)
class CrlOrder:
    """An order to a CA: exactly what goes into the CRL.

    :param number: the CRL number, larger than that of any earlier CRL of this CA.
    """

    number: int
    this_update: datetime
    next_update: datetime
    revoked: Sequence[RevokedCertificate]


class CrlIssuer(Protocol):
    """What signs the CRLs of one CA: the CA itself."""

    @property
    def issuer(self) -> bytes:
        """Which CA it is, as :func:`issuer_id` says it."""
        ...

    def issue_crl(self, order: CrlOrder) -> bytes:
        """The CRL in DER. Called in a thread: a large one takes seconds."""
        ...


@dataclass(frozen=True, slots=True)
class CrlStatus:
    """What there is to know of a published CRL without reading it.

    :param sha256: over the CRL's DER.
    :param changes: the :meth:`RevocationRegistry.count_changes` that it is up to date with.
    """

    number: int
    sha256: bytes
    this_update: datetime
    next_update: datetime
    changes: int


@dataclass(frozen=True, slots=True)
class PublishedCrl:
    """A CRL, in DER, with its :class:`CrlStatus`."""

    status: CrlStatus
    der: bytes


class RevocationRegistry(Protocol):
    """What is revoked, and the latest CRL of each CA; all servers over one store share them.

    Every method raises :class:`~est_protocol.errors.RequestRefused` with
    ``STORE_UNAVAILABLE`` while the store cannot be reached.
    """

    async def count_changes(self, issuer: bytes) -> int:
        """How often a certificate of this CA was revoked, put on hold or released; it grows."""
        ...

    def revoked_certificates(
        self, issuer: bytes, *, valid_at: datetime
    ) -> AsyncIterator[RevokedCertificate]:
        """The revoked certificates of this CA that had not expired at ``valid_at``, page by page
        so that others get their turn."""
        ...

    async def crl_status(self, issuer: bytes) -> CrlStatus | None:
        """The status of the latest CRL of this CA."""
        ...

    async def find_crl(self, issuer: bytes) -> PublishedCrl | None:
        """The latest CRL of this CA."""
        ...

    async def publish_crl(
        self, issuer: bytes, crl: PublishedCrl, *, replaces: CrlStatus | None
    ) -> bool:
        """Make ``crl`` the latest if the one with the status ``replaces`` still is, or there is
        none; otherwise another server was faster, and nothing happens. Whether it is now."""
        ...


def issuer_id(name: x509.Name, key_identifier: bytes) -> bytes:
    """32 octets that stand for a CA: its name and its key."""
    return hashlib.sha256(hashlib.sha256(name.public_bytes()).digest() + key_identifier).digest()


def issuer_of(certificate: x509.Certificate) -> bytes:
    """The :func:`issuer_id` of the CA that issued ``certificate``."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        key_identifier = extension.value.key_identifier or b""
    except x509.ExtensionNotFound:
        key_identifier = b""
    return issuer_id(certificate.issuer, key_identifier)
