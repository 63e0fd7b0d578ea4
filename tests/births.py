"""Birth certificates per IEEE 802.1AR, and devices that have them."""

from __future__ import annotations

from datetime import UTC, datetime

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from tests.behaviour.world import Device
from tests.pki import PRESENT, Ca, make_key

HARDWARE_MODULE_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4")
HARDWARE_TYPE = "1.3.6.1.4.1.99999.7"

#: 99991231235959Z: there is no end.
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def hardware_module_name(kind: str, serial: bytes) -> bytes:
    """The DER of RFC 4108's HardwareModuleName."""
    octets: bytes = core.ObjectIdentifier(kind).dump() + core.OctetString(serial).dump()
    return b"\x30" + bytes([len(octets)]) + octets


def make_idevid(
    manufacturer: Ca,
    serial_number: str | None = None,
    *,
    key: str = "born",
    subject: x509.Name | None = None,
    hardware: bytes | None = None,
    not_after: datetime = FOREVER,
) -> x509.Certificate:
    """A birth certificate as IEEE 802.1AR wants it.

    :param hardware: the DER of its hardwareModuleName.
    """
    if subject is None:
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme")]
        if serial_number is not None:
            attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number))
        subject = x509.Name(attributes)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(manufacturer.certificate.subject)
        .public_key(make_key(key).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(PRESENT.replace(year=PRESENT.year - 1, day=1))
        .not_valid_after(not_after)
    )
    if hardware is not None:
        name = x509.OtherName(HARDWARE_MODULE_NAME, hardware)
        builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
    return builder.sign(manufacturer.key, hashes.SHA256())


def born(
    manufacturer: Ca, serial_number: str = "SN-1", *, key: str = "born", serial: bytes = b"\x01\x02"
) -> Device:
    """A device with such a certificate."""
    hardware = hardware_module_name(HARDWARE_TYPE, serial)
    chain = (make_idevid(manufacturer, serial_number, key=key, hardware=hardware),)
    return Device(serial_number, make_key(key), chain)
