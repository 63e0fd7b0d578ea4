"""Authorization by the device list: who is on it gets what its profile says.

What this protects against: devices that the OEM does not know (counterfeits, devices of others),
and, since a first enrollment is claimed once, overproduced devices and copies of a genuine one
that come second. What it does not protect against: a copy that enrolls before the original does;
that one is refused and shows the theft.
"""

from __future__ import annotations

from dataclasses import replace

from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.operations import Operation
from est_server.authorization.names import grant_for_device
from est_server.authorization.operational_keys import certified_key, require_own_key
from est_server.device_records import Device
from est_server.interfaces import ClientIdentity, DeviceRegistry, EnrollmentRequest, IssuanceGrant
from est_server.profiles import OperationalKey
from est_server.quotas import DeviceQuotas, Quota


class DeviceListAuthorizer:
    """Grants the label's profile to listed devices.

    The device is found by a key that the client proved to hold, never by a name that it states:

    - operational certificate: the device that it was issued to; renews it, or enrolls any key
      under a label where the device has no certificate yet;
    - birth certificate: a chain that verified against a manufacturer's anchor, over a listed key;
      may enroll any key it proves possession of;
    - bare key: a listed key, proved by a certificate of whatever worth (on CoAPS a self-signed
      one) or by a CSR that is linked to the channel; enrolls itself. Through a registration
      authority, proved by the CSR alone.

    A key that the server generates is never the listed one. The profile's ``operational_key``
    overrides which key may be enrolled.

    :param registry: the devices.
    :param birth_certificates: accept birth certificates.
    :param bare_keys: accept bare listed keys.
    :param expired_birth_certificates: accept a birth certificate whose only fault is that it has
        expired (RFC 9148 section 3 allows it, since devices can lie in store for years).
    :param owners: whose devices are granted anything; ``None`` for everybody's. Which labels a
        device may use is also in its list, see :meth:`~est_server.device_records.Device.may_use`.
    :param quotas: how many devices of an owner, or of a list, may make their first enrollment.
    """

    def __init__(
        self,
        registry: DeviceRegistry,
        *,
        birth_certificates: bool = True,
        bare_keys: bool = True,
        expired_birth_certificates: bool = False,
        owners: frozenset[str] | None = None,
        quotas: DeviceQuotas | None = None,
    ) -> None:
        self._registry = registry
        self._birth_certificates = birth_certificates
        self._bare_keys = bare_keys
        self._expired_birth_certificates = expired_birth_certificates
        self._owners = owners
        self._quotas = quotas or DeviceQuotas()
        self._list_ids: dict[int, str] = {}

    async def __call__(
        self, request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant:
        """See :class:`~est_server.interfaces.Authorizer`."""
        if request.operation is Operation.SIMPLEREENROLL:
            return await self._renew(request, client)
        return await self._first_enrollment(request, client)

    async def _renew(self, request: EnrollmentRequest, client: ClientIdentity) -> IssuanceGrant:
        if client.issued is None:
            raise RequestRefused(
                RefusalReason.CERTIFICATE_UNKNOWN,
                "renewal needs an operational certificate of this server",
            )
        device = await self._registry.find_by_udid(client.issued.device)
        if device is None or device.is_provisioned:
            raise RequestRefused(
                RefusalReason.UNKNOWN_DEVICE,
                "the device is not listed (any more)",
                device=client.issued.device,
            )
        self._require_usable(request, device)
        await require_own_key(self._registry, request, device.udid, device.listed.spki_sha256)
        return self._grant(request, device, OperationalKey.ANY, "operational certificate")

    async def _first_enrollment(
        self, request: EnrollmentRequest, client: ClientIdentity
    ) -> IssuanceGrant:
        device = await self._find(request, client)
        if device is None or device.is_provisioned:
            raise _why_unknown(client, request)
        self._require_usable(request, device)
        await require_own_key(self._registry, request, device.udid, device.listed.spki_sha256)
        grant = self._grant_to(device, request, client)
        return replace(grant, quotas=await self._quotas_of(device, request.label))

    def _grant_to(
        self, device: Device, request: EnrollmentRequest, client: ClientIdentity
    ) -> IssuanceGrant:
        credentials = client.credentials
        if client.issued is not None:
            return self._grant(request, device, OperationalKey.ANY, "operational certificate")
        if self._has_birth_certificate(credentials):
            expired = "expired " if credentials.failures else ""
            reason = f"{expired}birth certificate and list"
            return self._grant(request, device, OperationalKey.ANY, reason)
        if not self._bare_keys:
            raise RequestRefused(
                RefusalReason.CERTIFICATE_NOT_TRUSTED,
                "a birth certificate is required; a listed key alone does not do here",
                detail=credentials.why_unverified(),
                device=device.udid,
            )
        return self._grant(request, device, OperationalKey.LISTED, "listed key")

    async def _quotas_of(self, device: Device, label: str | None) -> tuple[Quota, ...]:
        list_id = None
        if self._quotas.lists and device.list_number is not None:
            list_id = self._list_ids.get(device.list_number)
            if list_id is None:
                # What a list is called never changes, but there may be a new one.
                lists = await self._registry.lists()
                self._list_ids = {known.number: known.description.list_id for known in lists}
                list_id = self._list_ids[device.list_number]
        return self._quotas.of_device(label, device.owner, list_id)

    async def _find(self, request: EnrollmentRequest, client: ClientIdentity) -> Device | None:
        """Where there is a client certificate, it alone says who the client is; a CSR for a key
        that is listed for somebody else changes nothing about that. A registration authority's
        says nothing of the device."""
        if client.registration_authority is not None:
            return await self._registry.find_by_key(request.csr.key_sha256)
        if client.issued is not None:
            return await self._registry.find_by_udid(client.issued.device)
        if client.credentials.key_sha256 is not None:
            return await self._registry.find_by_key(client.credentials.key_sha256)
        if request.pop_linked:
            return await self._registry.find_by_key(request.csr.key_sha256)
        return None

    def _require_usable(self, request: EnrollmentRequest, device: Device) -> None:
        if not device.state.may_enroll:
            raise RequestRefused(
                RefusalReason.DEVICE_NOT_ACTIVE,
                f"this device is {device.state.value}",
                device=device.udid,
            )
        if not device.may_use(request.label, self._owners):
            raise RequestRefused(
                RefusalReason.NOT_AUTHORIZED,
                "this service is not for this device",
                detail=f"label {request.label!r}, owner {device.owner!r}",
                device=device.udid,
            )

    def _has_birth_certificate(self, credentials: PeerCredentials) -> bool:
        if not self._birth_certificates or credentials.anchor_set is not AnchorSet.MANUFACTURER:
            return False
        if not credentials.failures:
            return True
        only_expired = all(failure.is_expiry for failure in credentials.failures)
        return only_expired and self._expired_birth_certificates

    def _grant(
        self,
        request: EnrollmentRequest,
        device: Device,
        by_identity: OperationalKey,
        reason: str,
    ) -> IssuanceGrant:
        key = certified_key(request, device.udid, device.listed.spki_sha256, by_identity)
        return grant_for_device(request, device, key_sha256=key, reasons=(reason,))


def _why_unknown(client: ClientIdentity, request: EnrollmentRequest) -> RequestRefused:
    """The most telling reason why no device was found."""
    credentials = client.credentials
    if client.registration_authority is not None:
        return RequestRefused(
            RefusalReason.UNKNOWN_DEVICE,
            "the key of the certification request is not on the device list",
        )
    if credentials.certificate is None:
        if not request.pop_linked:
            return RequestRefused(
                RefusalReason.AUTHENTICATION_REQUIRED,
                "present a client certificate, or link the request to this channel",
            )
        return RequestRefused(RefusalReason.UNKNOWN_DEVICE, "the key is not on the device list")
    if credentials.is_verified:
        kind = credentials.anchor_set
        return RequestRefused(
            RefusalReason.UNKNOWN_DEVICE,
            "the certificate is genuine, but its key is not on the device list",
            detail=f"{kind} certificate {credentials.certificate.subject.rfc4514_string()}: "
            "overproduction or a list that has not been imported",
        )
    if credentials.anchor_set and all(failure.is_expiry for failure in credentials.failures):
        return RequestRefused(
            RefusalReason.CERTIFICATE_EXPIRED,
            "the client certificate has expired, and its key is not on the device list",
        )
    return RequestRefused(
        RefusalReason.CERTIFICATE_NOT_TRUSTED,
        "the client certificate is not trusted here, and its key is not on the device list",
        detail=credentials.why_unverified(),
    )
