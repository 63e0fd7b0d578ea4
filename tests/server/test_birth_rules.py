"""Which birth certificates fit a manufacturer's rules, and what their devices are called."""

from __future__ import annotations

import pytest
from cryptography import x509

from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_protocol.idevid import DeviceIdentity
from est_server.authorization.birth_rules import Rules, check_udid_template, facts, udid_of
from est_server.birth_certificates import (
    BirthCertificate,
    BirthCertificateSettings,
    ManufacturerRules,
)
from est_server.quotas import QuotaBound
from tests.births import HARDWARE_TYPE, hardware_module_name, make_idevid
from tests.pki import make_ca

QUOTA = QuotaBound(10)


def birth(subject: str = "O=Acme,CN=sensor-7", *, hardware: bool = False) -> BirthCertificate:
    name = x509.Name.from_rfc4514_string(subject)
    module = hardware_module_name(HARDWARE_TYPE, b"\xab\x01") if hardware else None
    certificate = make_idevid(make_ca("manufacturer"), subject=name, hardware=module)
    return BirthCertificate(certificate, DeviceIdentity.of(certificate), "acme", bytes(32))


def fits(rules: ManufacturerRules, born: BirthCertificate) -> bool:
    try:
        Rules(rules).require_fit(born)
    except RequestRefused as refused:
        return refused.reason is not RefusalReason.NOT_AUTHORIZED
    return True


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("CN=sensor-*", "O=Acme,CN=sensor-7", True),
        ("CN=sensor-*,O=Acme", "O=Acme,CN=sensor-7", True),
        ("CN=sensor-*,O=Acme", "CN=sensor-7", False),
        ("CN=*", "O=Acme", False),
        ("CN=sensor-?", "CN=sensor-7", False),
        ("CN=sensor-[0-9]", "CN=sensor-7", False),
        ("CN=sensor-[0-9]", "CN=sensor-[0-9]", True),
        ("CN=Sensor-7", "CN=sensor-7", False),
        ("CN=sensor", "CN=sensor-7", False),
        ("serialNumber=SN-*", "2.5.4.5=SN-1", True),
        # One attribute cannot pretend to be two, nor two to be one.
        ("CN=*,O=Acme", "CN=x\\,O\\=Acme", False),
        ("CN=sensor-*", "CN=sensor-7,CN=gateway", False),
    ],
)
def test_patterns(pattern: str, subject: str, expected: bool) -> None:
    assert fits(ManufacturerRules(QUOTA, subjects=(pattern,)), birth(subject)) is expected


def test_one_pattern_is_enough_and_none_is_all() -> None:
    assert fits(ManufacturerRules(QUOTA, subjects=("CN=a", "CN=sensor-*")), birth())
    assert fits(ManufacturerRules(QUOTA), birth())


def test_hardware_types() -> None:
    rules = ManufacturerRules(QUOTA, hardware_types=(HARDWARE_TYPE,))
    assert fits(rules, birth(hardware=True))
    assert not fits(rules, birth())
    assert not fits(ManufacturerRules(QUOTA, hardware_types=("1.2.3",)), birth(hardware=True))


@pytest.mark.parametrize("text", ["", "nonsense", "CN=a,CN=b"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ConfigurationError, match="subjects"):
        Rules(ManufacturerRules(QUOTA, subjects=(text,)))


def test_an_attribute_that_the_certificate_speaks_of() -> None:
    with pytest.raises(ConfigurationError, match="manufacturer"):
        Rules(ManufacturerRules(QUOTA, attributes={"manufacturer": "other"}))


def test_what_a_device_is_called() -> None:
    said = facts(birth("2.5.4.5=SN-1", hardware=True))
    assert said == {
        "key_sha256": "00" * 32,
        "manufacturer": "acme",
        "serial_number": "SN-1",
        "hardware_type": HARDWARE_TYPE,
        "hardware_serial": "ab01",
    }
    assert udid_of("{manufacturer}-{serial_number}", said) == "acme-SN-1"
    assert udid_of("{hardware_type}/{hardware_serial}", said) == f"{HARDWARE_TYPE}/ab01"
    # What a certificate says is not read for placeholders again.
    assert udid_of("{serial_number}", {"serial_number": "{key_sha256}"}) == "{key_sha256}"


@pytest.mark.parametrize("said", [{}, {"serial_number": "x" * 129}, {"serial_number": "a\tb"}])
def test_what_a_device_cannot_be_called(said: dict[str, str]) -> None:
    with pytest.raises(RequestRefused) as refused:
        udid_of("{serial_number}", said)
    assert refused.value.reason is RefusalReason.NOT_AUTHORIZED


@pytest.mark.parametrize("template", ["device", "", "{udid}", "{serial_number", "{a{key_sha256}"])
def test_a_template_that_is_none(template: str) -> None:
    if template == "{a{key_sha256}":
        # The brace before it is text.
        check_udid_template(template)
        return
    with pytest.raises(ConfigurationError, match="udid"):
        check_udid_template(template)


def test_manufacturers_must_not_take_each_others_identifiers() -> None:
    rules = ManufacturerRules(QUOTA)
    with pytest.raises(ConfigurationError, match="several manufacturers"):
        BirthCertificateSettings({"a": rules, "b": rules}, udid="{serial_number}")
    BirthCertificateSettings({"a": rules}, udid="{serial_number}")
    BirthCertificateSettings({"a": rules, "b": rules}, udid="{manufacturer}-{serial_number}")
