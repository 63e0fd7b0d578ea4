"""What the devices of a fleet have when they leave the factory; the same for the same seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from est_client.simulation.device import FactoryIdentity
from est_client.simulation.scenario import IdentityModel
from est_protocol.keys import SigningKey, spki_sha256
from est_protocol.secure_channel.context import LocalCredentials

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_LONG_AGO = timedelta(days=365)


def derived_key(*names: object) -> ec.EllipticCurvePrivateKey:
    """A P-256 key that follows from names; for simulations only."""
    digest = hashlib.sha512("|".join(map(str, names)).encode()).digest()
    return ec.derive_private_key(1 + int.from_bytes(digest, "big") % (_ORDER - 1), ec.SECP256R1())


class Factory:
    """Makes the identities of a fleet.

    :param seed: the same one makes the same fleet.
    :param model: what a device is given.
    :param now: the date and time; birth certificates are a year old.
    :param make_key: makes the devices' keys; by default they follow from the seed.
    :raises ConfigurationError: a key that is made elsewhere is to have a birth certificate.
    """

    def __init__(
        self,
        seed: int,
        model: IdentityModel,
        now: datetime,
        make_key: Callable[[], SigningKey] | None = None,
    ) -> None:
        self._seed = seed
        self._model = model
        self._now = now
        self._make_key = make_key
        self._ca_key = derived_key(seed, "manufacturer")
        #: The manufacturer's CA, which birth certificates chain to.
        self.manufacturer = self._manufacturer()

    def devices(self, count: int) -> Iterator[FactoryIdentity]:
        """The first ``count`` devices of the fleet."""
        for number in range(count):
            yield self._device(number)

    def _device(self, number: int) -> FactoryIdentity:
        if self._make_key is not None:
            made = self._make_key()
            return FactoryIdentity(spki_sha256(made.public_key()).hex(), LocalCredentials(made, ()))
        key = derived_key(self._seed, "device", number)
        udid = spki_sha256(key.public_key()).hex()
        if self._model is IdentityModel.BIRTH_CERTIFICATE:
            return FactoryIdentity(udid, LocalCredentials(key, (self._birth(key, udid),)))
        secret = None
        if self._model is IdentityModel.ONE_TIME_SECRET:
            secret = hashlib.sha256(f"{self._seed}|secret|{number}".encode()).hexdigest()[:32]
        return FactoryIdentity(udid, LocalCredentials(key, ()), secret)

    def _manufacturer(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Simulated Manufacturer")])
        return (
            self._begin(name, self._ca_key, 1)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._ca_key, hashes.SHA256())
        )

    def _birth(self, key: ec.EllipticCurvePrivateKey, udid: str) -> x509.Certificate:
        """An IDevID in the manner of IEEE 802.1AR."""
        name = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, udid[:16])])
        return (
            self._begin(name, key, int(udid[:30], 16) or 1)
            .issuer_name(self.manufacturer.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._ca_key, hashes.SHA256())
        )

    def _begin(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, serial: int
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(self._now - _LONG_AGO)
            .not_valid_after(self._now + 20 * _LONG_AGO)
        )
