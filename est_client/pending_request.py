"""What a device has asked for and not been answered yet, as it is kept across a restart."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from est_protocol.errors import ConfigurationError, MessageError
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that the server has put off (RFC 7030 section 4.2.3).

    :param operation: what was asked for.
    :param csr: the names that were asked for and the key, by which the server knows the request
        again; linked to no channel, and never sent: each channel gets a CSR of its own.
    :param asked_at: when the server put it off, timezone-aware.
    :param ask_again_at: the earliest time to ask again.
    """

    operation: Operation
    csr: CertificationRequest
    asked_at: datetime
    ask_again_at: datetime

    def is_for(self, operation: Operation, key_sha256: bytes) -> bool:
        """Whether the same operation was asked for the key with this SHA-256 (32 octets)."""
        return self.operation is operation and self.csr.key_sha256 == key_sha256

    def seconds_left(self, now: datetime) -> float:
        """Seconds until it may be asked again; none if the clock was set back meanwhile."""
        if now < self.asked_at:
            return 0.0
        return max(0.0, (self.ask_again_at - now).total_seconds())

    def encode(self) -> bytes:
        """The request as JSON."""
        value = {
            "operation": self.operation.value,
            "asked_at": self.asked_at.astimezone(UTC).isoformat(),
            "ask_again_at": self.ask_again_at.astimezone(UTC).isoformat(),
            "csr": base64.b64encode(self.csr.der).decode("ascii"),
        }
        return json.dumps(value, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, text: bytes, where: str) -> PendingRequest:
        """Read what :meth:`encode` has written.

        :param where: what to call it in an error.
        :raises ConfigurationError: it is something else.
        """
        try:
            value = json.loads(text)
            return cls(
                Operation(value["operation"]),
                CertificationRequest.decode(base64.b64decode(value["csr"], validate=True)),
                datetime.fromisoformat(value["asked_at"]).astimezone(UTC),
                datetime.fromisoformat(value["ask_again_at"]).astimezone(UTC),
            )
        except (
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
            MessageError,
        ) as error:
            raise ConfigurationError(f"{where} is damaged") from error
