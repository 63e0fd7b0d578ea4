"""Devices that are registered when they first come, by their birth certificates: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography import x509

from est_protocol.errors import ConfigurationError
from est_protocol.idevid import DeviceIdentity
from est_server.interfaces import EnrollmentRequest
from est_server.quotas import QuotaBound


@dataclass(frozen=True, slots=True)
class BirthCertificate:
    """A birth certificate that verified up to a manufacturer's anchor.

    :param certificate: the certificate.
    :param identity: what it says of the device.
    :param manufacturer: name of the manufacturer.
    :param key_sha256: SHA-256 (32 octets) of its key's DER SubjectPublicKeyInfo.
    """

    certificate: x509.Certificate
    identity: DeviceIdentity
    manufacturer: str
    key_sha256: bytes


class ProvisioningPolicy(Protocol):
    """Decides whether a device that nobody has listed may be registered; an ``async def`` will do.

    Called after the rules of the configuration have let it pass.

    :returns: attributes for the device's record, such as ``owner``.
    :raises RequestRefused: it may not.
    """

    async def __call__(
        self, birth: BirthCertificate, request: EnrollmentRequest, /
    ) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class ManufacturerRules:
    """What devices of one manufacturer have to be like.

    :param quota: how many of its devices may be registered.
    :param subjects: patterns (RFC 4514), of which the subject of the birth certificate has to fit
        one. It fits if it has every attribute of the pattern, once, with a value that fits, where
        ``*`` stands for any text. Without patterns every subject fits.
    :param hardware_types: hwTypes of the hardwareModuleName (IEEE 802.1AR, RFC 4108) in dotted
        form, of which it has to have one; without any, it need not have a hardwareModuleName.
    :param attributes: for the records of its devices, such as ``owner``.
    """

    quota: QuotaBound
    subjects: tuple[str, ...] = ()
    hardware_types: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BirthCertificateSettings:
    """What the authorizer ``birth-certificate`` takes for enough to register a device that is on
    no list.

    :param manufacturers: by the name of the manufacturer's file under ``[trust] manufacturers``
        without ``.pem``; the devices of others are refused.
    :param quarantine: have an operator look at each device before it is served: ``est-server
        devices release``. Until then it is served under those labels only that have
        ``serve_quarantined``.
    :param udid: what a device is called: ``{key_sha256}``, ``{manufacturer}``,
        ``{serial_number}``, ``{hardware_type}`` and ``{hardware_serial}`` (in hexadecimal) stand
        for what its birth certificate says. Where there are several manufacturers it has one of
        the first two in it.
    :param expired: take a birth certificate whose only fault is that it has expired.
    :param policy: ``package.module:function``, an ``async def`` of your own that has the last
        word; see ``est_server.birth_certificates.ProvisioningPolicy``.
    """

    manufacturers: Mapping[str, ManufacturerRules] = field(default_factory=dict)
    quarantine: bool = True
    udid: str = "{key_sha256}"
    expired: bool = False
    policy: str | None = None

    def __post_init__(self) -> None:
        told_apart = "{key_sha256}" in self.udid or "{manufacturer}" in self.udid
        if len(self.manufacturers) > 1 and not told_apart:
            # One could take the identifiers of another's devices before they come.
            raise ConfigurationError(
                "udid needs {key_sha256} or {manufacturer} where there are several manufacturers"
            )
