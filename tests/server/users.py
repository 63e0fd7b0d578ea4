"""A service that knows users, for tests: a real store, a real CA, and a client in one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509

from est_protocol import digest_authentication, pkcs10
from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.credentials import PeerCredentials
from est_protocol.csr_wishes import CsrWishes
from est_protocol.errors import RequestRefused
from est_protocol.http_authentication import DigestAlgorithm, HttpCredentials
from est_protocol.keys import spki_sha256
from est_protocol.messages import CertificatesResponse, EstRequest, Transport
from est_protocol.oid_names import OTP_CHALLENGE
from est_protocol.operations import Operation
from est_server.authorities.local import LocalAuthority
from est_server.authorities.signers.key import KeySigner
from est_server.authorization.device_list import DeviceListAuthorizer
from est_server.authorization.one_time_secret import OneTimeSecrets
from est_server.authorization.secret_hashes import SlowChecks, hash_secret
from est_server.device_records import ListedDevice
from est_server.interfaces import Authorizer, LabelPolicy
from est_server.service import EnrollmentService
from est_server.stores.sqlite import SqliteStore
from est_server.user_credentials import EnrollmentSecret, HttpAuthentication
from est_server.users import UserLimits
from tests.pki import make_ca, make_key, make_name
from tests.server.ledger_values import FakeClock

CA = make_ca("users issuing", make_ca("users root"))
BINDING = ChannelBinding(ChannelBindingType.TLS_EXPORTER, bytes(32))
ANONYMOUS = PeerCredentials(channel_binding=BINDING, address="127.0.0.1:4711")

#: Cheap, or the tests would take long for what scrypt is made for.
COST = 2


@dataclass
class Users:
    """A verifier that knows passwords, and counts how often it is asked."""

    passwords: dict[str, str] = field(default_factory=lambda: {"alice": "s3cret \u00fc"})
    asked: int = 0

    async def check_password(self, user: str, password: str) -> bool:
        self.asked += 1
        return self.passwords.get(user) == password

    async def digest_secret(self, user: str, realm: str, algorithm: DigestAlgorithm) -> str | None:
        self.asked += 1
        password = self.passwords.get(user)
        if password is None:
            return None
        return digest_authentication.user_secret(algorithm, user, realm, password)


@dataclass
class Clerk:
    """One label, and a client of it."""

    service: EnrollmentService
    store: SqliteStore
    clock: FakeClock
    secrets: OneTimeSecrets

    async def enroll(
        self,
        key: str,
        *,
        credentials: HttpCredentials | None = None,
        otp: str | None = None,
        linked: bool = False,
        peer: PeerCredentials = ANONYMOUS,
        transport: Transport = Transport.HTTPS,
        operation: Operation = Operation.SIMPLEENROLL,
    ) -> x509.Certificate:
        csr = pkcs10.build(
            make_key(key),
            make_name("a wish") if peer.certificate is None else peer.certificate.subject,
            attributes={OTP_CHALLENGE: otp} if otp else {},
            binding=BINDING if linked else None,
        )
        request = EstRequest(operation, transport, None, csr.der, credentials)
        answer = await self.service.respond(request, peer)
        assert isinstance(answer, CertificatesResponse)
        return answer.certificates[0]

    def use(self, authorizer: Authorizer) -> None:
        """Let ``authorizer`` decide from now on."""
        labels = self.service._labels
        labels[None] = replace(labels[None], authorizer=authorizer)

    async def list_device(self, key: str) -> None:
        device = ListedDevice(f"udid-{key}", spki_sha256(make_key(key).public_key()))
        await self.store.add_devices([device], now=self.clock.now())

    async def add_secret(self, name: str, text: str, **more: object) -> EnrollmentSecret:
        secret = replace(EnrollmentSecret(name, hash_secret(text, cost=COST)), **more)  # type: ignore[arg-type]
        return await self.store.add_secret(secret, now=self.clock.now())


@asynccontextmanager
async def clerk(
    directory: Path,
    *,
    http: HttpAuthentication | None = None,
    secret_http: bool = False,
    otp: bool = False,
    wishes: CsrWishes | None = None,
    unlisted: bool = False,
    authorizer: Authorizer | None = None,
    limits: UserLimits | None = None,
) -> AsyncIterator[Clerk]:
    """Open a service; its store is in ``directory``, which is made if it is not there.

    :param secret_http: let HTTP Basic carry one-time secrets.
    :param otp: let otpChallenges carry them.
    :param authorizer: decides in place of the one-time secrets, or the list where there are none.
    """
    clock = FakeClock()
    await asyncio.to_thread(directory.mkdir, exist_ok=True)
    async with SqliteStore.open(directory / "store.db", clock=clock) as store:
        secrets = OneTimeSecrets(store, store, unlisted=unlisted, checks=SlowChecks())
        if secret_http:
            http = HttpAuthentication(secrets, digest=())
        if authorizer is None:
            authorizer = secrets if secret_http or otp else DeviceListAuthorizer(store)
        policy = LabelPolicy(
            LocalAuthority(KeySigner(CA.key), CA.certificate, CA.issuers),
            authorizer,
            http=http,
            one_time_secrets=secrets if otp else None,
            csr_wishes=wishes or CsrWishes(),
        )
        service = EnrollmentService(
            {None: policy}, store, registry=store, clock=clock, user_limits=limits
        )
        yield Clerk(service, store, clock, secrets)
        await service.close()


async def refused(attempt: object) -> RequestRefused:
    """The refusal that ``attempt`` ends in."""
    try:
        await attempt  # type: ignore[misc]
    except RequestRefused as refusal:
        return refusal
    raise AssertionError("it was not refused")
