"""Who a client is by its certificate: what the ledger and the registry know of it."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Transport
from est_server.interfaces import DeviceRegistry, EnrollmentLedger
from est_server.ledger_records import IssuedCertificate
from est_server.registration_authorities import (
    RegistrationAuthority,
    RegistrationAuthorityPolicy,
    recognize,
)
from est_server.rules import (
    Exchange,
    authentication_required,
    refuse_superseded,
    require_renewable_by_authority,
)


class ClientIdentification:
    """Looks clients up.

    :param ledger: knows the certificates that were issued.
    :param registry: knows the listed devices; ``None`` where nobody can be asked about a bare
        key.
    :param listed_only: whether a bare key has to be listed where being known is all that is asked.
    """

    def __init__(
        self,
        ledger: EnrollmentLedger,
        registry: DeviceRegistry | None,
        *,
        listed_only: bool = True,
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._listed_only = listed_only

    async def find_issued(self, peer: PeerCredentials) -> IssuedCertificate | None:
        """The ledger's record of the client's certificate, if this CA issued it.

        :raises RequestRefused: it is expired or otherwise does not verify.
        """
        if peer.certificate is None or peer.anchor_set is not AnchorSet.OPERATIONAL:
            return None
        if peer.failures:
            expired = all(failure.is_expiry for failure in peer.failures)
            raise RequestRefused(
                RefusalReason.CERTIFICATE_EXPIRED
                if expired
                else RefusalReason.CERTIFICATE_NOT_TRUSTED,
                "the client certificate has expired"
                if expired
                else "the client certificate does not verify",
                detail=peer.why_unverified(),
            )
        return await self._ledger.find_certificate(peer.certificate.fingerprint(hashes.SHA256()))

    async def require_standing(self, peer: PeerCredentials) -> None:
        """Refuse a client that shows itself as one that an operator has shut out.

        :raises RequestRefused: its certificate is revoked, its device not active, or its key
            compromised.
        """
        if peer.key_sha256 is not None:
            await self._ledger.check_standing(
                certificate=peer.certificate_sha256, keys=(peer.key_sha256,)
            )

    async def require_device_standing(self, exchange: Exchange) -> None:
        """The same for a device that has proved itself by its CSR alone."""
        key = exchange.client_key
        if key is not None and key != exchange.peer.key_sha256:
            await self._ledger.check_standing(certificate=None, keys=(key,))

    async def find_registration_authority(
        self,
        peer: PeerCredentials,
        policy: RegistrationAuthorityPolicy,
        ca_certificates: Sequence[x509.Certificate],
    ) -> RegistrationAuthority | None:
        """The registration authority that the client is for the label with ``policy``.

        :param ca_certificates: those of the label's CA.
        :raises RequestRefused: it was one, but its certificate is superseded.
        """
        authority = recognize(peer, policy, ca_certificates)
        if authority is not None:
            refuse_superseded(await self.find_issued(peer))
        return authority

    async def find_renewable(self, exchange: Exchange) -> IssuedCertificate | None:
        """The device's certificate that a registration authority renews.

        :raises RequestRefused: there is none, or the label does not let it.
        """
        authorities = exchange.policy.registration_authorities
        if authorities is None or not authorities.renewals:
            raise RequestRefused(
                RefusalReason.NOT_AUTHORIZED,
                "certificates are not renewed through a registration authority here",
            )
        current = await self._ledger.find_renewable(
            exchange.csr.key_sha256,
            exchange.request.label,
            lost_since=exchange.received_at - authorities.retry_window,
        )
        require_renewable_by_authority(exchange, current)
        return current

    async def require_known(self, peer: PeerCredentials) -> None:
        """RFC 9148 section 4: on CoAPS every function wants an authenticated client.

        Without a registry there is nobody to ask about a bare key; a proven key has to do.

        :raises RequestRefused: the client is not known here.
        """
        if peer.key_sha256 is None:
            raise authentication_required(Transport.COAPS)
        await self.require_standing(peer)
        if peer.is_verified:
            await self.find_issued(peer)
            return
        if self._registry is None or not self._listed_only:
            return
        if not await self._is_listed(peer.key_sha256):
            raise RequestRefused(
                RefusalReason.CERTIFICATE_NOT_TRUSTED,
                "the client certificate is not trusted here and its key is not listed",
                detail=peer.why_unverified(),
            )

    async def require_known_key(self, exchange: Exchange) -> None:
        """Refuse a client whose key says nothing, where it has to say something beside a secret.

        :raises RequestRefused: its certificate does not verify, or there is none, and the key that
            it proved is not listed, or there is no list.
        """
        if exchange.peer.is_verified or await self._is_listed(exchange.client_key):
            return
        raise RequestRefused(
            RefusalReason.CERTIFICATE_NOT_TRUSTED,
            "beside the HTTP credentials a client certificate that is trusted here, or a listed "
            "key, is required",
            detail=exchange.peer.why_unverified() if exchange.peer.certificate else "",
        )

    async def _is_listed(self, key: bytes | None) -> bool:
        if self._registry is None or key is None:
            return False
        device = await self._registry.find_by_key(key)
        return device is not None and not device.listed.is_unlisted
