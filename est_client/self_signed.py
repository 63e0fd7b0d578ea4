"""The certificate that a device makes for itself, to carry a bare key into a handshake.

It says nothing that the key does not say; RFC 9148 section 3 wants a client certificate in the
DTLS handshake, and a device that holds nothing but a listed key presents this one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from est_protocol.keys import PublicKey, SigningKey, spki_sha256
from est_protocol.pkcs10 import signature_hash


def udid_name(key: PublicKey) -> x509.Name:
    """The name of a device that has none: its default UDID, 64 hex digits, as common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, spki_sha256(key).hex())])


def self_signed(key: SigningKey, *, not_before: datetime, validity: timedelta) -> x509.Certificate:
    """A certificate over ``key``, signed with ``key``, in the name of the default UDID."""
    public_key = key.public_key()
    name = udid_name(public_key)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_before + validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, signature_hash(key))
    )
