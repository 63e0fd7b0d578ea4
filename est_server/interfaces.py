"""The extension points that a request meets, and the values that authorizers and authorities see.

The values of the device list are in ``device_records``, those of the ledger in
``ledger_records``, and what certificates look like in ``profiles``. What an operator may do to the
ledger is in ``ledger_administration``.

The road of a request, the same for both transports and every operation::

    octets -> secure channel -> EstRequest + PeerCredentials -> Authorizer -> IssuanceGrant
           -> EnrollmentLedger -> CertificateAuthority -> EstResponse -> octets

All extension points are :class:`typing.Protocol` classes: an object fits if it has the methods,
and a plain ``async def`` is a valid :class:`Authorizer`. Every one of them may raise
:class:`~est_protocol.errors.RequestRefused` to refuse with a reason; any other exception is
answered with 500 / 5.00 and logged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from cryptography import x509

from est_protocol.credentials import PeerCredentials
from est_protocol.csr_wishes import CsrWishes
from est_protocol.errors import RequestRefused
from est_protocol.keys import PublicKey
from est_protocol.messages import EstRequest, EstResponse, Pending, Transport
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_server.approvals import ApprovalTerms
from est_server.device_records import (
    AddOutcome,
    Device,
    ImportedList,
    ListDescription,
    ListedDevice,
    ListImport,
    ListRow,
    Registration,
)
from est_server.key_protection import KeyGenerationPolicy
from est_server.ledger_records import (
    EnrollmentIntent,
    IssuanceTicket,
    IssuedCertificate,
    Refusal,
)
from est_server.legacy_forms import NO_LEGACY_FORMS, LegacyForms
from est_server.life_cycle import DeviceChange, DeviceOrder, HistoryEntry
from est_server.profiles import CertificateProfile
from est_server.quotas import Quota
from est_server.registration_authorities import RegistrationAuthority, RegistrationAuthorityPolicy
from est_server.user_credentials import CredentialsVerifier, HttpAuthentication, VerifiedUser

# ---------------------------------------------------------------------------------------------
# Authorization
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EnrollmentRequest:
    """A request for a certificate, as an authorizer sees it.

    Verified before an authorizer is called: the CSR decodes, its signature proves possession of
    its key, POP linking is correct where the CSR carries it and present where the label requires
    it, and for ``SIMPLEREENROLL`` the client authenticated with an operational certificate of
    this server whose subject and subjectAltName the CSR repeats. Nothing else in the CSR is
    verified: it is a wish. What a registration authority vouches for instead is in
    :class:`ClientIdentity`.

    For ``SERVERKEYGEN`` the key and the signature of the CSR mean nothing (RFC 7030 section
    4.4.1); the client authenticated with a certificate, as it has to.

    :param operation: ``SIMPLEENROLL``, ``SIMPLEREENROLL`` or ``SERVERKEYGEN``.
    :param transport: how the request came.
    :param label: the label, or ``None`` for the default.
    :param csr: the certification request.
    :param pop_linked: whether the CSR is linked to the very channel that it came over, so that
        the holder of the CSR's key is the client at the other end (RFC 7030 section 3.5).
    :param profile: the label's profile.
    :param received_at: when the request arrived.
    :param is_preview: an operator wants to know what would be decided. Nothing will be issued, so
        change nothing that another request could notice.
    """

    operation: Operation
    transport: Transport
    label: str | None
    csr: CertificationRequest
    pop_linked: bool
    profile: CertificateProfile
    received_at: datetime
    is_preview: bool = False

    @property
    def key_sha256(self) -> bytes | None:
        """SHA-256 (32 octets) of the key to certify; ``None`` if the server is to make it."""
        return None if self.operation is Operation.SERVERKEYGEN else self.csr.key_sha256


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Who is at the other end of the channel, as far as it was proved.

    :param credentials: what the channel learned; see
        :class:`~est_protocol.credentials.PeerCredentials`.
    :param proven_keys: SHA-256 hashes of the public keys whose private halves the client proved
        to hold on this very channel: the key of its TLS certificate, whatever that certificate
        is worth, and the CSR's key if the CSR is linked to the channel.
    :param issued: the ledger's record of the client's certificate if this server issued it and
        it verified, else ``None``. Never a revoked one, and a superseded one only in
        ``SIMPLEREENROLL`` and ``SERVERKEYGEN``, where the ledger has the last word: a retry is
        answered, anything else is refused.
    :param http_user: the user whose HTTP credentials the client has, where the label asks for
        them. It proves nothing about any key.
    :param otp_user: the user whose secret is the CSR's otpChallenge; likewise.
    :param registration_authority: the client is a registration authority of the label and asks on
        behalf of a device. ``credentials`` are its own then and say nothing of the device, which
        is known by the CSR's key: the CSR's signature proves it, and that the device is the one
        that asks is the registration authority's word. ``issued`` is the device's certificate
        that is to be renewed, or ``None``.
    """

    credentials: PeerCredentials
    proven_keys: frozenset[bytes] = frozenset()
    issued: IssuedCertificate | None = None
    http_user: VerifiedUser | None = None
    otp_user: VerifiedUser | None = None
    registration_authority: RegistrationAuthority | None = None

    @property
    def certificate(self) -> x509.Certificate | None:
        """The client's own certificate, or ``None``; see ``credentials`` for its worth."""
        return self.credentials.certificate


