"""Manual approval of first enrollments: the queue as operators see it, values only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from est_protocol.errors import EstError
from est_protocol.messages import Transport
from est_protocol.operations import Operation


class ApprovalState(StrEnum):
    """What became of a request that needs approval.

    ``WAITING`` for an operator. ``APPROVED``: the same request gets its certificate when it comes
    again. ``DENIED``: it is refused. ``USED``: its certificate is issued, or being issued.
    """

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"
    USED = "used"


@dataclass(frozen=True, slots=True)
class ApprovalTerms:
    """What holds for requests that wait for an operator's approval.

    :param retry_after: after how long clients are told to ask again.
    :param lifetime: how long a request waits for an operator, and a decision for the client; what
        is older is forgotten, and the next request begins anew.
    :param max_waiting: requests that may wait at one time, under all labels together; those
        beyond are told to come later.
    :param max_waiting_per_device: how many of these may be of one device, for several keys.
    :param max_waiting_per_address: how many of these may come from one IPv4 address, or one /64 of
        IPv6, so that one sender does not keep all others out. Devices behind one address
        translation, or one registration authority, share it.
    """

    retry_after: timedelta = timedelta(minutes=5)
    lifetime: timedelta = timedelta(days=7)
    max_waiting: int = 1000
    max_waiting_per_device: int = 5
    max_waiting_per_address: int = 200

    def __post_init__(self) -> None:
        if self.retry_after < timedelta(seconds=1):
            raise ValueError("retry_after is a second at least")
        if self.lifetime <= self.retry_after:
            raise ValueError("lifetime has to be longer than retry_after")

    @property
    def seconds(self) -> int:
        """``retry_after`` in seconds."""
        return int(self.retry_after.total_seconds())


@dataclass(frozen=True, slots=True)
class Approval:
    """A request that needs, or needed, approval.

    :param number: by which operators name it.
    :param device: UDID of the device that it is for.
    :param label: the label, ``None`` for the default.
    :param spki_sha256: hash (32 octets) of the key to certify; ``None`` if the server is to make
        it.
    :param client_key: hash (32 octets) of the key that the client proved itself by, if it did.
    :param peer: the address that it came from first.
    :param reasons: why it would be granted.
    :param asked_at: when it came first.
    :param expires_at: when it is forgotten; a ``USED`` one never is.
    :param actor: who decided; ``None`` as long as nobody has.
    :param reason: why, in the operator's words.
    :param decided_at: when.
    """

    number: int
    operation: Operation
    device: str
    label: str | None
    spki_sha256: bytes | None
    client_key: bytes | None
    transport: Transport
    peer: str
    reasons: tuple[str, ...]
    asked_at: datetime
    expires_at: datetime
    state: ApprovalState
    actor: str | None = None
    reason: str | None = None
    decided_at: datetime | None = None


class NotWaiting(EstError):
    """The request was decided already, or has expired; nothing was changed."""


class ApprovalQueue(Protocol):
    """The store of requests that need approval, as operators use it.

    The ledger puts requests into it and takes approvals out; see
    :meth:`est_server.interfaces.EnrollmentLedger.begin`.
    """

    def approvals(self, *, decided: bool = False) -> AsyncIterator[Approval]:
        """The requests that wait, the oldest first.

        :param decided: those that were decided too.
        """
        ...

    async def decide_approval(
        self, number: int, *, approve: bool, actor: str, reason: str, now: datetime
    ) -> Approval:
        """Approve or deny a request.

        What is approved is this request of this client for this key, once.

        :param actor: who decides, for the audit trail.
        :param reason: why, for the audit trail.
        :raises KeyError: there is no such request.
        :raises NotWaiting: it was decided already, or has expired.
        """
        ...
