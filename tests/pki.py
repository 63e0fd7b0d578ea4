"""A tiny PKI for tests: real certificates over EC keys that are made once per session."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from est_protocol.oid_names import ID_KP_CMC_RA
from est_protocol.secure_channel.context import LocalCredentials

#: Certificates are valid around the real present, because OpenSSL reads the machine's clock.
PRESENT = datetime.now(UTC).replace(microsecond=0)

CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CMC_RA = x509.ObjectIdentifier(ID_KP_CMC_RA)


@dataclass(frozen=True)
class Ca:
    """A certificate authority: its key, its certificate, and its issuers up to the root."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    issuers: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What a leaf of this CA presents after itself: all but the root."""
        return (self.certificate, *self.issuers)[:-1]


@cache
def make_key(name: str) -> ec.EllipticCurvePrivateKey:
    """A P-256 key; the same one for the same ``name``, in every run and every process."""
    secret = int.from_bytes(hashlib.sha256(name.encode()).digest()) >> 8
    return ec.derive_private_key(secret, ec.SECP256R1())


def make_name(common_name: str) -> x509.Name:
    """A name of one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@cache
def make_ca(name: str, issuer: Ca | None = None) -> Ca:
    """A CA, self-signed unless ``issuer`` is given; the same one for the same arguments."""
    key = make_key(f"ca {name}")
    certificate = (
        _builder(name, key.public_key(), issuer)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )
    return Ca(key, certificate, (issuer.certificate, *issuer.issuers) if issuer else ())


def make_leaf(
    ca: Ca | None,
    common_name: str,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    usage: x509.ObjectIdentifier | None = None,
    second_usage: x509.ObjectIdentifier | None = None,
    names: tuple[x509.GeneralName, ...] = (),
    not_before: datetime = PRESENT - timedelta(hours=1),
    not_after: datetime = PRESENT + timedelta(days=1),
) -> LocalCredentials:
    """An end-entity certificate with its key and the chain it presents.

    :param ca: its issuer; ``None`` makes it self-signed.
    :param key: the certified key; ``None`` takes the one called ``common_name``.
    :param usage: its extended key usage; ``None`` leaves the extension out.
    :param second_usage: another one beside it.
    :param names: its subjectAltName entries; empty leaves the extension out.
    """
    key = key or make_key(common_name)
    builder = _builder(common_name, key.public_key(), ca, not_before, not_after).add_extension(
        _key_usage(ca=False), critical=True
    )
    if usage is not None:
        usages = [usage] if second_usage is None else [usage, second_usage]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(ca.key if ca else key, hashes.SHA256())
    return LocalCredentials(key, (certificate, *(ca.chain if ca else ())))


def make_server(ca: Ca, host: str = "localhost") -> LocalCredentials:
    """The credentials of a TLS server that is called ``host`` and listens on loopback."""
    names = (x509.DNSName(host), x509.IPAddress(ip_address("127.0.0.1")))
    return make_leaf(ca, host, usage=SERVER_AUTH, names=names)


def _builder(
    subject: str,
    key: ec.EllipticCurvePublicKey,
    issuer: Ca | None,
    not_before: datetime = PRESENT - timedelta(hours=1),
    not_after: datetime = PRESENT + timedelta(days=1),
) -> x509.CertificateBuilder:
    issuer_key = issuer.key.public_key() if issuer else key
    return (
        x509.CertificateBuilder()
        .subject_name(make_name(subject))
        .issuer_name(issuer.certificate.subject if issuer else make_name(subject))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
        )
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def odd_to_openssl(certificate: x509.Certificate) -> x509.Certificate:
    """The same with a common name that ``cryptography`` reads and OpenSSL does not."""
    der = certificate.public_bytes(Encoding.DER)
    name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert isinstance(name, str)
    text = bytes([0x0C, len(name)]) + name.encode()
    before, _, after = der.rpartition(text)
    return x509.load_der_x509_certificate(before + b"\x04" + text[1:] + after)
