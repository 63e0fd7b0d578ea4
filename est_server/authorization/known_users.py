"""What a client gets that is known by a secret and not by a key."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.operations import Operation
from est_server.authorization.names import grant_for, grant_for_device
from est_server.authorization.operational_keys import certified_key, require_own_key
from est_server.device_records import (
    UNLISTED_ATTRIBUTE,
    Device,
    DeviceState,
    ListedDevice,
    Registration,
    is_udid,
)
from est_server.interfaces import ClientIdentity, DeviceRegistry, EnrollmentRequest, IssuanceGrant
from est_server.ledger_records import IssuedCertificate
from est_server.profiles import OperationalKey


async def grant_to_user(
    registry: DeviceRegistry,
    request: EnrollmentRequest,
    *,
    device: str | None,
    unlisted: str | None,
    reason: str,
) -> IssuanceGrant:
    """The label's profile for the device that a user may enroll.

    Nobody proved on this channel to hold the key of the CSR, if it is not linked; the user
    vouches for it. A listed device gets a certificate for its listed key, whoever vouches,
    unless the profile says otherwise. One that is on no list is registered with its first
    enrollment, and may come with another key after a reset.

    :param device: UDID of the one device that the user may enroll; ``None`` for the device whose
        key is in the CSR.
    :param unlisted: the authorizer that lets in devices that are not on the list, as their records
        will say; ``None``: they are refused.
    :param reason: for the audit trail.
    :raises RequestRefused: there is no such device, or it may not enroll this key.
    """
    owner = await registry.find_by_key(request.csr.key_sha256)
    udid = device or (owner.udid if owner else request.csr.key_sha256.hex())
    if owner is not None and owner.udid != udid:
        raise RequestRefused(
            RefusalReason.IDENTITY_MISMATCH,
            "the key of the certification request belongs to another device",
            detail=f"it is listed for {owner.udid}",
            device=udid,
        )
    known = owner or await registry.find_by_udid(udid)
    if known is not None and (unlisted or not known.is_provisioned):
        return _grant_known(request, known, reason)
    if unlisted is None:
        raise RequestRefused(
            RefusalReason.UNKNOWN_DEVICE, "the device is not on the device list", device=udid
        )
    registration = _registration(request, udid, unlisted)
    attributes = registration.device.attributes
    grant = grant_for(request, device=udid, attributes=attributes, reasons=(reason,))
    return replace(grant, registration=registration)


async def grant_renewal(
    registry: DeviceRegistry, request: EnrollmentRequest, client: ClientIdentity, *, unlisted: bool
) -> IssuanceGrant | None:
    """What a renewing client gets on the strength of its operational certificate.

    :param unlisted: whether that may be a device that only a secret, a user or an operator let in,
        or one without a record, as there were before such devices were registered.
    :return: ``None`` if this is no renewal.
    :raises RequestRefused: the device is not active, or not listed although it has to be.
    """
    if client.issued is None or not _renews(request, client.issued):
        return None
    device = await registry.find_by_udid(client.issued.device)
    await require_own_key(registry, request, client.issued.device)
    if device is not None and (unlisted or not device.listed.is_unlisted):
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


def _grant_known(request: EnrollmentRequest, device: Device, reason: str) -> IssuanceGrant:
    _require_active(device)
    key = None
    if not device.listed.is_unlisted:
        key = certified_key(request, device.udid, device.listed.spki_sha256, OperationalKey.LISTED)
    return grant_for_device(request, device, key_sha256=key, reasons=(reason,))


def _registration(request: EnrollmentRequest, udid: str, authorizer: str) -> Registration:
    if not is_udid(udid):
        raise RequestRefused(
            RefusalReason.NOT_AUTHORIZED,
            "the device cannot be registered",
            detail=f"{udid!r} is no UDID",
        )
    # Where the server makes the key there is none yet, and nobody proves the one in the CSR: the
    # digest that stands in its place is that of no key.
    key = request.key_sha256 or hashlib.sha256(b"no key of its own: " + udid.encode()).digest()
    device = ListedDevice(udid, key, {UNLISTED_ATTRIBUTE: authorizer})
    return Registration(device, DeviceState.LISTED)


def _require_active(device: Device) -> None:
    if not device.state.may_enroll:
        raise RequestRefused(
            RefusalReason.DEVICE_NOT_ACTIVE,
            f"this device is {device.state.value}",
            device=device.udid,
        )
