"""Whether a birth certificate fits a manufacturer's rules, and what its device is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate

from cryptography import x509
from cryptography.x509.oid import NameOID

from est_protocol.errors import ConfigurationError, MessageError, RefusalReason, RequestRefused
from est_protocol.idevid import single
from est_server.birth_certificates import BirthCertificate, ManufacturerRules
from est_server.device_records import is_udid

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

#: Names of attributes that :meth:`x509.Name.from_rfc4514_string` lacks.
_NAMES = {"serialNumber": NameOID.SERIAL_NUMBER}

#: What a birth certificate may say of its device.
FACTS = ("key_sha256", "manufacturer", "serial_number", "hardware_type", "hardware_serial")


class Rules:
    """The rules for one manufacturer's devices, ready to use.

    :raises ConfigurationError: a pattern is no name, or an attribute is one that the birth
        certificate speaks of.
    """

    def __init__(self, rules: ManufacturerRules) -> None:
        self._patterns = [_pattern(text) for text in rules.subjects]
        self._hardware_types = frozenset(rules.hardware_types)
        reserved = [name for name in rules.attributes if name in FACTS]
        if reserved:
            raise ConfigurationError(f"attributes: {reserved[0]} is what the certificate says")

    def require_fit(self, birth: BirthCertificate) -> None:
        """Check a device.

        :raises RequestRefused: ``NOT_AUTHORIZED``.
        """
        subject = birth.identity.subject
        if self._patterns and not any(_fits(pattern, subject) for pattern in self._patterns):
            raise _refused(f"no pattern fits the subject {subject.rfc4514_string()}")
        if self._hardware_types and birth.identity.hardware_type not in self._hardware_types:
            raise _refused(f"its hardware type is {birth.identity.hardware_type}")


def check_udid_template(template: str) -> None:
    """Check what devices are to be called.

    :raises ConfigurationError: a placeholder is none, or there is none at all.
    """
    placeholders = _PLACEHOLDER.findall(template)
    unknown = [name for name in placeholders if name not in FACTS]
    if unknown or not placeholders:
        raise ConfigurationError(
            f"udid: {template!r} needs at least one of {', '.join(FACTS)} in braces, and no other"
        )


def facts(birth: BirthCertificate) -> dict[str, str]:
    """What a birth certificate says, by :data:`FACTS`; what it does not say is left out."""
    identity = birth.identity
    said = {
        "key_sha256": birth.key_sha256.hex(),
        "manufacturer": birth.manufacturer,
        "serial_number": identity.serial_number,
        "hardware_type": identity.hardware_type,
        "hardware_serial": identity.hardware_serial.hex() if identity.hardware_serial else None,
    }
    return {name: text for name, text in said.items() if text}


def udid_of(template: str, said: Mapping[str, str]) -> str:
    """What a device is called.

    :raises RequestRefused: ``NOT_AUTHORIZED``: the certificate does not say, or nothing usable.
    """

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in said:
            raise _refused(f"it has no {match[1]}, which the UDID is made of")
        return said[match[1]]

    udid = _PLACEHOLDER.sub(value_of, template)
    if not is_udid(udid):
        raise _refused(f"{udid!r} is no UDID")
    return udid


def _pattern(text: str) -> dict[x509.ObjectIdentifier, re.Pattern[str]]:
    try:
        name = x509.Name.from_rfc4514_string(text, _NAMES)
    except ValueError as error:
        raise ConfigurationError(f"subjects: {text!r} is no name (RFC 4514)") from error
    attributes = list(name)
    pattern = {a.oid: re.compile(translate(_literally(str(a.value)))) for a in attributes}
    if not attributes or len(pattern) != len(attributes):
        raise ConfigurationError(f"subjects: {text!r} has no attribute, or one twice")
    return pattern


def _literally(text: str) -> str:
    """All characters of :mod:`fnmatch` but ``*`` stand for themselves."""
    return text.replace("[", "[[]").replace("?", "[?]")


def _fits(pattern: Mapping[x509.ObjectIdentifier, re.Pattern[str]], subject: x509.Name) -> bool:
    try:
        values = {oid: single(subject, oid) for oid in pattern}
    except MessageError:
        return False
    return all(value is not None and pattern[oid].fullmatch(value) for oid, value in values.items())


def _refused(detail: str) -> RequestRefused:
    return RequestRefused(
        RefusalReason.NOT_AUTHORIZED,
        "devices like this one are not registered here",
        detail=detail,
    )
