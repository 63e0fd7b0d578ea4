"""What a client gets that is known by a secret and not by a key."""

from __future__ import annotations

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.operations import Operation
from est_server.authorization.names import grant_for, grant_for_device
from est_server.authorization.operational_keys import certified_key, require_own_key
from est_server.device_records import Device
from est_server.interfaces import ClientIdentity, DeviceRegistry, EnrollmentRequest, IssuanceGrant
from est_server.ledger_records import IssuedCertificate
from est_server.profiles import OperationalKey


async def grant_to_user(
    registry: DeviceRegistry,
    request: EnrollmentRequest,
    *,
    device: str | None,
    unlisted: bool,
    reason: str,
) -> IssuanceGrant:
    """The label's profile for the device that a user may enroll.

    Nobody proved on this channel to hold the key of the CSR, if it is not linked; the user
    vouches for it. A listed device gets a certificate for its listed key, whoever vouches,
    unless the profile says otherwise.

    :param device: UDID of the one device that the user may enroll; ``None`` for the device whose
        key is in the CSR.
    :param unlisted: whether that may be a device that is not on the list.
    :param reason: for the audit trail.
    :raises RequestRefused: there is no such device, or it may not enroll this key.
    """
    owner = await registry.find_by_key(request.csr.key_sha256)
    listed = owner if device is None else await registry.find_by_udid(device)
    udid = device or (listed.udid if listed else request.csr.key_sha256.hex())
    if owner is not None and owner.udid != udid:
        raise RequestRefused(
            RefusalReason.IDENTITY_MISMATCH,
            "the key of the certification request belongs to another device",
            detail=f"it is listed for {owner.udid}",
            device=udid,
        )
    if listed is not None and (unlisted or not listed.is_provisioned):
        return _grant_listed(request, listed, reason)
    if not unlisted:
        raise RequestRefused(
            RefusalReason.UNKNOWN_DEVICE, "the device is not on the device list", device=udid
        )
    return grant_for(request, device=udid, reasons=(reason,))


async def grant_renewal(
    registry: DeviceRegistry, request: EnrollmentRequest, client: ClientIdentity, *, unlisted: bool
) -> IssuanceGrant | None:
    """What a renewing client gets on the strength of its operational certificate.

    :return: ``None`` if this is no renewal.
    :raises RequestRefused: the device is not active, or not listed although it has to be.
    """
    if client.issued is None or not _renews(request, client.issued):
        return None
    device = await registry.find_by_udid(client.issued.device)
    await require_own_key(registry, request, client.issued.device)
    if device is not None:
        _require_active(device)
        return grant_for_device(request, device, reasons=("operational certificate",))
    if not unlisted:
        raise RequestRefused(
            RefusalReason.UNKNOWN_DEVICE,
            "the device is not listed (any more)",
            device=client.issued.device,
        )
    return grant_for(request, device=client.issued.device, reasons=("operational certificate",))


def _renews(request: EnrollmentRequest, issued: IssuedCertificate) -> bool:
    if request.operation is Operation.SERVERKEYGEN:
        return issued.label == request.label
    return request.operation is Operation.SIMPLEREENROLL


def _grant_listed(request: EnrollmentRequest, device: Device, reason: str) -> IssuanceGrant:
    _require_active(device)
    key = certified_key(request, device.udid, device.listed.spki_sha256, OperationalKey.LISTED)
    return grant_for_device(request, device, key_sha256=key, reasons=(reason,))


def _require_active(device: Device) -> None:
    if not device.state.may_enroll:
        raise RequestRefused(
            RefusalReason.DEVICE_NOT_ACTIVE,
            f"this device is {device.state.value}",
            device=device.udid,
        )
