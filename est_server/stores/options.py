"""Bounds and times of every kind of store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Bounds and times of a store, whatever its database."""

    lease: timedelta = timedelta(seconds=30)
    """How long an attempt to issue is left alone before another process takes over.

    Must be longer than the slowest certificate authority takes: an attempt that finishes after
    it was taken over is refused.
    """

    max_waiting_writes: int = 2048
    """Writes that wait for the writer; those beyond it are refused.

    Refusals for the audit trail get half of it, so that a flood of bad requests leaves room for
    good ones.
    """

    max_group: int = 256
    """Writes that share one transaction and one flush to the disk."""

    max_pause: timedelta = timedelta(milliseconds=5)
    """How long the writes of one transaction may keep the event loop from everything else, where
    they run on it; those that are left take the next one."""

    refusals_kept: int = 100_000
    """Rows of refused requests in the audit trail; the oldest go."""

    journal_kept: int = 20_000_000
    """Entries of the journal; the oldest go. An enrollment makes three, of some 500 octets each."""

    journal_age: timedelta | None = None
    """How old entries of the journal become; without it, as old as there is room for."""

    journal_refusals: int = 60
    """Refusals that each process writes into the journal in a minute.

    Those beyond it are in the audit trail only, so that a flood of them pushes nothing out.
    """

    abandoned_kept: int = 100_000
    """Rows of issuances that came to nothing; the oldest go."""

    ended_certificates_kept: timedelta = timedelta(days=730)
    """How long the record of a superseded or revoked certificate stays after its notAfter.

    A device's present certificate and the one of its first enrollment always stay. Who shows one
    whose record is gone is refused, but no alarm says any more that it was renewed already.
    """

    conflicts_reported: int = 1000
    """Conflicting rows of one list import that are reported one by one."""
