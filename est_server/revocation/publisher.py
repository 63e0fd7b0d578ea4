"""Keeps the CRL of each CA current: after a revocation, and in time before it runs out.

The latest CRL is in the store, not here, so that several servers over one store publish one and
the same: whoever notices first that a new one is due makes it, the others take it over.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from est_protocol.errors import ConfigurationError
from est_server.alarms import Alarm, AlarmBell, AlarmingRefusal
from est_server.interfaces import Clock
from est_server.revocations import (
    CrlIssuer,
    CrlOrder,
    CrlStatus,
    PublishedCrl,
    RevocationRegistry,
    RevokedCertificate,
)

_log = logging.getLogger("est_server.crl")

#: The part of the time that may go into making CRLs, whatever is revoked and how often.
_SHARE_OF_TIME = 0.1


@dataclass(frozen=True, slots=True)
class CrlSchedule:
    """When CRLs are made, and for how long they are good.

    :param poll: seconds between two looks at the store for revocations, by whichever process.
    :param refresh: after this time there is a new CRL even if nothing was revoked.
    :param validity: how far nextUpdate lies ahead; devices take a CRL for good until then, and
        nothing without a newer one after it.
    :param backdate: how far thisUpdate lies in the past, for readers whose clock is slow.
    :param max_entries: with more entries than these no CRL is made; entries go when their
        certificates have expired.
    """

    poll: float = 5.0
    refresh: timedelta = timedelta(hours=12)
    validity: timedelta = timedelta(days=7)
    backdate: timedelta = timedelta(minutes=5)
    max_entries: int = 1_000_000

    def __post_init__(self) -> None:
        """Check it.

        :raises ConfigurationError: a CRL would run out before the next one is made.
        """
        if self.refresh + self.backdate >= self.validity:
            raise ConfigurationError("refresh and backdate together have to be below validity")


class CrlPublisher:
    """The latest CRL of each CA, made when it is due. Call :meth:`refresh`, or let :meth:`run`.

    :param issuers: the CAs by the names that their CRLs are published under.
    :param alarms: who is told of revocations that are not as a server wrote them.
    """

    def __init__(
        self,
        registry: RevocationRegistry,
        issuers: Mapping[str, CrlIssuer],
        clock: Clock,
        schedule: CrlSchedule | None = None,
        alarms: AlarmBell | None = None,
    ) -> None:
        self._registry = registry
        self._alarms = alarms or AlarmBell()
        self._issuers = dict(issuers)
        self._clock = clock
        self._schedule = schedule or CrlSchedule()
        self._latest: dict[str, PublishedCrl] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the CAs."""
        return tuple(self._issuers)

    def latest(self, name: str) -> PublishedCrl | None:
        """The CRL of the CA called ``name``; ``None`` if there is none that is still good.

        :raises KeyError: there is no such CA.
        """
        if name not in self._issuers:
            raise KeyError(name)
        crl = self._latest.get(name)
        return crl if crl and crl.status.next_update > self._clock.now() else None

    def time_left(self, crl: PublishedCrl) -> timedelta:
        """For how long ``crl`` is good."""
        return crl.status.next_update - self._clock.now()

    async def run(self) -> None:
        """Refresh again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self.refresh()
            took = loop.time() - began
            await asyncio.sleep(max(self._schedule.poll, took / _SHARE_OF_TIME))

    async def refresh(self) -> None:
        """Make the CRLs that are due, and take over those that other servers made.

        What fails is logged and tried again the next time; the CRL before it stays.
        """
        for name, issuer in self._issuers.items():
            try:
                await self._refresh(name, issuer)
            except AlarmingRefusal as refused:
                self._alarm(name, refused)
            except Exception:
                _log.exception("the CRL of %r could not be refreshed", name)

    def _alarm(self, name: str, refused: AlarmingRefusal) -> None:
        _log.error("the CRL of %r could not be refreshed: %s", name, refused.detail)
        self._alarms.ring(
            Alarm(
                kind=refused.alarm,
                device=refused.device,
                label=None,
                peer="",
                detail=f"the CRL of {name!r} could not be refreshed: {refused.detail}",
                when=self._clock.now(),
            )
        )

    async def _refresh(self, name: str, issuer: CrlIssuer) -> None:
        # First of all, so that what is revoked from now on makes a difference the next time.
        changes = await self._registry.count_changes(issuer.issuer)
        status = await self._registry.crl_status(issuer.issuer)
        if self._is_due(status, changes):
            status = await self._issue(name, issuer, status, changes)
        held = self._latest.get(name)
        if status is not None and (held is None or held.status != status):
            crl = await self._registry.find_crl(issuer.issuer)
            assert crl is not None
            self._latest[name] = crl

    def _is_due(self, status: CrlStatus | None, changes: int) -> bool:
        if status is None or status.changes != changes:
            return True
        age = self._clock.now() - status.this_update
        return age >= self._schedule.refresh + self._schedule.backdate

    async def _issue(
        self, name: str, issuer: CrlIssuer, last: CrlStatus | None, changes: int
    ) -> CrlStatus | None:
        """Make the next CRL; the status of the latest one, which may be another server's."""
        now = self._clock.now().replace(microsecond=0)
        this_update = now - self._schedule.backdate
        if last is not None:
            this_update = max(this_update, last.this_update)
        order = CrlOrder(
            # Larger than any before, also after the store was lost and the CA was not.
            number=max(last.number + 1 if last else 1, int(now.timestamp())),
            this_update=this_update,
            next_update=now + self._schedule.validity,
            revoked=await self._entries(name, issuer, last, this_update),
        )
        der = await asyncio.to_thread(issuer.issue_crl, order)
        sha256 = hashlib.sha256(der).digest()
        status = CrlStatus(order.number, sha256, this_update, order.next_update, changes)
        crl = PublishedCrl(status, der)
        published = await self._registry.publish_crl(issuer.issuer, crl, replaces=last)
        if not published:
            return await self._registry.crl_status(issuer.issuer)
        _log.info(
            "published CRL %d of %r: %d entries, %d octets, good until %s",
            order.number,
            name,
            len(order.revoked),
            len(der),
            order.next_update.isoformat(),
        )
        self._latest[name] = crl
        return status

    async def _entries(
        self, name: str, issuer: CrlIssuer, last: CrlStatus | None, this_update: datetime
    ) -> list[RevokedCertificate]:
        """What is in the CRL.

        RFC 5280 section 5.1.2.6 takes an entry out only after it was in a CRL from beyond its
        certificate's end: what had not expired at the last CRL is in this one.
        """
        valid_at = last.this_update if last else this_update
        entries: list[RevokedCertificate] = []
        async for revoked in self._registry.revoked_certificates(issuer.issuer, valid_at=valid_at):
            entries.append(revoked)
            if len(entries) > self._schedule.max_entries:
                raise ConfigurationError(
                    f"the CRL of {name!r} would have more than {self._schedule.max_entries} "
                    "entries; raise [crl.schedule] max_entries"
                )
        return entries