@dataclass(frozen=True, slots=True)
class IssuanceGrant:
    """What may be issued. Nothing that is not in the grant gets into the certificate.

    :param device: the UDID of the device that the certificate is for; a first enrollment is
        claimed in its name, once per label.
    :param subject: the subject of the certificate.
    :param subject_alt_names: its subjectAltName entries; empty leaves the extension out.
    :param validity: shortens the profile's validity; ``None`` keeps it.
    :param key_sha256: if set, only a CSR for the key with this SPKI hash may be answered.
    :param reasons: why it was granted, in words for the audit trail.
    :param secret: number of the one-time secret that a first enrollment uses up one use of.
    :param quotas: what a first enrollment counts against.
    :param approval: a first enrollment waits for an operator's approval, on these terms.
    :param registration: the device is registered with its first enrollment; its UDID is
        ``device``.
    """

    device: str
    subject: x509.Name
    subject_alt_names: tuple[x509.GeneralName, ...] = ()
    validity: timedelta | None = None
    key_sha256: bytes | None = None
    reasons: tuple[str, ...] = ()
    secret: int | None = None
    quotas: tuple[Quota, ...] = ()
    approval: ApprovalTerms | None = None
    registration: Registration | None = None


class Authorizer(Protocol):
    """Decides what may be issued to a client; a plain ``async def`` will do.

    Returns an :class:`IssuanceGrant`, or :class:`~est_protocol.messages.Pending` for "not yet";
    raises :class:`~est_protocol.errors.RequestRefused` for "no". Any other exception, and taking
    longer than the service's ``authorizer_timeout``, refuses the request too.

    What has been verified before the call is in :class:`EnrollmentRequest` and
    :class:`ClientIdentity`.
    """

    async def __call__(
        self, request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant | Pending: ...


# ---------------------------------------------------------------------------------------------
# The device registry
# ---------------------------------------------------------------------------------------------


class DeviceRegistry(Protocol):
    """The store of listed devices and their life-cycle state.

    Every method raises :class:`~est_protocol.errors.RequestRefused` with
    ``STORE_UNAVAILABLE`` while the store cannot be reached.
    """

    async def find_by_key(self, spki_sha256: bytes) -> Device | None:
        """The device whose listed key has this hash (32 octets)."""
        ...

    async def find_by_udid(self, udid: str) -> Device | None:
        """The device with this identifier."""
        ...

    async def add_devices(self, devices: list[ListedDevice], *, now: datetime) -> list[AddOutcome]:
        """Add a handful of devices, all in one transaction; one outcome per device, in order.

        A conflict changes nothing, and a device that is there already is ``UNCHANGED``.
        """
        ...

    async def import_devices(
        self, rows: Iterable[ListRow], describe: Callable[[], ListDescription], *, now: datetime
    ) -> ListImport:
        """Add a whole list: all rows that do not conflict, or none if anything fails.

        Memory does not grow with the list, and the store stays open to others while the rows
        are read. ``rows`` is consumed in another thread; an exception that it or ``describe``
        raises is raised here, and nothing is added.

        The list is recorded with its devices. One that is recorded already keeps its record, to
        which the devices that were missing are added.

        :param describe: the list as a whole; called after the last row.
        :raises ConfigurationError: another list has its id, or it has another id.
        """
        ...

    async def lists(self) -> list[ImportedList]:
        """The lists that were imported, the first first."""
        ...

    async def change_device(self, order: DeviceOrder, *, now: datetime) -> DeviceChange:
        """Take a step in the life of a device: its state, its owner, its certificates, its
        claims and the record of who did it and why, all at once or not at all.

        Except for ``SUSPEND`` and ``RESUME``, attempts that are under way come to nothing.

        :raises KeyError: no such device.
        :raises StepNotPossible: the device is not in a state for it.
        """
        ...

    async def device_history(self, udid: str) -> list[HistoryEntry]:
        """What became of a device, the oldest first."""
        ...

    def devices(self, *, after: str = "") -> AsyncIterator[Device]:
        """All devices in order of UDID, those after ``after`` only."""
        ...


# ---------------------------------------------------------------------------------------------
# The ledger
# ---------------------------------------------------------------------------------------------


class EnrollmentLedger(Protocol):
    """What was asked, granted, issued and refused; claims are taken here, atomically.

    Durability: when ``begin``, ``complete`` or ``abandon`` returns, its effect survives a power
    loss. Every method raises :class:`~est_protocol.errors.RequestRefused` with
    ``STORE_UNAVAILABLE`` while the store cannot be reached.
    """

    async def begin(self, intent: EnrollmentIntent) -> IssuanceTicket | IssuedCertificate | Pending:
        """Record the intent and take what it needs, in one transaction. In this order:

        1. A device that the registry lists must be in a state that may enroll, and the device
           that lists a key of the client's; else refused with ``DEVICE_NOT_ACTIVE``. The client's
           certificate must not be revoked: ``CERTIFICATE_REVOKED``; neither its keys nor the
           key to certify compromised: ``KEY_COMPROMISED``. The label must be for this device and
           for its owner: ``NOT_AUTHORIZED``.
        2. A certificate was already issued for the same ``request_key``, is still active and not
           expired: return it. Nothing is recorded; the retry costs no second certificate.
           Not so for a first enrollment whose claim was given back meanwhile: it is made anew,
           and what it gets supersedes that certificate. Nor for ``SERVERKEYGEN``, whose private
           key nobody has kept.
        3. Earlier attempts for (device, label) that are dead are abandoned, which gives their
           claims back. An attempt is dead once its lease has run out, or at once if this very
           process began it and its ticket was never handed to a caller, or if an earlier
           process with this one's owner id began it.
        4. The same ``request_key`` is still being worked on: refused with ``TRY_LATER``.
        5. ``SIMPLEENROLL``: the claim of (device, label) must be free; else refused with
           ``ALREADY_CLAIMED``, also when the certificate that the claim was used for has
           expired, was superseded or revoked.
           ``SIMPLEREENROLL``: the predecessor must be the active certificate of (device,
           label); else refused with ``CERTIFICATE_UNKNOWN``, ``IDENTITY_MISMATCH``,
           ``CERTIFICATE_SUPERSEDED`` or ``CERTIFICATE_REVOKED``.
           ``SERVERKEYGEN``: the same, by whether it has a predecessor; or the active
           certificate of (device, label) answered the same ``request_key``, and the first that
           did was issued at ``lost_since`` or later. Then that answer was lost, and what this
           request gets supersedes it: still one claim, one active certificate.
        6. Another issuance for (device, label) is being worked on: refused with ``TRY_LATER``.
        7. Where the claim is taken, ``secret`` must be there, not expired, and have a use left,
           which is taken with it; else refused with ``SECRET_USED_UP``. Every one of ``quotas``
           must have one left, which is taken with it too; else refused with ``QUOTA_EXCEEDED``.
        8. Where the claim is taken and ``approval`` is needed, an operator must have approved the
           same request, and the approval is used up with it; else refused with
           ``APPROVAL_DENIED``. Where nobody has decided the answer is
           :class:`~est_protocol.messages.Pending`, the request is in the queue, and nothing else
           is recorded or taken.
        9. Where the claim is taken and there is a ``registration``, the device is added to the
           registry, and what that counts against quotas is taken for good. Refused with
           ``IDENTITY_MISMATCH`` if its UDID is that of a device with another key, or its key that
           of a device with another UDID. If it begins in quarantine, and the label does not serve
           such devices, it is registered, but refused all the same.

        A device in quarantine is refused with ``DEVICE_QUARANTINED`` unless
        ``serve_quarantined``.
        """
        ...

    async def issue(
        self, intent: EnrollmentIntent, certify: Callable[[], x509.Certificate], *, now: datetime
    ) -> IssuedCertificate | Pending:
        """All of ``begin`` and ``complete`` in one transaction, for a :class:`PromptAuthority`.

        As good as two: until the one is durable nobody can have got anything, and after a power
        loss before that nothing has happened.

        :param certify: makes the certificate. Called at most once, as soon as there is the right
            to one; not at all where the same request has got one already. If it raises, that is
            recorded as by ``abandon``, and raised here.
        :param now: when.
        """
        ...

    async def preview(self, intent: EnrollmentIntent) -> IssuedCertificate | Pending | None:
        """What ``begin`` would answer at this moment, with the same refusals; nothing is taken
        and nothing recorded.

        :return: the certificate that would be repeated; ``None``: one would be issued.
        """
        ...

    async def complete(
        self, ticket: IssuanceTicket, certificate: x509.Certificate, *, now: datetime
    ) -> IssuedCertificate:
        """Record the certificate, supersede its predecessor, mark the device enrolled.

        Only a certificate that this returns may be sent. A repeat with the same certificate
        returns the same record. Refused, with nothing recorded:

        - ``TRY_LATER``: the attempt was abandoned, or taken over after its lease ran out;
        - ``DEVICE_NOT_ACTIVE``, ``CERTIFICATE_SUPERSEDED``, ``CERTIFICATE_REVOKED``,
          ``KEY_COMPROMISED``, ``NOT_AUTHORIZED``: what was true at ``begin`` is no longer;
        - ``INTERNAL_ERROR``: the certificate is for another key than the intent's.
        """
        ...

    async def abandon(self, ticket: IssuanceTicket, *, reason: str, now: datetime) -> None:
        """Record that nothing was issued, and give back what the intent took: claim, secret,
        quotas, approval.

        Without effect on a ticket that was completed, abandoned or taken over.
        """
        ...

    async def record_refusal(self, refusal: Refusal) -> None:
        """Record a refused request."""
        ...

    async def find_certificate(self, sha256: bytes) -> IssuedCertificate | None:
        """The record of the certificate with this SHA-256 over its DER octets."""
        ...

    async def find_renewable(
        self, spki_sha256: bytes, label: str | None, *, lost_since: datetime
    ) -> IssuedCertificate | None:
        """The certificate that a request for this key renews, where no certificate was presented.

        The one active certificate of ``label`` for the key; or the one that it renewed, for the
        same key, at ``lost_since`` or later: the answer may have been lost, and a repeated
        request is to find what the first one got. ``None`` also if there are several.
        """
        ...

    async def check_standing(self, *, certificate: bytes | None, keys: Collection[bytes]) -> None:
        """Refuse a client that an operator has shut out, whatever it asks for.

        Asked before every answer to a client that shows itself. ``begin`` and ``complete`` look
        again, so that what was ordered in between counts.

        :param certificate: SHA-256 of the certificate that the client presented, whoever issued
            it.
        :param keys: SPKI hashes of the keys that the client proved itself by.
        :raises RequestRefused: ``CERTIFICATE_REVOKED``; ``DEVICE_NOT_ACTIVE``: the device that
            the certificate was issued to, or that lists a key; ``KEY_COMPROMISED``.
        """
        ...


# ---------------------------------------------------------------------------------------------
# Certificate authority and signer
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IssuanceOrder:
    """An order to a certificate authority: what goes into the certificate, and whose order it is.

    Verified before: the requester proved possession of ``public_key``, an authorizer granted the
    names, and the ledger holds the intent, or has found nothing against it.

    :param order_id: 32 octets that are equal for two orders exactly if the second repeats the
        first, which is for the same key, because the answer was
        :class:`~est_protocol.messages.Pending` or got lost. Once an order is answered with a
        certificate for good, an equal one is a new one.
    :param public_key: the key to certify.
    :param subject: the subject.
    :param subject_alt_names: subjectAltName entries; empty leaves the extension out.
    :param validity: lifetime from ``now``; the CA shortens it to its own certificate's end.
    :param profile: key usages and back-dating.
    :param label: the label, ``None`` for the default.
    :param pop_linked: whether possession was proved on the requester's own channel.
    :param now: the time of issue.
    """

    order_id: bytes
    public_key: PublicKey
    subject: x509.Name
    subject_alt_names: tuple[x509.GeneralName, ...]
    validity: timedelta
    profile: CertificateProfile
    label: str | None
    pop_linked: bool
    now: datetime


class CertificateAuthority(Protocol):
    """Issues certificates; knows nothing of devices or requests."""

    async def ca_certificates(self, label: str | None) -> tuple[x509.Certificate, ...]:
        """The answer to /cacerts: the root, and every certificate between it and what is issued
        (RFC 7030 section 4.1.3)."""
        ...

    async def issue(self, order: IssuanceOrder) -> x509.Certificate | Pending:
        """Issue a certificate, or say that it takes longer.

        After ``Pending`` the same order comes again, known by its ``order_id``, once the client
        asks again; nothing is kept for it meanwhile but what the authority keeps itself. A key
        that the server generates is another one each time, and its order with it, so an
        authority that answers ``Pending`` never comes to an end with those.

        Cancelled, and the attempt given up, where it takes longer than the service's
        ``issuance_timeout``.
        """
        ...


@runtime_checkable
class PromptAuthority(CertificateAuthority, Protocol):
    """An authority that has nobody to wait for, which spares the ledger one of two commits."""

    def can_issue_now(self) -> bool:
        """Whether :meth:`issue_now` may be called: within a millisecond it issues or fails, and
        leaves no trace of a certificate that is thrown away."""
        ...

    def issue_now(self, order: IssuanceOrder) -> x509.Certificate:
        """The same as :meth:`issue`, while the ledger's transaction is open. It may be called in
        another thread than that of the event loop, one order at a time."""
        ...


class Signer(Protocol):
    """A private key that signs: in a file, an HSM or a service."""

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        ...

    def sign_certificate(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Sign a certificate whose other fields are set."""
        ...

    def sign_crl(
        self, builder: x509.CertificateRevocationListBuilder
    ) -> x509.CertificateRevocationList:
        """Sign a CRL whose other fields are set. Called in a thread."""
        ...


class Clock(Protocol):
    """The source of time."""

    def now(self) -> datetime:
        """The current time, timezone-aware, in UTC."""
        ...


# ---------------------------------------------------------------------------------------------
# What the transports call
# ---------------------------------------------------------------------------------------------


class Responder(Protocol):
    """Answers requests, whichever transport they came by; the service is one."""

    async def respond(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        """Answer one request, or raise :class:`~est_protocol.errors.RequestRefused`."""
        ...

    async def record_refusal(
        self,
        refused: RequestRefused,
        *,
        operation: Operation | None,
        label: str | None,
        transport: Transport,
        peer: PeerCredentials,
    ) -> None:
        """Note a refusal that a transport found before the request could be formed."""
        ...


class HttpResponder(Responder, Protocol):
    """What HTTPS has to know beside."""

    def legacy_forms(self, label: str | None) -> LegacyForms:
        """What a label does otherwise than the RFCs; nothing, for one that is not there."""
        ...


# ---------------------------------------------------------------------------------------------
# Labels
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """What one label stands for: a CA, a profile, and who may have its certificates.

    :param authority: issues for this label.
    :param authorizer: decides for this label.
    :param profile: what its certificates look like.
    :param require_pop_linking: refuse CSRs that are not linked to the channel
        (RFC 7030 section 3.5). Without a client certificate linking is required in any case,
        unless the client knows a secret that the label accepts.
    :param csr_wishes: what CSRs should have in them, beside the linking that is required; clients
        learn of it at /csrattrs (RFC 8951 section 4). It decides about CSRs, not certificates.
    :param enforce_csr_wishes: refuse CSRs that lack something of it.
    :param http: HTTP authentication; ``None``: never asked for, and ignored.
    :param one_time_secrets: who knows the secrets in otpChallenges; ``None``: a CSR with one is
        refused.
    :param key_generation: how keys are generated for clients; ``None``: not at all.
    :param legacy: departures from the RFCs on HTTPS, for peers that need them.
    :param registration_authorities: which clients may enroll on behalf of devices; ``None``: none.
    :param serve_quarantined: whether devices in quarantine may have its certificates.
    :param owners: whose devices may have its certificates; ``None`` for everybody's. The device
        list says who the owner of a device is, so unlisted devices are out of it.
    """

    authority: CertificateAuthority
    authorizer: Authorizer
    profile: CertificateProfile = field(default_factory=CertificateProfile)
    require_pop_linking: bool = False
    csr_wishes: CsrWishes = field(default_factory=CsrWishes)
    enforce_csr_wishes: bool = True
    http: HttpAuthentication | None = None
    one_time_secrets: CredentialsVerifier | None = None
    key_generation: KeyGenerationPolicy | None = None
    legacy: LegacyForms = NO_LEGACY_FORMS
    registration_authorities: RegistrationAuthorityPolicy | None = None
    owners: frozenset[str] | None = None
    serve_quarantined: bool = False
