"""The server side of a behaviour test: real CAs, a real store, and devices that it knows or not."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from est_protocol.credentials import AnchorSet
from est_protocol.csr_attributes import ExtensionTemplate, NameAttributeTemplate
from est_protocol.csr_wishes import CsrWishes
from est_protocol.key_package import KeyGenerator
from est_protocol.keys import PublicKey, spki_sha256
from est_protocol.messages import Transport
from est_protocol.oid_names import KEY_USAGE, SUBJECT_ALT_NAME
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors
from est_server.alarms import Alarm, AlarmBell, AlarmLimits
from est_server.authorities.local import LocalAuthority
from est_server.authorities.signers.key import KeySigner
from est_server.authorization.device_list import DeviceListAuthorizer
from est_server.device_records import ListedDevice
from est_server.interfaces import LabelPolicy
from est_server.key_protection import KeyGenerationPolicy
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate
from est_server.life_cycle import DeviceOrder, LifeCycleStep
from est_server.registration_authorities import RegistrationAuthorityPolicy
from est_server.revocations import RevocationReason
from est_server.service import EnrollmentService
from est_server.stores.sqlite import SqliteStore
from tests.pki import (
    CLIENT_AUTH,
    CMC_RA,
    Ca,
    make_ca,
    make_key,
    make_leaf,
    make_name,
    make_server,
)

#: A label with a CA of its own.
LABEL = "factory-2"

#: A label that asks for something in every CSR.
WISHING = "wishing"

#: A label for the devices of one owner.
OWNED = "owned"
ACME = frozenset({"acme"})

#: A label that wants every CSR linked to its channel.
STRICT = "strict"


#: What that label asks for: a name to fill in, a name given, the kind of key, two extensions.
WISHES = CsrWishes(
    key="ec-p256",
    subject=(
        (NameAttributeTemplate("2.5.4.3", None),),
        (NameAttributeTemplate("2.5.4.11", b"\x0c\x05pumps"),),
    ),
    extensions=(
        ExtensionTemplate(SUBJECT_ALT_NAME, False, b"\x30\x0a\x82\x06a.test\x87\x00"),
        ExtensionTemplate(KEY_USAGE, True, b"\x03\x02\x07\x80"),
    ),
)

#: A label that knows a registration authority, for first enrollments.
REGISTERED = "registered"

#: A label that believes it whatever it vouches for, and wants every CSR linked to some channel.
VOUCHED = "vouched"

#: A label that generates keys and knows it.
REGISTERED_KEYS = "registered-keys"

#: A label under which the server generates keys.
KEYS = "keys"

#: The same, but no key leaves without encryption of its own.
SEALED_KEYS = "sealed-keys"


class KnownKeys:
    """Keys that were given to devices in advance."""

    def __init__(self) -> None:
        self.symmetric: dict[tuple[bytes, str], bytes] = {}
        self.public: dict[tuple[bytes, str], x509.Certificate | PublicKey] = {}

    async def symmetric_key(self, identifier: bytes, device: str, /) -> bytes | None:
        """See :class:`est_server.key_protection.KeyProtection`."""
        return self.symmetric.get((identifier, device))

    async def recipient_key(
        self, identifier: bytes, device: str, /
    ) -> x509.Certificate | PublicKey | None:
        """See :class:`est_server.key_protection.KeyProtection`."""
        return self.public.get((identifier, device))


@dataclass(frozen=True)
class Device:
    """A device: its key, and the certificate chain that it presents, if it has one."""

    udid: str
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def certificate(self) -> x509.Certificate:
        """The device's own certificate."""
        return self.chain[0]

    def with_certificate(self, certificate: x509.Certificate) -> Device:
        """The same device, presenting another certificate."""
        return replace(self, chain=(certificate,))


