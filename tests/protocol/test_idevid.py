"""What birth certificates per IEEE 802.1AR say of their devices."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.errors import MessageError
from est_protocol.idevid import DeviceIdentity, decode_hardware_module_name
from tests.births import FOREVER, HARDWARE_TYPE, hardware_module_name, make_idevid
from tests.pki import make_ca, make_leaf

CA = make_ca("manufacturer")


@pytest.mark.conformance("AUTH-21")
def test_all_that_there_may_be() -> None:
    hardware = hardware_module_name(HARDWARE_TYPE, b"\x00\xff")
    certificate = make_idevid(CA, "SN-1", hardware=hardware)
    assert certificate.not_valid_after_utc == FOREVER
    assert DeviceIdentity.of(certificate) == DeviceIdentity(
        certificate.subject, "SN-1", HARDWARE_TYPE, b"\x00\xff"
    )


def test_none_of_it() -> None:
    certificate = make_leaf(CA, "device").chain[0]
    assert DeviceIdentity.of(certificate) == DeviceIdentity(certificate.subject)


def test_other_names_are_let_be() -> None:
    other = x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")
    names = (other, x509.DNSName("a.test"))
    certificate = make_leaf(CA, "device", names=names).chain[0]
    assert DeviceIdentity.of(certificate).hardware_serial is None


def test_two_serial_numbers() -> None:
    numbers = [x509.NameAttribute(NameOID.SERIAL_NUMBER, text) for text in ("1", "2")]
    with pytest.raises(MessageError, match="2 attributes"):
        DeviceIdentity.of(make_idevid(CA, subject=x509.Name(numbers)))


def test_two_hardware_modules() -> None:
    name = x509.OtherName(
        x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), hardware_module_name(HARDWARE_TYPE, b"1")
    )
    with pytest.raises(MessageError, match="two hardware modules"):
        DeviceIdentity.of(make_leaf(CA, "device", names=(name, name)).chain[0])


@pytest.mark.parametrize(
    "der",
    [
        b"\x05\x00",
        b"\x30\x00",
        hardware_module_name(HARDWARE_TYPE, b""),
        hardware_module_name(HARDWARE_TYPE, bytes(65)),
        b"\x30\x04\x06\x00\x04\x00",
    ],
)
def test_a_hardware_module_that_is_none(der: bytes) -> None:
    with pytest.raises(MessageError, match=r"hw|hardware"):
        DeviceIdentity.of(make_idevid(CA, hardware=der))


@given(st.binary(max_size=80))
def test_octets_that_mean_nothing(octets: bytes) -> None:
    try:
        kind, serial = decode_hardware_module_name(octets)
    except MessageError:
        return
    assert kind
    assert serial


@given(st.binary(max_size=4), st.integers(0, 20))
def test_octets_that_mean_almost_something(octets: bytes, place: int) -> None:
    der = hardware_module_name(HARDWARE_TYPE, b"1234")
    try:
        decode_hardware_module_name(der[:place] + octets + der[place + len(octets) :])
    except MessageError:
        return
