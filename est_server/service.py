"""The enrollment service: one coroutine per EST operation, the same for both transports.

Everything that is decided about a request is decided here or in the extension points that this
module calls, in this order: does the CSR prove possession, is it linked to the channel, who is
the client, may it have what it asks for, was it asked before, and only then: issue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple
from weakref import WeakValueDictionary

from cryptography.hazmat.primitives import hashes

from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.keys import PublicKey, spki_sha256
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    Pending,
    Transport,
)
from est_protocol.operations import Operation
from est_server import audit
from est_server.csr_attributes import AskedAttributes
from est_server.interfaces import (
    ClientIdentity,
    Clock,
    DeviceRegistry,
    EnrollmentLedger,
    EnrollmentRequest,
    IssuanceGrant,
    IssuanceOrder,
    LabelPolicy,
)
from est_server.key_generation import (
    DeliveredKey,
    Delivery,
    KeyFactory,
    plan_delivery,
    read_wish,
)
from est_server.key_protection import KeyGenerationPolicy
from est_server.ledger_records import (
    CertificateState,
    EnrollmentIntent,
    IssuanceTicket,
    IssuedCertificate,
)
from est_server.rules import (
    Exchange,
    authentication_required,
    check_grant,
    check_labels,
    decode_exchange,
    decode_key_generation,
    intent_of,
    refuse_superseded,
    require_authentication,
    require_same_names,
)
from est_server.users import UserChecks, UserLimits

_log = logging.getLogger("est_server.service")


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(UTC)


class _Outcome(NamedTuple):
    """What became of a request, and its answer.

    :param word: what the audit trail calls it.
    """

    word: str
    issued: IssuedCertificate | None
    answer: EstResponse

    @classmethod
    def of(cls, word: str, result: IssuedCertificate | Pending) -> _Outcome:
        if isinstance(result, Pending):
            return cls("pending", None, result)
        return cls(word, result, CertificatesResponse((result.certificate,)))


class EnrollmentService:
    """Answers EST requests.

    :param labels: what each label stands for; the key ``None`` is the default, which has to be
        there (RFC 7030 section 3.2.2).
    :param ledger: where everything that is issued is recorded before it leaves.
    :param registry: the device registry; tells known clients from unknown ones where an
        operation asks for no more than that (/crts over CoAPS, RFC 9148 section 4).
    :param clock: the source of time.
    :param authorizer_timeout: seconds after which an authorizer that has not decided is taken to
        have refused; the same for a verifier of credentials.
    :param user_limits: bounds of HTTP authentication and otpChallenges.
    :param key_generation_workers: how many slow keys are generated at once for clients.
    :raises ConfigurationError: no default label, a label that cannot be told from an operation,
        or a label without an authorizer.
    """

    def __init__(
        self,
        labels: Mapping[str | None, LabelPolicy],
        ledger: EnrollmentLedger,
        *,
        registry: DeviceRegistry | None = None,
        clock: Clock | None = None,
        authorizer_timeout: float = 10.0,
        user_limits: UserLimits | None = None,
        key_generation_workers: int = 1,
    ) -> None:
        check_labels(labels)
        self._labels = dict(labels)
        self._asked = {label: AskedAttributes.of(policy) for label, policy in labels.items()}
        self._ledger = ledger
        self._registry = registry
        self._clock = clock or SystemClock()
        self._authorizer_timeout = authorizer_timeout
        self._users = UserChecks(self._clock, user_limits or UserLimits())
        self._trail = audit.AuditTrail(ledger, self._clock)
        # Two copies of one request must not both get as far as the authority. Across processes
        # the ledger sees to that; within one process the second waits for the first.
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._answering: set[asyncio.Task[EstResponse]] = set()
        self._keys = KeyFactory(key_generation_workers)

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The labels that are served, ``None`` for the default among them."""
        return tuple(self._labels)

    def operations(self, label: str | None) -> tuple[Operation, ...]:
        """The operations that have something to offer under ``label``, one of :attr:`labels`.

        /csrattrs is answered in any case, but where the label asks for nothing there is nothing
        to discover (RFC 9148 section 4.1).
        """
        operations = [Operation.CACERTS, Operation.SIMPLEENROLL, Operation.SIMPLEREENROLL]
        if self._asked[label].der is not None:
            operations.append(Operation.CSRATTRS)
        if self._labels[label].key_generation is not None:
            operations.append(Operation.SERVERKEYGEN)
        return tuple(operations)

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
        except RequestRefused as refused:
            if request.label in self._labels:
                self._users.ask(refused, request, self._labels[request.label])
            await self._trail.refused(refused, request, peer)
            raise
        except Exception as error:
            _log.exception("unexpected error while answering %s", request.operation.value)
            bug = RequestRefused(RefusalReason.INTERNAL_ERROR, "internal error", detail=repr(error))
            await self._trail.refused(bug, request, peer)
            raise bug from error

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
        self._keys.close()

    async def _dispatch(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        policy = self._labels.get(request.label)
        if policy is None:
            raise RequestRefused(
                RefusalReason.UNKNOWN_LABEL, f"there is no label {request.label!r} here"
            )
        if request.operation is Operation.CACERTS:
            return await self._cacerts(request, peer, policy)
        if request.operation is Operation.CSRATTRS:
            return await self._csrattrs(request, peer)
        if request.operation is Operation.SIMPLEENROLL:
            return await self._simpleenroll(await self._decode(request, peer, policy))
        if request.operation is Operation.SIMPLEREENROLL:
            return await self._simplereenroll(await self._decode(request, peer, policy))
        if request.operation is Operation.SERVERKEYGEN and policy.key_generation is not None:
            exchange = await self._decode(request, peer, policy)
            return await self._serverkeygen(exchange, policy.key_generation)
        raise RequestRefused(
            RefusalReason.UNKNOWN_OPERATION, f"{request.operation.value} is not served here"
        )

    async def _decode(
        self, request: EstRequest, peer: PeerCredentials, policy: LabelPolicy
    ) -> Exchange:
        """The request with all that can be found out about it and its client without a decision.

        HTTP credentials come first: a client may want to be asked before it sends a CSR.
        """
        async with self._in_time():
            http_user = await self._users.http_user(request, peer, policy)
            generates = request.operation is Operation.SERVERKEYGEN
            decode = decode_key_generation if generates else decode_exchange
            exchange = decode(request, peer, policy, self._clock.now())
            self._asked[request.label].require(exchange.csr, request.operation)
            otp_user = await self._users.otp_user(exchange.csr, request.label, peer, policy)
        exchange = replace(exchange, http_user=http_user, otp_user=otp_user)
        require_authentication(exchange)
        return exchange

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Bound what is asked of others."""
        try:
            async with asyncio.timeout(self._authorizer_timeout):
                yield
        except TimeoutError as error:
            raise RequestRefused(
                RefusalReason.AUTHORIZER_UNAVAILABLE,
                "the request could not be decided in time",
                detail=f"no decision within {self._authorizer_timeout} s",
                retry_after=30,
            ) from error

    # -- /cacerts and /csrattrs ------------------------------------------------------------------

    async def _cacerts(
        self, request: EstRequest, peer: PeerCredentials, policy: LabelPolicy
    ) -> CertificatesResponse:
        if request.transport is Transport.COAPS:
            await self._require_known_client(peer)
        certificates = await policy.authority.ca_certificates(request.label)
        self._trail.answered("ca-certificates", request, peer)
        return CertificatesResponse(certificates)

    async def _csrattrs(self, request: EstRequest, peer: PeerCredentials) -> CsrAttributesResponse:
        """Anybody may ask, RFC 7030 section 4.5; on CoAPS any known client, RFC 9148 section 4."""
        if request.transport is Transport.COAPS:
            await self._require_known_client(peer)
        self._trail.answered("csr-attributes", request, peer)
        return CsrAttributesResponse(self._asked[request.label].der)

    async def _require_known_client(self, peer: PeerCredentials) -> None:
        """RFC 9148 section 4: on CoAPS every function wants an authenticated client.

        Without a registry there is nobody to ask about a bare key; a proven key has to do.
        """
        if peer.key_sha256 is None:
            raise authentication_required(Transport.COAPS)
        if peer.is_verified:
            await self._find_issued(peer)
            return
        if self._registry is None:
            return
        device = await self._registry.find_by_key(peer.key_sha256)
        if device is None:
            raise RequestRefused(
                RefusalReason.CERTIFICATE_NOT_TRUSTED,
                "the client certificate is not trusted here and its key is not listed",
                detail=peer.why_unverified(),
            )
        if not device.state.may_enroll:
            raise RequestRefused(
                RefusalReason.DEVICE_NOT_ACTIVE, f"this device is {device.state.value}"
            )

    # -- /simpleenroll and /simplereenroll ------------------------------------------------------

    async def _simpleenroll(self, exchange: Exchange) -> EstResponse:
        issued = await self._find_issued(exchange.peer)
        refuse_superseded(issued)
        return await self._enroll(exchange, issued)

    async def _simplereenroll(self, exchange: Exchange) -> EstResponse:
        """RFC 7030 section 4.2.2: who renews is who holds the certificate being renewed.

        A superseded certificate gets as far as the ledger, which answers a retry after a lost
        answer with the very certificate that superseded it, and refuses everything else.
        """
        peer = exchange.peer
        if peer.certificate is None:
            raise authentication_required(exchange.request.transport)
        issued = await self._find_issued(peer)
        if issued is None:
            raise RequestRefused(
                RefusalReason.CERTIFICATE_UNKNOWN,
                "renewal needs the operational certificate that is to be renewed as client "
                "certificate; a first enrollment is simpleenroll",
                detail=f"presented: {peer.certificate.subject.rfc4514_string()}",
            )
        if issued.label != exchange.request.label:
            raise RequestRefused(
                RefusalReason.CERTIFICATE_UNKNOWN,
                "the client certificate was issued under another label",
                detail=f"issued under {issued.label!r}",
            )
        require_same_names(exchange.csr, issued.certificate)
        return await self._enroll(exchange, issued)

    # -- /serverkeygen -------------------------------------------------------------------------

    async def _serverkeygen(
        self, exchange: Exchange, generation: KeyGenerationPolicy
    ) -> EstResponse:
        """RFC 7030 section 4.4: the CSR is treated as that of an enrollment, but for its key.

        A client that presents its operational certificate of this label has it superseded, as by
        a renewal. A superseded one gets as far as the ledger, which knows a retry.
        """
        wish = read_wish(exchange.csr)
        issued = await self._find_issued(exchange.peer)
        if exchange.predecessor(issued) is None:
            refuse_superseded(issued)
        decision = await self._authorize(exchange, issued)
        if isinstance(decision, Pending):
            self._trail.answered("pending", exchange.request, exchange.peer)
            return decision
        check_grant(decision, exchange, issued)
        async with self._in_time():
            delivery = await plan_delivery(
                generation, exchange.csr, wish, exchange.peer, decision.device
            )
        intent = intent_of(exchange, decision, issued)
        outcome = await self._generate_once(exchange, decision, intent, delivery)
        return self._noted(exchange, outcome)

    async def _generate_once(
        self,
        exchange: Exchange,
        grant: IssuanceGrant,
        intent: EnrollmentIntent,
        delivery: Delivery,
    ) -> _Outcome:
        """Make a key and issue its certificate; the key is in the answer and nowhere else."""
        async with self._locks.setdefault(intent.request_key, asyncio.Lock()):
            try:
                ticket = await self._ledger.begin(intent)
                if isinstance(ticket, IssuedCertificate):
                    raise TypeError("the ledger repeats a certificate whose key is gone")
                delivered = await self._make_key(delivery, ticket)
                result = await self._issue(exchange, grant, ticket, delivered.public_key)
            except RequestRefused as refused:
                refused.device = refused.device or grant.device
                raise
        if isinstance(result, Pending):
            return _Outcome.of("pending", result)
        return _Outcome("generated", result, delivered.answer(result.certificate))

    async def _make_key(self, delivery: Delivery, ticket: IssuanceTicket) -> DeliveredKey:
        try:
            return delivery.pack(await self._keys.make(delivery.kind))
        except Exception as error:
            await self._abandon(ticket, f"no key was made: {type(error).__name__}")
            raise

    async def _find_issued(self, peer: PeerCredentials) -> IssuedCertificate | None:
        """The ledger's record of the client's certificate, if this CA issued it.

        :raises RequestRefused: it is revoked, expired or otherwise does not verify.
        """
        if peer.certificate is None or peer.anchor_set is not AnchorSet.OPERATIONAL:
            return None
        if peer.failures:
            expired = all(failure.is_expiry for failure in peer.failures)
            raise RequestRefused(
                RefusalReason.CERTIFICATE_EXPIRED
                if expired
                else RefusalReason.CERTIFICATE_NOT_TRUSTED,
                "the client certificate has expired"
                if expired
                else "the client certificate does not verify",
                detail=peer.why_unverified(),
            )
        issued = await self._ledger.find_certificate(peer.certificate.fingerprint(hashes.SHA256()))
        if issued is not None and issued.state is CertificateState.REVOKED:
            raise RequestRefused(
                RefusalReason.CERTIFICATE_REVOKED,
                "the client certificate has been revoked",
                detail=f"serial {issued.certificate.serial_number:x}",
                device=issued.device,
            )
        return issued

    async def _enroll(self, exchange: Exchange, issued: IssuedCertificate | None) -> EstResponse:
        decision = await self._authorize(exchange, issued)
        if isinstance(decision, Pending):
            self._trail.answered("pending", exchange.request, exchange.peer)
            return decision
        check_grant(decision, exchange, issued)
        intent = intent_of(exchange, decision, issued)
        return self._noted(exchange, await self._issue_once(exchange, decision, intent))

    def _noted(self, exchange: Exchange, outcome: _Outcome) -> EstResponse:
        """The answer, once it is in the audit trail."""
        if outcome.issued is None:
            self._trail.answered(outcome.word, exchange.request, exchange.peer)
        else:
            self._trail.issued(outcome.word, exchange.request, exchange.peer, outcome.issued)
        return outcome.answer

    async def _authorize(
        self, exchange: Exchange, issued: IssuedCertificate | None
    ) -> IssuanceGrant | Pending:
        request, csr = exchange.request, exchange.csr
        proven = {csr.key_sha256} if exchange.pop_linked else set()
        if exchange.peer.key_sha256 is not None:
            proven.add(exchange.peer.key_sha256)
        wish = EnrollmentRequest(
            operation=request.operation,
            transport=request.transport,
            label=request.label,
            csr=csr,
            pop_linked=exchange.pop_linked,
            profile=exchange.policy.profile,
            received_at=exchange.received_at,
        )
        client = ClientIdentity(
            exchange.peer, frozenset(proven), issued, exchange.http_user, exchange.otp_user
        )
        async with self._in_time():
            decision = await exchange.policy.authorizer(wish, client)
        if not isinstance(decision, IssuanceGrant | Pending):
            # An authorizer that forgets to return, or says True, has granted nothing.
            raise TypeError(f"authorizer returned {type(decision).__name__}, not an IssuanceGrant")
        return decision

    async def _issue_once(
        self, exchange: Exchange, grant: IssuanceGrant, intent: EnrollmentIntent
    ) -> _Outcome:
        """Issue, or find what was issued to the same request before; say which it was."""
        async with self._locks.setdefault(intent.request_key, asyncio.Lock()):
            try:
                begun = await self._ledger.begin(intent)
                if isinstance(begun, IssuedCertificate):
                    return _Outcome.of("replayed", begun)
                result = await self._issue(exchange, grant, begun, exchange.csr.public_key)
            except RequestRefused as refused:
                refused.device = refused.device or grant.device
                raise
        return _Outcome.of("issued", result)

    async def _issue(
        self,
        exchange: Exchange,
        grant: IssuanceGrant,
        ticket: IssuanceTicket,
        public_key: PublicKey,
    ) -> IssuedCertificate | Pending:
        profile = exchange.policy.profile
        validity = min(grant.validity or profile.validity, profile.validity)
        order = IssuanceOrder(
            public_key=public_key,
            subject=grant.subject,
            subject_alt_names=grant.subject_alt_names,
            validity=validity,
            profile=profile,
            label=exchange.request.label,
            pop_linked=exchange.pop_linked,
            now=self._clock.now(),
        )
        try:
            certificate = await exchange.policy.authority.issue(order)
            if isinstance(certificate, Pending):
                await self._abandon(ticket, "the certificate authority is not ready")
                return certificate
            if spki_sha256(certificate.public_key()) != spki_sha256(public_key):
                raise ValueError("the certificate authority certified another key")
        except Exception as error:
            await self._abandon(ticket, repr(error))
            raise
        return await self._ledger.complete(ticket, certificate, now=self._clock.now())

    async def _abandon(self, ticket: IssuanceTicket, reason: str) -> None:
        await self._ledger.abandon(ticket, reason=reason, now=self._clock.now())