class AuditRecords(logging.Handler):
    """Keeps what the service writes to its audit trail."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Mapping[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.entries.append(record.__dict__["audit"])


class World:
    """One server's worth of everything but the transport.

    :param database: the file of ``store``.
    """

    def __init__(self, store: SqliteStore, database: Path, audit: AuditRecords) -> None:
        self.store = store
        self.database = database
        self.audit = audit
        self._default = make_ca("issuing", make_ca("root"))
        self._labelled = make_ca("labelled issuing", make_ca("labelled root"))
        self._manufacturer = make_ca("manufacturer")
        self.authority_issuing = self._default.certificate
        (self.authority_root,) = self._default.issuers
        self.labelled_issuing = self._labelled.certificate
        (self.labelled_root,) = self._labelled.issuers
        self.server_credentials: LocalCredentials = make_server(self._default)
        self.server_anchors = TrustAnchors(
            {
                AnchorSet.OPERATIONAL: (self.authority_issuing, self.labelled_issuing),
                AnchorSet.MANUFACTURER: (self._manufacturer.certificate,),
            }
        )
        self.client_anchors = TrustAnchors({AnchorSet.EXPLICIT: (self.authority_root,)})
        self.known_keys = KnownKeys()
        self.generator = make_leaf(self._default, "key generator")
        generation = KeyGenerationPolicy(
            kinds=("ec-p256", "ec-p384", "rsa-2048"),
            generator=KeyGenerator(self.generator.key, self.generator.chain),
            protection=self.known_keys,
        )
        registration = RegistrationAuthorityPolicy(subjects=frozenset({make_name("ra")}))
        policies = {
            None: self._policy(self._default),
            LABEL: self._policy(self._labelled),
            STRICT: self._policy(self._labelled, require_pop_linking=True),
            OWNED: replace(self._policy(self._default, owners=ACME), owners=ACME),
            WISHING: replace(self._policy(self._default), csr_wishes=WISHES),
            REGISTERED: replace(self._policy(self._default), registration_authorities=registration),
            VOUCHED: replace(
                self._policy(self._default, require_pop_linking=True),
                registration_authorities=replace(registration, foreign_linking=True, renewals=True),
            ),
            REGISTERED_KEYS: replace(
                self._policy(self._default),
                registration_authorities=registration,
                key_generation=generation,
            ),
            KEYS: replace(self._policy(self._default), key_generation=generation),
            SEALED_KEYS: replace(
                self._policy(self._default),
                key_generation=replace(generation, require_protected_key=True),
            ),
        }
        self.alarms: list[Alarm] = []
        self.ahead = timedelta(0)
        self.service = EnrollmentService(
            policies,
            store,
            registry=store,
            clock=self,
            alarms=AlarmBell(self._hear, AlarmLimits(late_repeat=timedelta(hours=1))),
        )

    def now(self) -> datetime:
        """The time by the service's clock."""
        return datetime.now(UTC) + self.ahead

    async def _hear(self, alarm: Alarm, /) -> None:
        self.alarms.append(alarm)

    @property
    def last_refusal(self) -> str | None:
        """The reason code of the last refusal in the audit trail."""
        refusals = [entry["reason"] for entry in self.audit.entries if "reason" in entry]
        return refusals[-1] if refusals else None

    def policy(self, label: str | None) -> LabelPolicy:
        """What ``label`` stands for."""
        return self.service._labels[label]

    def change_policy(self, label: str | None, **changes: Any) -> None:
        """Let ``label`` stand for something else from now on."""
        self.service._labels[label] = replace(self.policy(label), **changes)

    def _policy(
        self,
        ca: Ca,
        *,
        require_pop_linking: bool = False,
        owners: frozenset[str] | None = None,
    ) -> LabelPolicy:
        return LabelPolicy(
            LocalAuthority(KeySigner(ca.key), ca.certificate, ca.issuers),
            DeviceListAuthorizer(self.store, owners=owners),
            require_pop_linking=require_pop_linking,
        )

    def registration_authority(self, name: str = "ra", issuer: str = "issuing") -> Device:
        """A client whose certificate says that it is a registration authority.

        :param name: its subject; the labels know ``ra``.
        :param issuer: ``issuing``, ``labelled``, ``manufacturer`` or ``itself``.
        """
        issuers = {
            "issuing": self._default,
            "labelled": self._labelled,
            "manufacturer": self._manufacturer,
            "itself": None,
        }
        leaf = make_leaf(issuers[issuer], name, usage=CLIENT_AUTH, second_usage=CMC_RA)
        assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
        return Device(name, leaf.key, leaf.chain)

    def operational(self, name: str, key: ec.EllipticCurvePrivateKey) -> Device:
        """A client with an operational certificate of the default CA that no ledger knows."""
        return Device(name, key, make_leaf(self._default, name, key=key, usage=CLIENT_AUTH).chain)

    async def claim_with_a_renewal(self, device: Device, label: str) -> None:
        """Renew what the device got under ``label``, so that a repeat of its first request is
        none any more."""
        key = spki_sha256(device.key.public_key())
        now = datetime.now(UTC)
        first = await self.store.find_renewable(key, label, lost_since=now)
        assert first is not None
        intent = EnrollmentIntent(
            request_key=first.sha256,
            operation=Operation.SIMPLEREENROLL,
            label=label,
            device=device.udid,
            spki_sha256=key,
            predecessor=first.sha256,
            transport=Transport.HTTPS,
            peer="test",
            reasons=(),
            requested_at=now,
        )
        ticket = await self.store.begin(intent)
        assert isinstance(ticket, IssuanceTicket)
        again = make_leaf(self._default, device.udid, key=device.key)
        await self.store.complete(ticket, again.chain[0], now=now)

    async def enrolled_registration_authority(self) -> Device:
        """The registration authority with a certificate that is in the ledger."""
        authority = self.registration_authority()
        intent = EnrollmentIntent(
            request_key=spki_sha256(authority.key.public_key()),
            operation=Operation.SIMPLEENROLL,
            label=None,
            device="ra",
            spki_sha256=spki_sha256(authority.key.public_key()),
            predecessor=None,
            transport=Transport.HTTPS,
            peer="test",
            reasons=(),
            requested_at=datetime.now(UTC),
        )
        ticket = await self.store.begin(intent)
        assert isinstance(ticket, IssuanceTicket)
        await self.store.complete(ticket, authority.certificate, now=datetime.now(UTC))
        return authority

    def octets_at_rest(self) -> bytes:
        """All that the store has written to the disk."""
        files = self.database.parent.glob(f"{self.database.name}*")
        return b"".join(path.read_bytes() for path in files)

    def issued_count(self) -> int:
        """How many certificates the ledger holds."""
        with closing(sqlite3.connect(self.database)) as db:
            (count,) = db.execute(
                "SELECT count(*) FROM issuances WHERE status = 'issued'"
            ).fetchone()
        return int(count)

    async def list_device(self, name: str, *, born: bool = False, **attributes: str) -> Device:
        """A device of the list; ``born``: it has a genuine birth certificate."""
        device = self.unlisted_device(name, born=born)
        key_hash = spki_sha256(device.key.public_key())
        listed = ListedDevice(device.udid, key_hash, attributes)
        await self.store.add_devices([listed], now=datetime.now(UTC))
        return device

    def unlisted_device(self, name: str, *, born: bool = False, genuine: bool = True) -> Device:
        """A device that is on no list; not ``genuine``: its manufacturer is an impostor."""
        key = make_key(f"device {name}")
        manufacturer = self._manufacturer if genuine else make_ca("impostor")
        chain = make_leaf(manufacturer, f"birth of {name}", key=key).chain if born else ()
        return Device(f"udid-{name}", key, chain)

    async def expire(self, device: Device) -> Device:
        """The same device with an operational certificate that has expired."""
        lately = datetime.now(UTC) - timedelta(minutes=1)
        expired = make_leaf(self._default, device.udid, key=device.key, not_after=lately)
        return device.with_certificate(expired.chain[0])

    async def order(
        self,
        device: Device,
        step: LifeCycleStep,
        *,
        code: RevocationReason | None = None,
        owner: str | None = None,
    ) -> None:
        """Take a step in a device's life."""
        order = DeviceOrder(device.udid, step, "test", "test", code, owner)
        await self.store.change_device(order, now=datetime.now(UTC))

    async def revoke(
        self,
        certificate: x509.Certificate,
        code: RevocationReason = RevocationReason.UNSPECIFIED,
    ) -> None:
        """Revoke a certificate."""
        await self.store.revoke_certificate(
            certificate.fingerprint(hashes.SHA256()),
            actor="test",
            reason="test",
            code=code,
            now=datetime.now(UTC),
        )

    async def find(self, certificate: x509.Certificate) -> IssuedCertificate:
        """The ledger's record of a certificate."""
        issued = await self.store.find_certificate(certificate.fingerprint(hashes.SHA256()))
        assert issued is not None
        return issued
