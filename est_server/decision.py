"""The road of a request for a certificate up to the ledger: everything but issuing.

In this order: does the CSR prove possession, is it linked to the channel, who is the client, may
it have what it asks for. Nothing is recorded, claimed or made here.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import RefusalReason
from est_protocol.messages import EstRequest, Pending
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_server.csr_attributes import AskedAttributes
from est_server.identification import ClientIdentification
from est_server.intents import intent_of
from est_server.interfaces import (
    ClientIdentity,
    Clock,
    EnrollmentRequest,
    IssuanceGrant,
    LabelPolicy,
)
from est_server.key_generation import Delivery, plan_delivery, read_wish
from est_server.ledger_records import EnrollmentIntent, IssuedCertificate
from est_server.patience import in_time
from est_server.registration_authorities import RegistrationAuthority
from est_server.rules import (
    Exchange,
    begin_exchange,
    begin_key_generation,
    check_grant,
    decode_csr,
    refuse_superseded,
    require_authentication,
    require_renewable,
    requires_both,
)
from est_server.users import UserChecks


@dataclass(frozen=True, slots=True)
class Case:
    """A request for a certificate, as it comes up for decision.

    :param policy: what its label stands for.
    :param asked: what CSRs under the label have to have in them.
    :param authority: the registration authority that the client is.
    :param is_preview: nobody asked, and nothing may come of it.
    :param stand_in: in a preview, the CSR in place of one that nobody has signed.
    """

    request: EstRequest
    peer: PeerCredentials
    policy: LabelPolicy
    asked: AskedAttributes
    authority: RegistrationAuthority | None = None
    is_preview: bool = False
    stand_in: CertificationRequest | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A request that is granted, and what the ledger is to be asked for.

    :param delivery: how the key travels that the server is to make; ``None`` for a key that the
        client has.
    """

    exchange: Exchange
    grant: IssuanceGrant
    intent: EnrollmentIntent
    delivery: Delivery | None

    @property
    def validity(self) -> timedelta:
        """For how long the certificate is to be valid."""
        most = self.exchange.policy.profile.validity
        return min(self.grant.validity or most, most)


class Decider:
    """Decides about requests for certificates.

    :param clients: looks clients up by their certificates.
    :param users: checks what clients know.
    :param timeout: seconds for what is asked of others.
    """

    def __init__(
        self,
        clients: ClientIdentification,
        users: UserChecks,
        clock: Clock,
        *,
        timeout: float,
    ) -> None:
        self._clients = clients
        self._users = users
        self._clock = clock
        self._timeout = timeout

    async def decide(self, case: Case) -> Decision | Pending:
        """Decide about a request.

        :raises RequestRefused: the answer is no.
        """
        request, policy = case.request, case.policy
        exchange = await self._decode(case)
        generation = policy.key_generation if request.operation is Operation.SERVERKEYGEN else None
        wish = read_wish(exchange.csr) if generation is not None else None
        issued = await self._find_held(exchange)
        grant = await self._authorize(exchange, issued)
        if isinstance(grant, Pending):
            return grant
        check_grant(grant, exchange, issued)
        delivery = None
        if generation is not None:
            async with self._in_time():
                delivery = await plan_delivery(
                    generation, exchange.csr, wish, case.peer, grant.device
                )
        return Decision(exchange, grant, intent_of(exchange, grant, issued), delivery)

    async def _decode(self, case: Case) -> Exchange:
        """The request with all that can be found out about it and its client without a decision.

        HTTP credentials come first: a client may want to be asked before it sends a CSR.
        """
        request, peer, policy = case.request, case.peer, case.policy
        async with self._in_time():
            http_user = await self._users.http_user(request, peer, policy)
            csr = case.stand_in or decode_csr(request)
            generates = request.operation is Operation.SERVERKEYGEN
            begin = begin_key_generation if generates else begin_exchange
            exchange = begin(csr, request, peer, policy, self._clock.now(), case.authority)
            case.asked.require(csr, request.operation)
            otp_user = await self._users.otp_user(csr, peer, policy)
        exchange = replace(
            exchange, is_preview=case.is_preview, http_user=http_user, otp_user=otp_user
        )
        require_authentication(exchange)
        if requires_both(exchange):
            await self._clients.require_known_key(exchange)
        return exchange

    async def _find_held(self, exchange: Exchange) -> IssuedCertificate | None:
        """The operational certificate that the client presented, if it did, or that a
        registration authority has renewed.

        A superseded one gets as far as the ledger where the answer would supersede it: there a
        retry after a lost answer is told from everything else.
        """
        await self._clients.require_device_standing(exchange)
        if exchange.registration_authority is not None:
            if exchange.request.operation is Operation.SIMPLEREENROLL:
                return await self._clients.find_renewable(exchange)
            return None
        issued = await self._clients.find_issued(exchange.peer)
        if exchange.request.operation is Operation.SIMPLEREENROLL:
            require_renewable(exchange, issued)
        elif exchange.predecessor(issued) is None:
            refuse_superseded(issued)
        return issued

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
            is_preview=exchange.is_preview,
        )
        client = ClientIdentity(
            exchange.peer,
            frozenset(proven),
            issued,
            exchange.http_user,
            exchange.otp_user,
            exchange.registration_authority,
        )
        async with self._in_time():
            decision = await exchange.policy.authorizer(wish, client)
        if not isinstance(decision, IssuanceGrant | Pending):
            # An authorizer that forgets to return, or says True, has granted nothing.
            raise TypeError(f"authorizer returned {type(decision).__name__}, not an IssuanceGrant")
        return decision

    def _in_time(self) -> AbstractAsyncContextManager[None]:
        """Bound what is asked of others."""
        return in_time(
            self._timeout,
            RefusalReason.AUTHORIZER_UNAVAILABLE,
            "the request could not be decided in time",
        )
