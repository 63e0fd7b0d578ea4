"""Names in certificates, from a profile's templates and a device's record.

A template such as ``CN={udid},O={owner}`` is parsed before anything is filled in, so that no value
of a device record can add an attribute to a name or change its kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from cryptography import x509

from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_server.authorization.general_names import KINDS, general_name
from est_server.device_records import OWNER_ATTRIBUTE, Device
from est_server.interfaces import EnrollmentRequest, IssuanceGrant
from est_server.profiles import CertificateProfile

_PLACEHOLDER = re.compile(r"\{([a-z0-9_]+)\}")

#: X.520's upper bounds that RFC 5280 appendix A repeats, in characters, by OID.
_UPPER_BOUNDS = {
    x509.NameOID.COMMON_NAME: 64,
    x509.NameOID.ORGANIZATION_NAME: 64,
    x509.NameOID.ORGANIZATIONAL_UNIT_NAME: 64,
    x509.NameOID.SERIAL_NUMBER: 64,
    x509.NameOID.LOCALITY_NAME: 128,
    x509.NameOID.STATE_OR_PROVINCE_NAME: 128,
}


def check_profile(profile: CertificateProfile) -> None:
    """Check the templates of a profile, so that a mistake shows at start and not in the field.

    :raises ConfigurationError: a template is not RFC 4514, or of an unknown kind.
    """
    _parse_subject(profile.subject)
    for template in profile.subject_alt_names:
        kind, separator, text = template.partition(":")
        if not separator or kind not in KINDS or not text:
            raise ConfigurationError(
                f"subjectAltName template {template!r} is not dns:, uri:, ip: or email: and a name"
            )


def grant_for(
    request: EnrollmentRequest,
    *,
    device: str,
    attributes: Mapping[str, str] | None = None,
    key_sha256: bytes | None = None,
    reasons: tuple[str, ...] = (),
) -> IssuanceGrant:
    """The grant of what the label's profile says, for ``device``.

    :param attributes: what the templates' placeholders are filled with, beside ``udid``.
    :param key_sha256: allow only the key with this SPKI hash.
    :raises RequestRefused: a placeholder has no value, or a value does not fit where it goes.
    :raises ConfigurationError: a template is wrong.
    """
    values = {**(attributes or {}), "udid": device}
    return IssuanceGrant(
        device=device,
        subject=_subject(request.profile.subject, values),
        subject_alt_names=tuple(
            _general_name(template, values) for template in request.profile.subject_alt_names
        ),
        key_sha256=key_sha256,
        reasons=reasons,
    )


def grant_for_device(
    request: EnrollmentRequest,
    device: Device,
    *,
    key_sha256: bytes | None = None,
    reasons: tuple[str, ...] = (),
) -> IssuanceGrant:
    """:func:`grant_for` with the names of a device's record, and who owns it now."""
    return grant_for(
        request,
        device=device.udid,
        attributes=_attributes(device),
        key_sha256=key_sha256,
        reasons=reasons,
    )


def _attributes(device: Device) -> Mapping[str, str]:
    if device.owner is None:
        return device.listed.attributes
    return {**device.listed.attributes, OWNER_ATTRIBUTE: device.owner}


# A server has a handful of templates and fills them in with every enrollment; parsing takes 35 us.
@lru_cache(maxsize=256)
def _parse_subject(template: str) -> x509.Name:
    try:
        return x509.Name.from_rfc4514_string(template)
    except ValueError as error:
        raise ConfigurationError(f"subject template {template!r} is not RFC 4514") from error


def _subject(template: str, values: Mapping[str, str]) -> x509.Name:
    return x509.Name(
        [
            x509.RelativeDistinguishedName([_filled(attribute, values) for attribute in rdn])
            for rdn in _parse_subject(template).rdns
        ]
    )


def _filled(
    attribute: x509.NameAttribute[str | bytes], values: Mapping[str, str]
) -> x509.NameAttribute[str]:
    value = _fill(str(attribute.value), values)
    bound = _UPPER_BOUNDS.get(attribute.oid)
    # A UDID is 64 characters in hex at most by default, which is just what a common name holds.
    too_long = bound is not None and len(value) > bound
    if too_long or not value or not value.isprintable():
        raise _unusable(f"{attribute.rfc4514_attribute_name} would be {value!r}")
    try:
        return x509.NameAttribute(attribute.oid, value)
    except ValueError as error:
        raise _unusable(f"{attribute.rfc4514_attribute_name} {value!r}: {error}") from error


def _general_name(template: str, values: Mapping[str, str]) -> x509.GeneralName:
    kind, _, text = template.partition(":")
    if kind not in KINDS:
        raise ConfigurationError(f"subjectAltName template {template!r} is of an unknown kind")
    try:
        return general_name(kind, text, lambda place, encode: _fill(place, values, encode))
    except ValueError as error:
        raise _unusable(f"subjectAltName {template!r} for {values['udid']!r}: {error}") from error


def _fill(
    template: str, values: Mapping[str, str], encode: Callable[[str], str] = lambda value: value
) -> str:
    def value_of(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if not value:
            raise _unusable(f"the record has no {match[1]!r}, which {template!r} needs")
        return encode(value)

    return _PLACEHOLDER.sub(value_of, template)


def _unusable(detail: str) -> RequestRefused:
    return RequestRefused(
        RefusalReason.NOT_AUTHORIZED,
        "no name can be made for this device; its record has to be completed",
        detail=detail,
    )
