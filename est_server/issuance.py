"""From a decision to a certificate: what the ledger, the key factory and the authority do.

The ledger has the last word before anything is made, and everything that is made is in the ledger
before it leaves. An attempt that comes to nothing is given up, and with it what it took.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from weakref import WeakValueDictionary

from est_protocol.errors import RequestRefused
from est_protocol.keys import PublicKey, spki_sha256
from est_protocol.messages import CertificatesResponse, EstResponse, Pending
from est_server.decision import Decision
from est_server.interfaces import Clock, EnrollmentLedger, IssuanceOrder
from est_server.key_generation import DeliveredKey, Delivery, KeyFactory
from est_server.ledger_records import IssuanceTicket, IssuedCertificate
from est_server.rules import order_id


class Outcome(NamedTuple):
    """What became of a request, and its answer.

    :param word: what the audit trail calls it.
    """

    word: str
    issued: IssuedCertificate | None
    answer: EstResponse

    @classmethod
    def of(cls, word: str, result: IssuedCertificate | Pending) -> Outcome:
        """The outcome that is answered with nothing but ``result``."""
        if isinstance(result, Pending):
            return cls("pending", None, result)
        return cls(word, result, CertificatesResponse((result.certificate,)))


class Issuance:
    """Issues what was decided, each thing once.

    :param ledger: where everything is recorded before it leaves.
    :param key_generation_workers: how many slow keys are generated at once for clients.
    """

    def __init__(
        self, ledger: EnrollmentLedger, clock: Clock, *, key_generation_workers: int
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        # Two copies of one request must not both get as far as the authority. Across processes
        # the ledger sees to that; within one process the second waits for the first.
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._keys = KeyFactory(key_generation_workers)

    async def issue(self, decision: Decision) -> Outcome:
        """Issue, or find what was issued to the same request before; say which it was.

        :raises RequestRefused: the ledger or the authority says no.
        """
        async with self._locks.setdefault(decision.intent.request_key, asyncio.Lock()):
            try:
                begun = await self._ledger.begin(decision.intent)
                if decision.delivery is not None:
                    return await self._generate(decision, decision.delivery, begun)
                if isinstance(begun, IssuedCertificate):
                    return Outcome.of("replayed", begun)
                csr = decision.exchange.csr
                result = await self._certify(decision, begun, csr.public_key, csr.key_sha256)
                return Outcome.of("issued", result)
            except RequestRefused as refused:
                refused.device = refused.device or decision.grant.device
                raise

    def close(self) -> None:
        """Let go of what makes keys."""
        self._keys.close()

    async def _generate(
        self, decision: Decision, delivery: Delivery, ticket: IssuanceTicket | IssuedCertificate
    ) -> Outcome:
        """Make a key and issue its certificate; the key is in the answer and nowhere else."""
        if isinstance(ticket, IssuedCertificate):
            raise TypeError("the ledger repeats a certificate whose key is gone")
        delivered = await self._make_key(delivery, ticket)
        key = delivered.public_key
        result = await self._certify(decision, ticket, key, spki_sha256(key))
        if isinstance(result, Pending):
            return Outcome.of("pending", result)
        return Outcome("generated", result, delivered.answer(result.certificate))

    async def _make_key(self, delivery: Delivery, ticket: IssuanceTicket) -> DeliveredKey:
        try:
            return delivery.pack(await self._keys.make(delivery.kind))
        except Exception as error:
            await self._abandon(ticket, f"no key was made: {type(error).__name__}")
            raise

    async def _certify(
        self, decision: Decision, ticket: IssuanceTicket, public_key: PublicKey, key_sha256: bytes
    ) -> IssuedCertificate | Pending:
        """Have ``public_key``, whose hash is ``key_sha256``, certified as ``ticket`` allows."""
        try:
            certificate = await decision.exchange.policy.authority.issue(
                self._order(decision, public_key)
            )
            if isinstance(certificate, Pending):
                await self._abandon(ticket, "the certificate authority is not ready")
                return certificate
            if spki_sha256(certificate.public_key()) != key_sha256:
                raise ValueError("the certificate authority certified another key")
        except Exception as error:
            await self._abandon(ticket, repr(error))
            raise
        return await self._ledger.complete(ticket, certificate, now=self._clock.now())

    def _order(self, decision: Decision, public_key: PublicKey) -> IssuanceOrder:
        exchange, grant = decision.exchange, decision.grant
        profile = exchange.policy.profile
        return IssuanceOrder(
            order_id=order_id(decision.intent, public_key),
            public_key=public_key,
            subject=grant.subject,
            subject_alt_names=grant.subject_alt_names,
            validity=min(grant.validity or profile.validity, profile.validity),
            profile=profile,
            label=exchange.request.label,
            pop_linked=exchange.pop_linked,
            now=self._clock.now(),
        )

    async def _abandon(self, ticket: IssuanceTicket, reason: str) -> None:
        await self._ledger.abandon(ticket, reason=reason, now=self._clock.now())
