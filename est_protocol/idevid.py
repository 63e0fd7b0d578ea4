"""What a birth certificate says of its device, per IEEE 802.1AR.

The device's serial number is the serialNumber attribute of the subject; the hardware module that
holds the key may be named in subjectAltName by RFC 4108's type::

    id-on-hardwareModuleName OBJECT IDENTIFIER ::= { 1 3 6 1 5 5 7 8 4 }

    HardwareModuleName ::= SEQUENCE {
        hwType      OBJECT IDENTIFIER,
        hwSerialNum OCTET STRING }

A certificate that never ends has the notAfter 99991231235959Z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from asn1crypto import core
from cryptography import x509
from cryptography.x509.oid import NameOID

from est_protocol.errors import MessageError
from est_protocol.strict_asn1 import require_modest
from est_protocol.x509_decoding import decoding_x509

_HARDWARE_MODULE_NAME = "1.3.6.1.5.5.7.8.4"

#: Octets of an hwSerialNum; there is no bound in RFC 4108, and no serial number comes near.
_LONGEST_SERIAL = 64


class _HardwareModuleName(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar = [("hw_type", core.ObjectIdentifier), ("hw_serial_num", core.OctetString)]


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """What a birth certificate says of its device.

    :param subject: its subject.
    :param serial_number: the serialNumber attribute of its subject, if there is one.
    :param hardware_type: hwType of its hardwareModuleName in dotted form, if it has one.
    :param hardware_serial: hwSerialNum of the same; octets, since it need not be text.
    """

    subject: x509.Name
    serial_number: str | None = None
    hardware_type: str | None = None
    hardware_serial: bytes | None = None

    @classmethod
    def of(cls, certificate: x509.Certificate) -> DeviceIdentity:
        """What ``certificate`` says.

        :raises MessageError: it does not decode, or says a thing twice.
        """
        with decoding_x509("the birth certificate"):
            subject = certificate.subject
            try:
                extension = certificate.extensions.get_extension_for_class(
                    x509.SubjectAlternativeName
                )
                names = extension.value.get_values_for_type(x509.OtherName)
            except x509.ExtensionNotFound:
                names = []
        modules = [n.value for n in names if n.type_id.dotted_string == _HARDWARE_MODULE_NAME]
        if len(modules) > 1:
            raise MessageError("the birth certificate names two hardware modules")
        kind, serial = decode_hardware_module_name(modules[0]) if modules else (None, None)
        return cls(subject, single(subject, NameOID.SERIAL_NUMBER), kind, serial)


def single(name: x509.Name, oid: x509.ObjectIdentifier) -> str | None:
    """The one attribute of a kind in a name; ``None`` if there is none.

    :raises MessageError: there are several, or it is no text.
    """
    found = name.get_attributes_for_oid(oid)
    if len(found) > 1:
        raise MessageError(f"the subject has {len(found)} attributes {oid.dotted_string}")
    if not found:
        return None
    value = found[0].value
    if not isinstance(value, str):
        raise MessageError(f"the attribute {oid.dotted_string} of the subject is no text")
    return value


def decode_hardware_module_name(der: bytes) -> tuple[str, bytes]:
    """hwType in dotted form and hwSerialNum of a HardwareModuleName (RFC 4108 section 5).

    :raises MessageError: it is none.
    """
    require_modest(der)
    try:
        decoded = _HardwareModuleName.load(der, strict=True)
        kind, serial = decoded["hw_type"].native, decoded["hw_serial_num"].native
    except (ValueError, TypeError) as error:
        raise MessageError(f"the hardwareModuleName does not decode: {error}") from error
    if not 0 < len(serial) <= _LONGEST_SERIAL:
        raise MessageError(f"the hwSerialNum has {len(serial)} octets")
    return str(kind), bytes(serial)
