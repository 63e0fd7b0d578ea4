"""No octets keep asn1crypto busy: what would is refused before it is asked."""

from __future__ import annotations

import time

import pytest

from est_protocol.csr_attributes import CsrAttributes
from est_protocol.decrypt_key import read
from est_protocol.errors import MessageError
from est_protocol.idevid import decode_hardware_module_name
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.strict_asn1 import require_modest
from tests.protocol.raw_csr import attribute, extension_request, raw_csr, sequence, tagged

#: As long as fits into a body; asn1crypto takes half a second for it, and 20 s for six times that.
ENDLESS = tagged(0x06, b"\x2a" + b"\xff" * 58_000 + b"\x01")
SHORT = tagged(0x06, b"\x2a\x03")
DIRECTORY_ATTRIBUTES, CAPABILITIES = "2.5.29.9", "1.2.840.113549.1.9.15"
DECRYPT_KEY = "1.2.840.113549.1.9.16.2.37"


def directory_attributes(oid: bytes) -> frozenset[str]:
    values = sequence(sequence(oid, tagged(0x31)))
    request = raw_csr(extension_request((DIRECTORY_ATTRIBUTES, values)))
    return CertificationRequest.decode(request).directory_attributes


def quickly(seconds: float) -> float:
    """CPU time that may be taken from now on."""
    return time.process_time() + seconds


def test_an_endless_identifier_is_refused_at_once() -> None:
    until = quickly(0.2)
    assert directory_attributes(SHORT) == {"1.2.3"}
    assert directory_attributes(ENDLESS) == frozenset()
    capabilities = attribute(CAPABILITIES, sequence(sequence(ENDLESS)))
    with pytest.raises(MessageError, match="too long"):
        read(raw_csr(attribute(DECRYPT_KEY, tagged(0x04, b"k")), capabilities))
    with pytest.raises(MessageError, match="too long"):
        CsrAttributes.decode(sequence(ENDLESS))
    with pytest.raises(MessageError, match="too long"):
        decode_hardware_module_name(sequence(ENDLESS, tagged(0x04, b"1")))
    assert time.process_time() < until


def test_many_elements_and_deep_ones_are_refused_at_once() -> None:
    until = quickly(0.2)
    with pytest.raises(MessageError, match="too many"):
        CsrAttributes.decode(sequence(SHORT * 70_000))
    deep = b""
    for _ in range(5000):
        deep = sequence(deep)
    with pytest.raises(MessageError, match="too deep"):
        CsrAttributes.decode(deep)
    assert time.process_time() < until


@pytest.mark.parametrize(
    "octets", [b"\x30\x80\x00\x00", b"\x30\x05\x06", b"\x1f\x81\x01\x00", b"\x06"]
)
def test_what_is_not_der_is_refused(octets: bytes) -> None:
    with pytest.raises(MessageError):
        require_modest(octets)
