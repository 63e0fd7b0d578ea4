"""The store as the service sees it, over any database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from datetime import datetime
from secrets import token_hex
from typing import NoReturn

from cryptography import x509

from est_protocol.errors import RequestRefused
from est_protocol.messages import Pending
from est_server.approvals import Approval
from est_server.device_records import (
    AddOutcome,
    Device,
    ImportedList,
    ListDescription,
    ListedDevice,
    ListImport,
    ListRow,
)
from est_server.journal import Chain, Entry
from est_server.ledger_records import (
    Claim,
    EnrollmentIntent,
    IssuanceTicket,
    IssuedCertificate,
    Refusal,
)
from est_server.life_cycle import DeviceChange, DeviceOrder, HistoryEntry
from est_server.revocations import (
    CrlStatus,
    PublishedCrl,
    RevocationReason,
    RevokedCertificate,
)
from est_server.stores.engine import Engine
from est_server.stores.flood import Flood
from est_server.stores.group_writer import GroupWriter
from est_server.stores.options import StoreOptions
from est_server.stores.rules import (
    administration,
    approvals,
    certificates,
    claims,
    journal,
    ledger,
    life_cycle,
    lists,
    registry,
    retention,
    revocations,
    secrets,
    standing,
)
from est_server.stores.rules.attempts import Worker
from est_server.stores.rules.journal import Query, Retention
from est_server.stores.rules.ledger import Fresh
from est_server.stores.transaction import Transaction
from est_server.stores.verification import GivenList, Progress, findings
from est_server.user_credentials import EnrollmentSecret

_PAGE_SIZE = 500

#: The part of the queue of writes that refusals may fill.
_REFUSALS_SHARE = 0.5


class _Undone(Exception):
    """A write that is not to be kept.

    :param begun: what it came to.
    """

    def __init__(self, begun: ledger.Begun) -> None:
        super().__init__("this was a preview")
        self.begun = begun


class Store:
    """Device registry and enrollment ledger in one database.

    An object belongs to the event loop in which it was opened.

    Implements :class:`~est_server.interfaces.DeviceRegistry`,
    :class:`~est_server.interfaces.EnrollmentLedger`,
    :class:`~est_server.ledger_administration.LedgerAdministration`,
    :class:`~est_server.approvals.ApprovalQueue`,
    :class:`~est_server.revocations.RevocationRegistry` and
    :class:`~est_server.user_credentials.SecretRegistry`.

    :param engine: the database, its schema up to date.
    :param moment: the present, by the clock that all processes on this database share; called
        inside of a transaction. Leases are measured with it.
    :param options: bounds and times.
    :param owner: identifies this process in the ledger; never the same for two that are open at
        one time. With an identity that survives a restart, what a crash left unfinished can be
        retried at once instead of after the lease.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        moment: Callable[[Transaction], datetime],
        options: StoreOptions,
        owner: str | None,
    ) -> None:
        self._engine = engine
        self._moment = moment
        self._options = options
        self._worker = Worker(owner or token_hex(8), options.lease)
        self._writer = GroupWriter(
            engine,
            max_waiting=options.max_waiting_writes,
            max_group=options.max_group,
            max_pause=options.max_pause,
        )
        self._attributed = False
        self._retention = Retention(options.journal_kept, options.journal_age)
        self._flood = Flood(options.journal_refusals)

    async def close(self) -> None:
        """Carry out the writes that wait, then close the database."""
        await self._writer.close()
        await self._engine.close()

    # The registry

    async def find_by_key(self, spki_sha256: bytes) -> Device | None:
        """The device whose listed key has this hash (32 octets)."""
        return await self._engine.read(lambda db: registry.find_by_key(db, spki_sha256))

    async def find_by_udid(self, udid: str) -> Device | None:
        """The device with this identifier."""
        return await self._engine.read(lambda db: registry.find_by_udid(db, udid))

    async def add_devices(
        self, devices: Sequence[ListedDevice], *, now: datetime
    ) -> list[AddOutcome]:
        """Add a handful of devices; see :class:`~est_server.interfaces.DeviceRegistry`."""
        return await self._writer.submit(lambda db: registry.add_devices(db, devices, now))

    async def import_devices(
        self, rows: Iterable[ListRow], describe: Callable[[], ListDescription], *, now: datetime
    ) -> ListImport:
        """Add a whole list; see :class:`~est_server.interfaces.DeviceRegistry`.

        Other writes wait while the list is taken over. Those that wait longer than the database
        is set to wait are refused as ``STORE_UNAVAILABLE``, and clients come again.
        """
        reported = self._options.conflicts_reported
        return await asyncio.to_thread(
            self._engine.import_rows, rows, describe, now, reported=reported
        )

    async def lists(self) -> list[ImportedList]:
        """The lists that were imported, the first first."""
        return await self._engine.read(lists.every)

    async def change_device(self, order: DeviceOrder, *, now: datetime) -> DeviceChange:
        """Take a step in a device's life; see :class:`~est_server.interfaces.DeviceRegistry`."""
        return await self._writer.submit(lambda db: life_cycle.change_device(db, order, now=now))

    async def device_history(self, udid: str) -> list[HistoryEntry]:
        """What became of a device, the oldest first."""
        return await self._engine.read(lambda db: life_cycle.history(db, udid))

    async def devices(self, *, after: str = "") -> AsyncIterator[Device]:
        """All devices in order of UDID, those after ``after`` only."""
        while page := await self._read_page(after):
            for device in page:
                yield device
            after = page[-1].udid

    async def _read_page(self, after: str) -> list[Device]:
        return await self._engine.read(lambda db: registry.page(db, after, _PAGE_SIZE))

    # The ledger

    async def begin(self, intent: EnrollmentIntent) -> IssuanceTicket | IssuedCertificate | Pending:
        """Take the right to issue; see :class:`~est_server.interfaces.EnrollmentLedger`."""
        taken: list[int] = []

        def write(db: Transaction) -> ledger.Begun:
            now = self._moment(db)
            result = ledger.begin(db, intent, self._worker, now)
            if isinstance(result, IssuanceTicket):
                # Here and not when the caller learns of it: the next write of the same group
                # must see that somebody works on this attempt.
                self._worker.held.add(result.number)
                taken.append(result.number)
                self._prune(db, result.number, now)
            return result

        begun = self._writer.enqueue(write, brief=True)
        try:
            result = await asyncio.shield(begun)
        except asyncio.CancelledError:
            # Nobody will work on this ticket, so the next attempt need not wait for its lease.
            begun.add_done_callback(lambda _: self._worker.held.difference_update(taken))
            raise
        except RequestRefused:
            self._worker.held.difference_update(taken)
            raise
        if isinstance(result, RequestRefused):
            raise result
        return result

    async def preview(self, intent: EnrollmentIntent) -> IssuedCertificate | Pending | None:
        """What ``begin`` would answer; see :class:`~est_server.interfaces.EnrollmentLedger`."""

        def attempt(db: Transaction) -> NoReturn:
            begun = ledger.begin(db, intent, self._worker, self._moment(db))
            # The writer undoes what a write did that raises.
            raise _Undone(begun)

        try:
            await self._writer.submit(attempt)
        except _Undone as undone:
            if isinstance(undone.begun, RequestRefused):
                raise undone.begun from None
            return None if isinstance(undone.begun, IssuanceTicket) else undone.begun

    async def issue(
        self, intent: EnrollmentIntent, certify: Callable[[], x509.Certificate], *, now: datetime
    ) -> IssuedCertificate | Pending:
        """Issue in one transaction; see :class:`~est_server.interfaces.EnrollmentLedger`."""

        def write(db: Transaction) -> IssuedCertificate | Pending | Exception:
            result = ledger.issue(db, intent, certify, self._worker, now)
            if not isinstance(result, Fresh):
                return result
            self._prune(db, result.number, now)
            return result.issued

        result = await self._writer.submit(write, brief=True)
        if isinstance(result, Exception):
            raise result
        return result

    async def complete(
        self, ticket: IssuanceTicket, certificate: x509.Certificate, *, now: datetime
    ) -> IssuedCertificate:
        """Record the certificate; see :class:`~est_server.interfaces.EnrollmentLedger`."""
        issued = await self._writer.submit(
            lambda db: ledger.complete(db, ticket, certificate, now), brief=True
        )
        self._worker.held.discard(ticket.number)
        return issued

    async def abandon(self, ticket: IssuanceTicket, *, reason: str, now: datetime) -> None:
        """Give the ticket back; see :class:`~est_server.interfaces.EnrollmentLedger`."""
        # Even if the store fails now, this process has stopped working on it.
        self._worker.held.discard(ticket.number)
        kept = self._options.abandoned_kept
        await self._writer.submit(
            lambda db: ledger.abandon(db, ticket.number, reason=reason, now=now, kept=kept)
        )

    async def record_refusal(self, refusal: Refusal) -> None:
        """Record a refused request; the oldest records beyond ``refusals_kept`` go."""
        kept = self._options.refusals_kept
        left_out = self._flood.left_out(refusal.refused_at)

        def write(db: Transaction) -> None:
            number = administration.record_refusal(db, refusal, kept=kept, left_out=left_out)
            self._prune(db, number, refusal.refused_at)

        await self._writer.submit(write, share=_REFUSALS_SHARE, brief=True)

    async def find_certificate(self, sha256: bytes) -> IssuedCertificate | None:
        """The record of the certificate with this SHA-256 over its DER octets."""
        return await self._engine.read(lambda db: certificates.find(db, sha256))

    async def find_renewable(
        self, spki_sha256: bytes, label: str | None, *, lost_since: datetime
    ) -> IssuedCertificate | None:
        """The certificate that a request for this key renews, where none was presented."""
        return await self._engine.read(
            lambda db: certificates.find_renewable(db, spki_sha256, label, lost_since)
        )

    async def check_standing(self, *, certificate: bytes | None, keys: Collection[bytes]) -> None:
        """Refuse whom an operator has shut out; see
        :class:`~est_server.interfaces.EnrollmentLedger`."""
        await self._engine.read(lambda db: standing.require(db, certificate=certificate, keys=keys))

    # One-time secrets

    async def find_secret(self, name: str) -> EnrollmentSecret | None:
        """The secret of this name."""
        return await self._engine.read(lambda db: secrets.find(db, name))

    async def add_secret(self, secret: EnrollmentSecret, *, now: datetime) -> EnrollmentSecret:
        """Store a secret; see :class:`~est_server.user_credentials.SecretRegistry`."""
        return await self._writer.submit(lambda db: secrets.add(db, secret, now))

    async def remove_secret(self, name: str) -> bool:
        """Remove a secret; whether there was one."""
        return await self._writer.submit(lambda db: secrets.remove(db, name, self._moment(db)))

    async def secrets(self) -> list[EnrollmentSecret]:
        """All of them, by name."""
        return await self._engine.read(secrets.every)

    # The operator

    async def certificates(
        self, *, device: str | None = None, serial: str | None = None
    ) -> AsyncIterator[IssuedCertificate]:
        """See :meth:`est_server.ledger_administration.LedgerAdministration.certificates`."""
        last: int | None = 0
        while last is not None:
            page, last = await self._read_certificates(device, serial, last)
            for issued in page:
                yield issued

    async def _read_certificates(
        self, device: str | None, serial: str | None, after: int
    ) -> tuple[list[IssuedCertificate], int | None]:
        return await self._engine.read(
            lambda db: certificates.page(
                db, device=device, serial=serial, after=after, size=_PAGE_SIZE
            )
        )

    async def revoke_certificate(
        self,
        sha256: bytes,
        *,
        actor: str,
        reason: str,
        code: RevocationReason = RevocationReason.UNSPECIFIED,
        now: datetime,
    ) -> IssuedCertificate:
        """Mark a certificate as revoked; its claim stays taken.

        :raises KeyError: no such certificate.
        """
        return await self._writer.submit(
            lambda db: administration.revoke_certificate(
                db, sha256, actor=actor, reason=reason, code=code, now=now
            )
        )

    async def find_claim(self, device: str, label: str | None) -> Claim | None:
        """The claim of a device's first enrollment."""
        return await self._engine.read(lambda db: claims.find(db, device, label))

    async def release_claim(
        self, device: str, label: str | None, *, actor: str, reason: str, now: datetime
    ) -> bool:
        """Let a device make a first enrollment again; whether it had a claim."""
        kept = self._options.abandoned_kept
        return await self._writer.submit(
            lambda db: administration.release_claim(
                db, device, label, actor=actor, reason=reason, now=now, kept=kept
            )
        )

    # Approvals

    async def approvals(self, *, decided: bool = False) -> AsyncIterator[Approval]:
        """The requests that wait; see :class:`~est_server.approvals.ApprovalQueue`."""
        after = 0
        while page := await self._read_approvals(decided, after):
            for approval in page:
                yield approval
            after = page[-1].number

    async def _read_approvals(self, decided: bool, after: int) -> list[Approval]:
        return await self._engine.read(
            lambda db: approvals.page(db, decided=decided, after=after, now=self._moment(db))
        )

    async def decide_approval(
        self, number: int, *, approve: bool, actor: str, reason: str, now: datetime
    ) -> Approval:
        """Approve or deny a request; see :class:`~est_server.approvals.ApprovalQueue`."""
        return await self._writer.submit(
            lambda db: administration.decide_approval(
                db, number, approve=approve, actor=actor, reason=reason, now=now
            )
        )

    # The journal

    async def journal(self, query: Query, *, after: int = 0) -> AsyncIterator[Entry]:
        """Entries that fit, those after number ``after`` only, in order."""
        while page := await self.journal_page(query, after):
            for entry in page:
                yield entry
            after = page[-1].number
            await asyncio.sleep(0)

    async def journal_page(self, query: Query, after: int) -> list[Entry]:
        """The next of them."""
        return await self._engine.read(lambda db: journal.entries(db, query, after, _PAGE_SIZE))

    async def journal_beginning(self) -> Chain:
        """The last entry that was removed for its age."""
        return await self._engine.read(journal.checkpoint)

    async def export_journal(
        self, *, begin: Callable[[Chain], None], tell: Callable[[Entry], None]
    ) -> None:
        """Tell the whole journal, as it is at one moment.

        :param begin: told what its first entry follows, in another thread.
        :param tell: told each entry, likewise.
        :raises JournalBroken: one does not follow the one before.
        """
        await asyncio.to_thread(self._export_journal, begin, tell)

    def _export_journal(
        self, begin: Callable[[Chain], None], tell: Callable[[Entry], None]
    ) -> None:
        with self._engine.snapshot() as db:
            chain = journal.checkpoint(db)
            begin(chain)
            while page := journal.entries(db, Query(), chain.number, _PAGE_SIZE):
                for entry in page:
                    chain.follow(entry)
                    tell(entry)

    def _prune(self, db: Transaction, number: int, now: datetime) -> None:
        if number % journal.PRUNE_EVERY == 0:
            journal.prune(db, self._retention, now)
            retention.prune(db, self._options.ended_certificates_kept, now)

    async def verify(
        self,
        given: Sequence[GivenList] = (),
        *,
        report: Callable[[str], None],
        progress: Progress = lambda what, count: None,
    ) -> int:
        """Check everything against seals, journal and lists; how many findings there are.

        :param given: lists to compare the devices with.
        :param report: told each finding, in another thread.
        :param progress: told how far it is, likewise.
        """
        return await asyncio.to_thread(self._verify, given, report, progress)

    def _verify(
        self, given: Sequence[GivenList], report: Callable[[str], None], progress: Progress
    ) -> int:
        count = 0
        with self._engine.snapshot() as db:
            for finding in findings(db, given, progress=progress):
                report(finding)
                count += 1
        return count

    # CRLs

    async def count_changes(self, issuer: bytes) -> int:
        """How often what the CRL of this CA has to say has changed."""
        if not self._attributed:
            if not await self._engine.read(revocations.is_attributed):
                await self._writer.submit(revocations.attribute)
            self._attributed = True
        return await self._engine.read(lambda db: revocations.count_changes(db, issuer))

    async def revoked_certificates(
        self, issuer: bytes, *, valid_at: datetime
    ) -> AsyncIterator[RevokedCertificate]:
        """The entries of a CRL; see :class:`~est_server.revocations.RevocationRegistry`."""
        last: int | None = 0
        while last is not None:
            entries, last = await self._read_entries(issuer, valid_at, last)
            for entry in entries:
                yield entry
            # Reads may run on the event loop, and there may be a million entries.
            await asyncio.sleep(0)

    async def _read_entries(
        self, issuer: bytes, valid_at: datetime, after: int
    ) -> revocations.Page:
        return await self._engine.read(
            lambda db: revocations.page(db, issuer, valid_at, after, _PAGE_SIZE)
        )

    async def crl_status(self, issuer: bytes) -> CrlStatus | None:
        """The status of the latest CRL of this CA."""
        return await self._engine.read(lambda db: revocations.crl_status(db, issuer))

    async def find_crl(self, issuer: bytes) -> PublishedCrl | None:
        """The latest CRL of this CA."""
        return await self._engine.read(lambda db: revocations.find_crl(db, issuer))

    async def publish_crl(
        self, issuer: bytes, crl: PublishedCrl, *, replaces: CrlStatus | None
    ) -> bool:
        """Publish a CRL; see :class:`~est_server.revocations.RevocationRegistry`."""
        return await self._writer.submit(
            lambda db: revocations.publish_crl(db, issuer, crl, replaces=replaces)
        )
