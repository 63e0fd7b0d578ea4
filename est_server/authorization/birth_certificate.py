"""Authorization by a birth certificate alone: just-in-time provisioning.

What this protects against: devices of manufacturers that are not trusted; devices of a trusted one
that the rules or the policy do not want; and, by the quota, more devices than were ordered, though
not which of them. Quarantine has a person look at each device before it counts for anything.

What it does not protect against: overproduction within the quota, since a manufacturer who signs
for one device more signs for a genuine one; and whoever can sign in the manufacturer's name. Where
the manufacturer can say which devices there are, use the device list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cryptography import x509

from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import ConfigurationError, MessageError, RefusalReason, RequestRefused
from est_protocol.idevid import DeviceIdentity
from est_protocol.secure_channel.chain_verification import verify_client_chain
from est_protocol.secure_channel.context import TrustAnchors
from est_server.authorization.birth_rules import Rules, check_udid_template, facts, udid_of
from est_server.authorization.known_users import grant_renewal
from est_server.authorization.names import grant_for, grant_for_device
from est_server.authorization.operational_keys import certified_key, require_own_key
from est_server.birth_certificates import (
    BirthCertificate,
    BirthCertificateSettings,
    ManufacturerRules,
    ProvisioningPolicy,
)
from est_server.device_records import (
    PROVISIONED_ATTRIBUTE,
    Device,
    DeviceState,
    ListedDevice,
    Registration,
)
from est_server.interfaces import (
    ClientIdentity,
    DeviceRegistry,
    EnrollmentRequest,
    IssuanceGrant,
)
from est_server.profiles import OperationalKey
from est_server.quotas import quota_name


@dataclass(frozen=True, slots=True)
class _Manufacturer:
    name: str
    anchors: TrustAnchors
    settings: ManufacturerRules
    rules: Rules


class BirthCertificateAuthorizer:
    """Grants the label's profile to devices with a birth certificate, listed or not.

    One that the registry does not know is registered by the ledger together with the claim of its
    first enrollment, so that nothing is registered for a request that is refused. Its record has
    what the birth certificate says (``manufacturer``, ``serial_number``, ``hardware_type``,
    ``hardware_serial``), which templates may use. It is on no list, so ``device-list`` does not
    know it.

    Collisions: the key is that of a device that is known: it is that device, unless it is known by
    a secret, a user or an approval only, which is refused: no rule has looked at it. The UDID is
    that of a device with another key: refused, with an alarm; nothing that is known is ever
    changed.

    :param registry: the devices.
    :param anchors: each manufacturer's certificates, by its name.
    :param settings: the rules.
    :param policy: has the last word about each new device.
    :raises ConfigurationError: the settings make no sense, or name a manufacturer without anchors.
    """

    def __init__(
        self,
        registry: DeviceRegistry,
        anchors: Mapping[str, Sequence[x509.Certificate]],
        settings: BirthCertificateSettings,
        *,
        policy: ProvisioningPolicy | None = None,
    ) -> None:
        if not settings.manufacturers:
            raise ConfigurationError("no manufacturer is named, so no device could be registered")
        check_udid_template(settings.udid)
        self._registry = registry
        self._settings = settings
        self._policy = policy
        self._manufacturers = [
            _manufacturer(name, anchors.get(name, ()), rules)
            for name, rules in settings.manufacturers.items()
        ]

    async def __call__(
        self, request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant:
        """See :class:`~est_server.interfaces.Authorizer`."""
        renewal = await grant_renewal(self._registry, request, client, unlisted=False)
        if renewal is not None:
            return renewal
        birth, manufacturer = self._birth_certificate(request, client)
        device = await self._registry.find_by_key(birth.key_sha256)
        registration = None
        if device is None:
            registration = await self._register(birth, manufacturer, request)
            udid = registration.device.udid
        elif device.listed.is_unlisted:
            raise RequestRefused(
                RefusalReason.NOT_AUTHORIZED,
                "this device is registered, but not by its birth certificate",
                device=device.udid,
            )
        else:
            udid = device.udid
        await require_own_key(self._registry, request, udid, birth.key_sha256)
        grant = _grant(request, birth, device, registration)
        reasons = grant.reasons
        if client.credentials.failures:
            reasons = (*reasons, "which has expired")
        return replace(grant, registration=registration, reasons=reasons)

    def _birth_certificate(
        self, request: EnrollmentRequest, client: ClientIdentity
    ) -> tuple[BirthCertificate, _Manufacturer]:
        credentials = client.credentials
        certificate = credentials.certificate
        if client.registration_authority is not None:
            raise RequestRefused(
                RefusalReason.NOT_AUTHORIZED,
                "a birth certificate does not show itself through a registration authority",
            )
        if certificate is None or credentials.key_sha256 is None:
            raise RequestRefused(
                RefusalReason.AUTHENTICATION_REQUIRED, "a birth certificate is required"
            )
        self._require_verified(credentials)
        manufacturer = self._manufacturer_of(credentials, request)
        try:
            identity = DeviceIdentity.of(certificate)
        except MessageError as error:
            raise RequestRefused(
                RefusalReason.CERTIFICATE_NOT_TRUSTED,
                "the birth certificate cannot be read",
                detail=str(error),
            ) from error
        birth = BirthCertificate(certificate, identity, manufacturer.name, credentials.key_sha256)
        return birth, manufacturer

    def _require_verified(self, credentials: PeerCredentials) -> None:
        if credentials.anchor_set is not AnchorSet.MANUFACTURER:
            raise RequestRefused(
                RefusalReason.CERTIFICATE_NOT_TRUSTED,
                "a birth certificate of a manufacturer that is trusted here is required",
                detail=credentials.why_unverified(),
            )
        if not credentials.failures:
            return
        only_expired = all(failure.is_expiry for failure in credentials.failures)
        if only_expired and self._settings.expired:
            return
        raise RequestRefused(
            RefusalReason.CERTIFICATE_EXPIRED
            if only_expired
            else RefusalReason.CERTIFICATE_NOT_TRUSTED,
            "the birth certificate has expired"
            if only_expired
            else "the birth certificate does not verify",
            detail=credentials.why_unverified(),
        )

    def _manufacturer_of(
        self, credentials: PeerCredentials, request: EnrollmentRequest
    ) -> _Manufacturer:
        """Whose anchor it is that the chain ends at; the channel has verified it up to one."""
        found = [
            manufacturer
            for manufacturer in self._manufacturers
            if verify_client_chain(
                credentials.chain, manufacturer.anchors, now=request.received_at
            )[0]
        ]
        if len(found) == 1:
            return found[0]
        names = ", ".join(manufacturer.name for manufacturer in found)
        raise RequestRefused(
            RefusalReason.NOT_AUTHORIZED,
            "devices of this manufacturer are not registered here",
            detail=f"its chain ends at more than one: {names}" if found else "it is not named",
        )

    async def _register(
        self, birth: BirthCertificate, manufacturer: _Manufacturer, request: EnrollmentRequest
    ) -> Registration:
        manufacturer.rules.require_fit(birth)
        said = facts(birth)
        attributes = dict(manufacturer.settings.attributes)
        if self._policy is not None:
            decided: object = await self._policy(birth, request)
            if not isinstance(decided, Mapping) or not _is_text(decided):
                # Who forgets to return has let nobody in.
                raise TypeError(f"the provisioning policy returned {type(decided).__name__}")
            attributes.update(decided)
        attributes.update(said)
        attributes[PROVISIONED_ATTRIBUTE] = birth.manufacturer
        name = quota_name("manufacturer", birth.manufacturer, request.label)
        return Registration(
            device=ListedDevice(udid_of(self._settings.udid, said), birth.key_sha256, attributes),
            state=DeviceState.QUARANTINED if self._settings.quarantine else DeviceState.LISTED,
            quotas=(manufacturer.settings.quota.named(name),),
        )


def _is_text(attributes: Mapping[object, object]) -> bool:
    return all(isinstance(text, str) for item in attributes.items() for text in item)


def _manufacturer(
    name: str, anchors: Sequence[x509.Certificate], settings: ManufacturerRules
) -> _Manufacturer:
    if not anchors:
        raise ConfigurationError(
            f"manufacturers.{name}: there is no {name}.pem under [trust] manufacturers"
        )
    try:
        rules = Rules(settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"manufacturers.{name}: {error}") from error
    return _Manufacturer(
        name, TrustAnchors({AnchorSet.MANUFACTURER: tuple(anchors)}), settings, rules
    )


def _grant(
    request: EnrollmentRequest,
    birth: BirthCertificate,
    device: Device | None,
    registration: Registration | None,
) -> IssuanceGrant:
    reasons = (f"birth certificate of {birth.manufacturer}",)
    if device is not None:
        key = certified_key(request, device.udid, birth.key_sha256, OperationalKey.ANY)
        return grant_for_device(request, device, key_sha256=key, reasons=reasons)
    assert registration is not None
    new = registration.device
    return grant_for(
        request,
        device=new.udid,
        attributes=new.attributes,
        key_sha256=certified_key(request, new.udid, birth.key_sha256, OperationalKey.ANY),
        reasons=(*reasons, "registered just in time"),
    )
