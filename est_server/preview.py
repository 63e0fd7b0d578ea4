"""What would become of a request; see :meth:`est_server.service.EnrollmentService.preview`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from est_protocol.errors import RequestRefused
from est_protocol.messages import Pending
from est_server.decision import Decision
from est_server.ledger_records import IssuedCertificate


class PreviewedOutcome(StrEnum):
    """What would become of a request.

    ``REPEAT``: it is a retry, and is answered with what was issued to the first.
    """

    ISSUE = "issue"
    REPEAT = "repeat"
    PENDING = "pending"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Preview:
    """What would become of a request.

    :param decision: what was decided, as far as it came; there too if the ledger then refuses.
    :param refused: why it would be refused, by whomever.
    :param pending: it would have to wait.
    :param repeats: the certificate that it would be answered with again.
    """

    decision: Decision | None = None
    refused: RequestRefused | None = None
    pending: Pending | None = None
    repeats: IssuedCertificate | None = None

    @property
    def outcome(self) -> PreviewedOutcome:
        """In one word."""
        if self.refused is not None:
            return PreviewedOutcome.REFUSE
        if self.pending is not None:
            return PreviewedOutcome.PENDING
        return PreviewedOutcome.ISSUE if self.repeats is None else PreviewedOutcome.REPEAT
