"""The store as the service sees it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

from cryptography import x509

from est_protocol.errors import RequestRefused
from est_server.device_records import (
    AddOutcome,
    Device,
    DeviceState,
    ListedDevice,
    ListImport,
    ListRow,
)
from est_server.interfaces import Clock
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate, Refusal
from est_server.stores.sqlite import (
    administration,
    database,
    ledger,
    list_import,
    registry,
    secrets,
)
from est_server.stores.sqlite.database import StoreOptions
from est_server.stores.sqlite.writer import GroupWriter, unavailable
from est_server.user_credentials import EnrollmentSecret

T = TypeVar("T")

_PAGE_SIZE = 500

#: The part of the queue of writes that refusals may fill.
_REFUSALS_SHARE = 0.5


class SqliteStore:
    """Device registry and enrollment ledger in one SQLite file, made by :meth:`open`.

    Any number of processes of one machine may have the same file open. An object belongs to the
    event loop in which it was opened.

    Implements :class:`~est_server.interfaces.DeviceRegistry`,
    :class:`~est_server.interfaces.EnrollmentLedger`,
    :class:`~est_server.interfaces.LedgerAdministration` and
    :class:`~est_server.user_credentials.SecretRegistry`.
    """

    def __init__(self, path: Path, clock: Clock, options: StoreOptions, owner: str) -> None:
        self._path = path
        self._clock = clock
        self._options = options
        self._worker = ledger.Worker(owner, options.lease)
        self._writer = GroupWriter(
            lambda: database.connect(path, options),
            path,
            max_waiting=options.max_waiting_writes,
            max_group=options.max_group,
        )
        self._reader: sqlite3.Connection | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock,
        options: StoreOptions | None = None,
        owner: str | None = None,
    ) -> AsyncIterator[SqliteStore]:
        """Open the store, making the file (mode 0600) if it is not there.

        Leaving the context carries out the writes that wait, then closes the file.

        :param owner: identifies this process in the ledger; never the same for two that are
            open at one time. With an identity that survives a restart, what a crash left
            unfinished can be retried at once instead of after the lease.
        :raises ConfigurationError: the file is not this program's, is newer than this program,
            is damaged, can be read by others, or cannot be made.
        """
        options = options or StoreOptions()
        await asyncio.to_thread(database.prepare, path, options)
        store = cls(path, clock, options, owner or token_hex(8))
        try:
            yield store
        finally:
            await store._close()

    async def _close(self) -> None:
        await self._writer.close()
        self._close_reader()

    # The registry

    async def find_by_key(self, spki_sha256: bytes) -> Device | None:
        """The device whose listed key has this hash (32 octets)."""
        return self._read(lambda db: registry.find_by_key(db, spki_sha256))

    async def find_by_udid(self, udid: str) -> Device | None:
        """The device with this identifier."""
        return self._read(lambda db: registry.find_by_udid(db, udid))

    async def add_devices(
        self, devices: Sequence[ListedDevice], *, now: datetime
    ) -> list[AddOutcome]:
        """Add a handful of devices; see :class:`~est_server.interfaces.DeviceRegistry`."""
        return await self._writer.submit(lambda db: registry.add_devices(db, devices, now))

    async def import_devices(self, rows: Iterable[ListRow], *, now: datetime) -> ListImport:
        """Add a whole list; see :class:`~est_server.interfaces.DeviceRegistry`.

        Other writes wait while the list is taken over, which was measured as 0.6 s for 100,000
        rows and 10 s for a million; those that wait longer than ``busy_timeout`` are refused as
        ``STORE_UNAVAILABLE``, and clients come again.
        """
        return await asyncio.to_thread(self._import, rows, now)

    def _import(self, rows: Iterable[ListRow], now: datetime) -> ListImport:
        try:
            with closing(database.connect(self._path, self._options)) as db:
                return list_import.import_rows(
                    db, rows, now, reported=self._options.conflicts_reported
                )
        except sqlite3.Error as error:
            raise unavailable(str(error)) from error

    async def change_state(
        self, udid: str, state: DeviceState, *, actor: str, reason: str, now: datetime
    ) -> Device:
        """Move a device to another state, recording who did it and why.

        :raises KeyError: no such device.
        """
        return await self._writer.submit(
            lambda db: registry.change_state(db, udid, state, actor=actor, reason=reason, now=now)
        )

    async def devices(self, *, after: str = "") -> AsyncIterator[Device]:
        """All devices in order of UDID, those after ``after`` only."""
        while page := self._read_page(after):
            for device in page:
                yield device
            after = page[-1].udid

    def _read_page(self, after: str) -> list[Device]:
        return self._read(lambda db: registry.page(db, after, _PAGE_SIZE))

    # The ledger

    async def begin(self, intent: EnrollmentIntent) -> IssuanceTicket | IssuedCertificate:
        """Take the right to issue; see :class:`~est_server.interfaces.EnrollmentLedger`."""
        taken: list[int] = []

        def write(db: sqlite3.Connection) -> IssuanceTicket | IssuedCertificate:
            result = ledger.begin(db, intent, self._worker, self._clock.now())
            if isinstance(result, IssuanceTicket):
                # Here and not when the caller learns of it: the next write of the same group
                # must see that somebody works on this attempt.
                self._worker.held.add(result.number)
                taken.append(result.number)
            return result

        begun = self._writer.enqueue(write)
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            # Nobody will work on this ticket, so the next attempt need not wait for its lease.
            begun.add_done_callback(lambda _: self._worker.held.difference_update(taken))
            raise
        except RequestRefused:
            self._worker.held.difference_update(taken)
            raise

    async def complete(
        self, ticket: IssuanceTicket, certificate: x509.Certificate, *, now: datetime
    ) -> IssuedCertificate:
        """Record the certificate; see :class:`~est_server.interfaces.EnrollmentLedger`."""
        issued = await self._writer.submit(lambda db: ledger.complete(db, ticket, certificate, now))
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
        await self._writer.submit(
            lambda db: administration.record_refusal(db, refusal, kept=kept),
            share=_REFUSALS_SHARE,
        )

    async def find_certificate(self, sha256: bytes) -> IssuedCertificate | None:
        """The record of the certificate with this SHA-256 over its DER octets."""
        return self._read(lambda db: ledger.find_certificate(db, sha256))

    # One-time secrets

    async def find_secret(self, name: str) -> EnrollmentSecret | None:
        """The secret of this name."""
        return self._read(lambda db: secrets.find(db, name))

    async def add_secret(self, secret: EnrollmentSecret, *, now: datetime) -> EnrollmentSecret:
        """Store a secret; see :class:`~est_server.user_credentials.SecretRegistry`."""
        return await self._writer.submit(lambda db: secrets.add(db, secret, now))

    async def remove_secret(self, name: str) -> bool:
        """Remove a secret; whether there was one."""
        return await self._writer.submit(lambda db: secrets.remove(db, name))

    async def secrets(self) -> list[EnrollmentSecret]:
        """All of them, by name."""
        return self._read(secrets.every)

    # The operator

    async def revoke_certificate(
        self, sha256: bytes, *, actor: str, reason: str, now: datetime
    ) -> IssuedCertificate:
        """Mark a certificate as revoked; its claim stays taken.

        :raises KeyError: no such certificate.
        """
        return await self._writer.submit(
            lambda db: administration.revoke_certificate(
                db, sha256, actor=actor, reason=reason, now=now
            )
        )

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

    # Reads

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        # On the event loop: a lookup takes 6 to 16 us among 100,000 to a million devices, where
        # handing it to a thread and back takes 85 to 100 us (measured).
        try:
            if self._reader is None:
                self._reader = database.connect(self._path, self._options, read_only=True)
            return query(self._reader)
        except sqlite3.Error as error:
            self._close_reader()
            raise unavailable(str(error)) from error

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
