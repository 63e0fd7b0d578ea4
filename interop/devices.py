"""Made-up devices: each with a key, and a birth certificate of a made-up manufacturer."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests import pki

MANUFACTURER = pki.make_ca("Made-up Devices Root")
_FACTORY = pki.make_ca("Made-up Devices Factory 1", MANUFACTURER)


@dataclass(frozen=True, slots=True)
class Device:
    """A device in a directory of its own.

    :param udid: its identifier in the device list.
    :param public_key: its key, as base64 of the DER SubjectPublicKeyInfo.
    :param key: PEM file with its private key.
    :param birth_certificate: PEM file with its birth certificate and the factory's CA.
    :param short_birth_certificate: PEM file with one that the manufacturer's root itself issued,
        for programs that send a single certificate.
    """

    udid: str
    public_key: str
    key: Path
    birth_certificate: Path
    short_birth_certificate: Path


def make_device(directory: Path, udid: str) -> Device:
    """A new device with its files under ``directory``."""
    home = directory / udid
    home.mkdir()
    private = ec.generate_private_key(ec.SECP256R1())
    key = home / "device.key"
    key.touch(0o600)
    key.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    births = [home / "birth.pem", home / "short-birth.pem"]
    for file, issuer in zip(births, (_FACTORY, MANUFACTURER), strict=True):
        born = pki.make_leaf(issuer, f"Made-up Sensor {udid}", key=private)
        file.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in born.chain))
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Device(udid, base64.b64encode(spki).decode(), key, *births)


def write_list(file: Path, devices: list[Device]) -> None:
    """Write the device list that a chip maker would deliver."""
    rows = [f"{device.udid},{device.public_key}" for device in devices]
    file.write_text("\n".join(["udid,public_key", *rows]) + "\n")


def write_manufacturer(file: Path) -> None:
    """Write the anchor of the birth certificates."""
    file.write_bytes(MANUFACTURER.certificate.public_bytes(Encoding.PEM))
