"""From a decision to a certificate: what the ledger, the key factory and the authority do.

The ledger has the last word before anything is made, and everything that is made is in the ledger
before it leaves. An attempt that comes to nothing is given up, and with it what it took.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import NamedTuple, TypeGuard, cast
from weakref import WeakValueDictionary

from cryptography import x509

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.keys import PublicKey, spki_sha256
from est_protocol.messages import CertificatesResponse, EstResponse, Pending
from est_server.decision import Decision
from est_server.intents import order_id
from est_server.interfaces import (
    CertificateAuthority,
    Clock,
    EnrollmentLedger,
    IssuanceOrder,
    PromptAuthority,
)
from est_server.key_generation import DeliveredKey, Delivery, KeyFactory
from est_server.ledger_records import IssuanceTicket, IssuedCertificate
from est_server.patience import in_time


class Outcome(NamedTuple):
    """What became of a request, and its answer.

    :param word: what the audit trail calls it.
    """

    word: str
    issued: IssuedCertificate | None
    answer: EstResponse


class _Made(NamedTuple):
    """What no client may see before it is in the ledger.

    :param delivered: the key, where the server made it.
    """

    certificate: x509.Certificate
    delivered: DeliveredKey | None


class Issuance:
    """Issues what was decided, each thing once.

    :param ledger: where everything is recorded before it leaves.
    :param timeout: seconds to make a key, where one is asked for, and have it certified; less than
        the lease that the ledger gives an attempt.
    :param key_generation_workers: how many slow keys are generated at once for clients.
    """

    def __init__(
        self,
        ledger: EnrollmentLedger,
        clock: Clock,
        *,
        timeout: float,
        key_generation_workers: int,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._timeout = timeout
        # Two copies of one request must not both get as far as the authority. Across processes
        # the ledger sees to that; within one process the second waits for the first.
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._keys = KeyFactory(key_generation_workers)

    async def issue(self, decision: Decision) -> Outcome:
        """Issue, or find what was issued to the same request before; say which it was.

        :raises RequestRefused: the ledger or the authority says no, or takes too long.
        """
        async with self._locks.setdefault(decision.intent.request_key, asyncio.Lock()):
            authority = decision.exchange.policy.authority
            try:
                if decision.delivery is None and _can_issue_now(authority):
                    return await self._issue_at_once(decision, authority)
                return await self._issue_in_steps(decision)
            except RequestRefused as refused:
                refused.device = refused.device or decision.grant.device
                raise

    async def ca_certificates(
        self, label: str | None, authority: CertificateAuthority
    ) -> CertificatesResponse:
        """The certificates of ``authority``, for which nobody waits longer either."""
        async with self._in_time():
            return CertificatesResponse(await authority.ca_certificates(label))

    def close(self) -> None:
        """Let go of what makes keys."""
        self._keys.close()

    async def _issue_at_once(self, decision: Decision, authority: PromptAuthority) -> Outcome:
        """One transaction, in which the certificate is made: half of what two of them cost."""
        csr = decision.exchange.csr
        made: list[x509.Certificate] = []

        def certify() -> x509.Certificate:
            order = self._order(decision, csr.public_key, csr.key_sha256)
            made.append(_certified(authority.issue_now(order), csr.key_sha256))
            return made[-1]

        try:
            issued = await self._ledger.issue(decision.intent, certify, now=self._clock.now())
        except RequestRefused as refused:
            if made:
                # It exists but never leaves the server; the audit trail must name it.
                refused.detail += f"; discarded certificate with serial {made[0].serial_number:x}"
            raise
        if isinstance(issued, Pending):
            return Outcome("pending", None, issued)
        word = "issued" if made else "replayed"
        return Outcome(word, issued, CertificatesResponse((issued.certificate,)))

    async def _issue_in_steps(self, decision: Decision) -> Outcome:
        """Two transactions, between which others have time to make what is to be issued."""
        begun = await self._ledger.begin(decision.intent)
        if isinstance(begun, IssuedCertificate):
            return _repeated(decision, begun)
        if isinstance(begun, Pending):
            return Outcome("pending", None, begun)
        made = await self._make(decision, begun)
        if isinstance(made, Pending):
            return Outcome("pending", None, made)
        issued = await self._ledger.complete(begun, made.certificate, now=self._clock.now())
        if made.delivered is not None:
            return Outcome("generated", issued, made.delivered.answer(issued.certificate))
        return Outcome("issued", issued, CertificatesResponse((issued.certificate,)))

    async def _make(self, decision: Decision, ticket: IssuanceTicket) -> _Made | Pending:
        """Have the client's key certified, or a new one; an attempt that fails is given up."""
        try:
            async with self._in_time():
                delivered = await self._new_key(decision.delivery)
                certificate = await self._certify(decision, delivered)
        except Exception as error:
            await self._abandon(ticket, repr(error))
            raise
        if isinstance(certificate, Pending):
            await self._abandon(ticket, "the certificate authority is not ready")
            return certificate
        return _Made(certificate, delivered)

    async def _new_key(self, delivery: Delivery | None) -> DeliveredKey | None:
        if delivery is None:
            return None
        try:
            return delivery.pack(await self._keys.make(delivery.kind))
        except Exception as error:
            # The error's own text goes no further, for the key may be in it.
            raise RuntimeError(f"no key was made: {type(error).__name__}") from None

    async def _certify(
        self, decision: Decision, delivered: DeliveredKey | None
    ) -> x509.Certificate | Pending:
        csr = decision.exchange.csr
        if delivered is None:
            public_key, key_sha256 = csr.public_key, csr.key_sha256
        else:
            public_key, key_sha256 = delivered.public_key, spki_sha256(delivered.public_key)
        order = self._order(decision, public_key, key_sha256)
        certificate = await decision.exchange.policy.authority.issue(order)
        if isinstance(certificate, Pending):
            return certificate
        return _certified(certificate, key_sha256)

    def _order(self, decision: Decision, public_key: PublicKey, key_sha256: bytes) -> IssuanceOrder:
        exchange, grant = decision.exchange, decision.grant
        return IssuanceOrder(
            order_id=order_id(decision.intent, key_sha256),
            public_key=public_key,
            subject=grant.subject,
            subject_alt_names=grant.subject_alt_names,
            validity=decision.validity,
            profile=exchange.policy.profile,
            label=exchange.request.label,
            pop_linked=exchange.pop_linked,
            now=self._clock.now(),
        )

    async def _abandon(self, ticket: IssuanceTicket, reason: str) -> None:
        await self._ledger.abandon(ticket, reason=reason, now=self._clock.now())

    def _in_time(self) -> AbstractAsyncContextManager[None]:
        return in_time(
            self._timeout,
            RefusalReason.AUTHORITY_UNAVAILABLE,
            "the certificate authority did not answer in time",
        )


def _repeated(decision: Decision, issued: IssuedCertificate) -> Outcome:
    if decision.delivery is not None:
        raise TypeError("the ledger repeats a certificate whose key is gone")
    return Outcome("replayed", issued, CertificatesResponse((issued.certificate,)))


def _certified(certificate: x509.Certificate, key_sha256: bytes) -> x509.Certificate:
    if spki_sha256(certificate.public_key()) != key_sha256:
        raise ValueError("the certificate authority certified another key")
    return certificate


def _can_issue_now(authority: CertificateAuthority) -> TypeGuard[PromptAuthority]:
    return _is_prompt(type(authority)) and cast(PromptAuthority, authority).can_issue_now()


@lru_cache
def _is_prompt(kind: type[object]) -> bool:
    # Looked at once for each kind of authority: it takes 40 us.
    return issubclass(kind, PromptAuthority)
