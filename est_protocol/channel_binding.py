"""Channel binding values and their place in a CSR (RFC 7030 section 3.5, RFC 9266)."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from enum import StrEnum


class ChannelBindingType(StrEnum):
    """How the binding was derived.

    ``TLS_UNIQUE`` (RFC 5929 section 3) is the first Finished message of the handshake on TLS and
    DTLS 1.2: 12 octets. ``TLS_EXPORTER`` (RFC 9266 section 2) is 32 octets of keying material on
    TLS 1.3, where tls-unique is not defined.
    """

    TLS_UNIQUE = "tls-unique"
    TLS_EXPORTER = "tls-exporter"


#: RFC 9266 section 2; the context is present and of length zero, the output 32 octets.
EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
EXPORTER_LENGTH = 32


@dataclass(frozen=True, slots=True)
class ChannelBinding:
    """The binding of one (D)TLS channel."""

    type: ChannelBindingType
    value: bytes

    def challenge_password(self) -> str:
        """The text for a CSR's challengePassword: base64 of the value (RFC 7030 section 3.5)."""
        return base64.b64encode(self.value).decode("ascii")

    def matches(self, challenge_password: str) -> bool:
        """Whether a CSR's challengePassword carries this very binding, in constant time.

        The texts are compared, so that base64 in any other form than the canonical one, and
        an enrollment secret in the wrong place, does not match.
        """
        claimed = challenge_password.encode("utf-8", "replace")
        return hmac.compare_digest(claimed, self.challenge_password().encode("ascii"))
