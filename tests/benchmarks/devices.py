"""Devices for the load generators: keys, birth certificates and requests, made beforehand.

Making them must cost the generator nothing while the server is measured.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import NameOID

from est_protocol import base64_body
from est_protocol.keys import SigningKey, generate_key, spki_sha256
from est_protocol.secure_channel.context import LocalCredentials

_VALID = timedelta(days=365)


@dataclass(frozen=True)
class Device:
    """What a generator needs of one device: octets only, so that it pickles."""

    key: bytes
    chain: tuple[bytes, ...]
    csr: bytes
    spki_sha256: bytes

    @property
    def credentials(self) -> LocalCredentials:
        """Its key and its birth certificate."""
        key = load_der_private_key(self.key, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return LocalCredentials(key, tuple(map(x509.load_der_x509_certificate, self.chain)))


@dataclass(frozen=True)
class Manufacturer:
    """Who makes devices: a root that servers trust, and an issuer below it."""

    root: x509.Certificate
    issuer: x509.Certificate
    issuer_key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls) -> Manufacturer:
        """A manufacturer with fresh keys."""
        root_key = ec.generate_private_key(ec.SECP256R1())
        issuer_key = ec.generate_private_key(ec.SECP256R1())
        root = _certify("Bench Root", root_key.public_key(), "Bench Root", root_key, ca=True)
        issuer = _certify("Bench Issuer", issuer_key.public_key(), "Bench Root", root_key, ca=True)
        return cls(root, issuer, issuer_key)

    def make_device(self, number: int, csr_key_kind: str = "ec-p256") -> Device:
        """A device with a birth certificate, and a request for a key of ``csr_key_kind``.

        The request is not linked to a channel; a client certificate vouches for it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"device-{number}"
        certificate = _certify(name, key.public_key(), "Bench Issuer", self.issuer_key, ca=False)
        asked: SigningKey = key if csr_key_kind == "ec-p256" else generate_key(csr_key_kind)
        return Device(
            key=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            chain=tuple(c.public_bytes(Encoding.DER) for c in (certificate, self.issuer)),
            csr=make_csr(name, asked),
            spki_sha256=spki_sha256(key.public_key()),
        )


def make_csr(name: str, key: SigningKey) -> bytes:
    """A PKCS#10 request in DER, signed with ``key``."""
    hashed = isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    return builder.sign(key, hashes.SHA256() if hashed else None).public_bytes(Encoding.DER)


def write_devices(devices: list[Device], path: Path) -> None:
    """Keep ``devices`` for the generators."""
    path.write_bytes(pickle.dumps(devices))


def read_devices(path: Path) -> list[Device]:
    """The devices in a file that this program wrote."""
    devices: list[Device] = pickle.loads(path.read_bytes())
    return devices


def device_list(devices: list[Device], total: int) -> Iterator[str]:
    """The lines of a device list of ``total`` rows, ``devices`` spread among them."""
    yield "spki_sha256"
    step = max(1, total // max(1, len(devices)))
    waiting = iter(devices)
    for number in range(total):
        device = next(waiting, None) if number % step == 0 else None
        digest = device.spki_sha256 if device else hashlib.sha256(b"%d" % number).digest()
        yield digest.hex()
    for device in waiting:
        yield device.spki_sha256.hex()


def body(csr: bytes) -> bytes:
    """A request's HTTP body (RFC 8951 section 3.1)."""
    return base64_body.encode(csr)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certify(
    subject: str,
    key: ec.EllipticCurvePublicKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC).replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    return builder.sign(issuer_key, hashes.SHA256())
