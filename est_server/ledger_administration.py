"""What an operator may do to the enrollment ledger.

An extension point like those in :mod:`est_server.interfaces`, which would be too long with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Protocol

from est_server.ledger_records import Claim, IssuedCertificate
from est_server.revocations import RevocationReason


class LedgerAdministration(Protocol):
    """What an operator may do to the ledger, beside what devices cause."""

    def certificates(
        self, *, device: str | None = None, serial: str | None = None
    ) -> AsyncIterator[IssuedCertificate]:
        """Issued certificates, the oldest first.

        :param device: those of this device only.
        :param serial: those with this serial number only, in hex.
        """
        ...

    async def find_claim(self, device: str, label: str | None) -> Claim | None:
        """The claim that the first enrollment of ``device`` under ``label`` took, if it did."""
        ...

    async def revoke_certificate(
        self,
        sha256: bytes,
        *,
        actor: str,
        reason: str,
        code: RevocationReason = RevocationReason.UNSPECIFIED,
        now: datetime,
    ) -> IssuedCertificate:
        """Mark a certificate as revoked; its claim stays taken.

        With ``KEY_COMPROMISE`` all other certificates for its key are revoked too, and the key
        gets no other, nor anybody by it, until its device is reset.

        :param reason: why, in words for the audit trail.
        :param code: why, in CRLs.
        :raises KeyError: no such certificate.
        """
        ...

    async def release_claim(
        self, device: str, label: str | None, *, actor: str, reason: str, now: datetime
    ) -> bool:
        """Let a device make a first enrollment under ``label`` again; whether it had a claim.

        What the claim counted against quotas is given back.
        An attempt that is under way is abandoned. The certificate that the device has stays
        active until the next one supersedes it.
        """
        ...
