"""Which key a device may have certified."""

from __future__ import annotations

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.interfaces import DeviceRegistry, EnrollmentRequest
from est_server.profiles import OperationalKey


async def require_own_key(
    registry: DeviceRegistry, request: EnrollmentRequest, udid: str, own: bytes | None = None
) -> None:
    """A key that is listed for one device must not end up in a certificate of another.

    :param own: hash of the key that this device is known by, which need not be looked up.
    :raises RequestRefused: ``IDENTITY_MISMATCH``.
    """
    key = request.key_sha256
    if key is None or key == own:
        return
    owner = await registry.find_by_key(key)
    if owner is not None and owner.udid != udid:
        raise RequestRefused(
            RefusalReason.IDENTITY_MISMATCH,
            "the key of the certification request belongs to another device",
            detail=f"it is listed for {owner.udid}",
            device=udid,
        )


def certified_key(
    request: EnrollmentRequest, udid: str, listed: bytes, by_identity: OperationalKey
) -> bytes | None:
    """The one key that may be certified; ``None``: any that is proved.

    :param listed: hash of the key that the device is known by.
    :param by_identity: which one it is where the profile leaves it to the identity.
    :raises RequestRefused: ``KEY_NOT_ALLOWED``.
    """
    wanted = request.profile.operational_key
    allowed = by_identity if wanted is OperationalKey.BY_IDENTITY else wanted
    if allowed is OperationalKey.FRESH and request.key_sha256 == listed:
        raise RequestRefused(
            RefusalReason.KEY_NOT_ALLOWED,
            "a fresh key is required; the listed key is not certified here",
            device=udid,
        )
    return listed if allowed is OperationalKey.LISTED else None
