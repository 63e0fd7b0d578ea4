"""The enrollment service: answers every EST operation, the same for both transports.

What is decided about a request for a certificate is in ``decision``, what becomes of it then in
``issuance``. Here requests come in, and answers and refusals go out and into the audit trail.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from cryptography import x509

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    Pending,
    Transport,
)
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_server import audit
from est_server.alarms import Alarm, AlarmBell, AlarmingRefusal, AlarmKind
from est_server.csr_attributes import AskedAttributes
from est_server.decision import Case, Decider
from est_server.identification import ClientIdentification
from est_server.interfaces import Clock, DeviceRegistry, EnrollmentLedger, LabelPolicy
from est_server.issuance import Issuance, Outcome
from est_server.ledger_records import IssuedCertificate
from est_server.legacy_forms import NO_LEGACY_FORMS, LegacyForms, issuers_of
from est_server.preview import Preview
from est_server.registration_authorities import RegistrationAuthority, claims_to_be_authority
from est_server.rules import check_labels
from est_server.users import UserChecks, UserLimits

_log = logging.getLogger("est_server.service")


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(UTC)


class EnrollmentService:
    """Answers EST requests.

    :param labels: what each label stands for; the key ``None`` is the default, which has to be
        there (RFC 7030 section 3.2.2).
    :param ledger: where everything that is issued is recorded before it leaves.
    :param registry: the device registry; tells known clients from unknown ones where an
        operation asks for no more than that (/crts over CoAPS, RFC 9148 section 4), and listed
        keys where HTTP credentials are not enough.
    :param listed_only: whether, for the former, a bare key has to be listed.
    :param clock: the source of time.
    :param authorizer_timeout: seconds after which an authorizer that has not decided is taken to
        have refused; the same for a verifier of credentials.
    :param issuance_timeout: seconds that making a key, where one is asked for, and having it
        certified may take; less than the lease that the ledger gives an attempt. The same for an
        authority's own certificates.
    :param user_limits: bounds of HTTP authentication and otpChallenges.
    :param key_generation_workers: how many slow keys are generated at once for clients.
    :param alarms: sounds signs of cloning; without it they are in the log only.
    :raises ConfigurationError: no default label, a label that cannot be told from an operation,
        or a label without an authorizer.
    """

    def __init__(
        self,
        labels: Mapping[str | None, LabelPolicy],
        ledger: EnrollmentLedger,
        *,
        registry: DeviceRegistry | None = None,
        listed_only: bool = True,
        clock: Clock | None = None,
        authorizer_timeout: float = 10.0,
        issuance_timeout: float = 20.0,
        user_limits: UserLimits | None = None,
        key_generation_workers: int = 1,
        alarms: AlarmBell | None = None,
    ) -> None:
        check_labels(labels)
        self._labels = dict(labels)
        self._asked = {label: AskedAttributes.of(policy) for label, policy in labels.items()}
        self._operations = {label: self._operations_of(label) for label in labels}
        clock = clock or SystemClock()
        self._ledger = ledger
        self._clients = ClientIdentification(ledger, registry, listed_only=listed_only)
        self._users = UserChecks(clock, user_limits or UserLimits())
        self._decider = Decider(self._clients, self._users, clock, timeout=authorizer_timeout)
        self._issuance = Issuance(
            ledger,
            clock,
            timeout=issuance_timeout,
            key_generation_workers=key_generation_workers,
        )
        self._trail = audit.AuditTrail(ledger, clock)
        self._alarms = alarms or AlarmBell()
        self._clock = clock
        self._answering: set[asyncio.Task[EstResponse]] = set()

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The labels that are served, ``None`` for the default among them."""
        return tuple(self._labels)

    def operations(self, label: str | None) -> tuple[Operation, ...]:
        """The operations that have something to offer under ``label``, one of :attr:`labels`.

        /csrattrs is answered in any case, but where the label asks for nothing there is nothing
        to discover (RFC 9148 section 4.1).
        """
        return self._operations[label]

    def _operations_of(self, label: str | None) -> tuple[Operation, ...]:
        operations = [Operation.CACERTS, Operation.SIMPLEENROLL, Operation.SIMPLEREENROLL]
        if self._asked[label].der is not None:
            operations.append(Operation.CSRATTRS)
        if self._labels[label].key_generation is not None:
            operations.append(Operation.SERVERKEYGEN)
        return tuple(operations)

    def legacy_forms(self, label: str | None) -> LegacyForms:
        """See :class:`~est_server.interfaces.HttpResponder`."""
        policy = self._labels.get(label)
        return NO_LEGACY_FORMS if policy is None else policy.legacy

    async def respond(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        """Answer one request.

        A client that vanishes, which may cancel this, gets its request decided, recorded and
        audited all the same: what was issued is there for its retry, and nobody probes unseen.

        :raises RequestRefused: the answer is no; nothing else is ever raised.
        """
        task = asyncio.create_task(self._answer(request, peer))
        self._answering.add(task)
        task.add_done_callback(self._answered)
        return await asyncio.shield(task)

    def _answered(self, task: asyncio.Task[EstResponse]) -> None:
        self._answering.discard(task)
        if not task.cancelled():
            # A refusal is in the audit trail, whether or not somebody still waits for it.
            task.exception()

    async def _answer(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        try:
            return await self._dispatch(request, peer)
        except Exception as error:
            refused = self._refusal(error, request)
            await self._trail.refused(refused, request, peer)
            self._alarm(refused, request, peer)
            if refused is error:
                raise
            raise refused from error

    def _refusal(self, error: Exception, request: EstRequest) -> RequestRefused:
        """What the client is told of ``error``."""
        if not isinstance(error, RequestRefused):
            _log.exception("unexpected error while answering %s", request.operation.value)
            return RequestRefused(
                RefusalReason.INTERNAL_ERROR, "internal error", detail=repr(error)
            )
        if request.label in self._labels:
            self._users.ask(error, request, self._labels[request.label])
        return error

    async def preview(
        self,
        request: EstRequest,
        peer: PeerCredentials,
        *,
        stand_in: CertificationRequest | None = None,
    ) -> Preview:
        """What would become of a request for a certificate; nothing does, and nothing is recorded.

        The same code decides as in :meth:`respond`, as far as the authority, which is not asked.

        :param stand_in: a CSR in place of the one in the body, where nobody has signed one: its
            key is taken for what it says, and it lacks nothing that /csrattrs asks for.
        """
        try:
            case = await self._case(request, peer, self._policy(request))
            asked = case.asked if stand_in is None else case.asked.unenforced()
            case = replace(case, asked=asked, is_preview=True, stand_in=stand_in)
            decision = await self._decider.decide(case)
            if isinstance(decision, Pending):
                return Preview(pending=decision)
            try:
                begun = await self._ledger.preview(decision.intent)
                if isinstance(begun, Pending):
                    return Preview(decision, pending=begun)
                return Preview(decision, repeats=begun)
            except RequestRefused as refused:
                refused.device = refused.device or decision.grant.device
                return Preview(decision, refused=refused)
        except Exception as error:
            return Preview(refused=self._refusal(error, request))

    def _alarm(self, refused: RequestRefused, request: EstRequest, peer: PeerCredentials) -> None:
        if isinstance(refused, AlarmingRefusal):
            detail = "; ".join(filter(None, (refused.sentence, refused.detail)))
            self._ring(refused.alarm, refused.device, detail, request, peer)

    def _look_at_repeat(
        self, issued: IssuedCertificate, request: EstRequest, peer: PeerCredentials
    ) -> None:
        """A device that has lost an answer asks again soon; whoever comes late may be its copy.

        It gets no more than a certificate for a key that it has proved to hold.
        """
        if self._clock.now() - issued.issued_at > self._alarms.limits.late_repeat:
            detail = f"certificate {issued.certificate.serial_number:x} was asked for again"
            self._ring(AlarmKind.LATE_REPEAT, issued.device, detail, request, peer)

    def _ring(
        self,
        kind: AlarmKind,
        device: str | None,
        detail: str,
        request: EstRequest,
        peer: PeerCredentials,
    ) -> None:
        now = self._clock.now()
        self._alarms.ring(Alarm(kind, device, request.label, peer.address, detail, now))

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
        self._trail.refused_by_transport(refused, operation, label, transport, peer)

    async def close(self) -> None:
        """Wait until every request is decided, and what is issued is in the ledger."""
        if self._answering:
            await asyncio.wait(self._answering)
        self._issuance.close()
        await self._alarms.close()

    async def _dispatch(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        policy = self._policy(request)
        if request.operation is Operation.CACERTS:
            return await self._cacerts(request, peer, policy)
        if request.operation is Operation.CSRATTRS:
            return await self._csrattrs(request, peer)
        return await self._enroll(request, peer, policy)

    def _policy(self, request: EstRequest) -> LabelPolicy:
        """The policy of the label that is asked, if it has the operation."""
        policy = self._labels.get(request.label)
        if policy is None:
            raise RequestRefused(
                RefusalReason.UNKNOWN_LABEL, f"there is no label {request.label!r} here"
            )
        # /csrattrs has an answer even where it is not worth discovering.
        if request.operation not in (*self._operations[request.label], Operation.CSRATTRS):
            raise RequestRefused(
                RefusalReason.UNKNOWN_OPERATION, f"{request.operation.value} is not served here"
            )
        return policy

    async def _cacerts(
        self, request: EstRequest, peer: PeerCredentials, policy: LabelPolicy
    ) -> CertificatesResponse:
        if request.transport is Transport.COAPS:
            await self._clients.require_known(peer)
        answer = await self._issuance.ca_certificates(request.label, policy.authority)
        self._trail.answered("ca-certificates", request, peer)
        return answer

    async def _csrattrs(self, request: EstRequest, peer: PeerCredentials) -> CsrAttributesResponse:
        """Anybody may ask, RFC 7030 section 4.5; on CoAPS any known client, RFC 9148 section 4.

        Anybody but those who show that they have been shut out.
        """
        if request.transport is Transport.COAPS:
            await self._clients.require_known(peer)
        else:
            await self._clients.require_standing(peer)
        self._trail.answered("csr-attributes", request, peer)
        return CsrAttributesResponse(self._asked[request.label].der)

    async def _enroll(
        self, request: EstRequest, peer: PeerCredentials, policy: LabelPolicy
    ) -> EstResponse:
        """The operations that end in a certificate: simpleenroll, simplereenroll, serverkeygen."""
        case = await self._case(request, peer, policy)
        try:
            outcome = await self._decide_and_issue(case)
        except RequestRefused as refused:
            refused.registration_authority = case.authority.name if case.authority else None
            raise
        self._trail.decided(outcome.word, request, peer, outcome.issued, case.authority)
        if outcome.word == "replayed" and outcome.issued is not None:
            self._look_at_repeat(outcome.issued, request, peer)
        return outcome.answer

    async def _case(self, request: EstRequest, peer: PeerCredentials, policy: LabelPolicy) -> Case:
        await self._clients.require_standing(peer)
        authority = await self._registration_authority(request, peer, policy)
        return Case(request, peer, policy, self._asked[request.label], authority)

    async def _registration_authority(
        self, request: EstRequest, peer: PeerCredentials, policy: LabelPolicy
    ) -> RegistrationAuthority | None:
        """The registration authority that the client is for the label."""
        authorities = policy.registration_authorities
        if authorities is None or not claims_to_be_authority(peer):
            return None
        answer = await self._issuance.ca_certificates(request.label, policy.authority)
        return await self._clients.find_registration_authority(
            peer, authorities, answer.certificates
        )

    async def _decide_and_issue(self, case: Case) -> Outcome:
        decision = await self._decider.decide(case)
        if isinstance(decision, Pending):
            return Outcome("pending", None, decision)
        # Asked for before anything is made, since it may not come.
        candidates = await self._issuer_candidates(case)
        outcome = await self._issuance.issue(decision)
        if not candidates or not isinstance(outcome.answer, CertificatesResponse):
            return outcome
        (leaf,) = outcome.answer.certificates
        chain = (leaf, *issuers_of(leaf, candidates))
        return outcome._replace(answer=CertificatesResponse(chain))

    async def _issuer_candidates(self, case: Case) -> tuple[x509.Certificate, ...]:
        """Where the issuers of a certificate are found that is to be answered with them."""
        if not case.policy.legacy.issuer_chain or case.request.transport is not Transport.HTTPS:
            return ()
        label, authority = case.request.label, case.policy.authority
        return (await self._issuance.ca_certificates(label, authority)).certificates
