"""Every error that crosses a package boundary, and its status on either transport.

    EstError
    +-- MessageError        octets from the network that do not decode
    +-- RequestRefused      the server's answer is no; carries a RefusalReason
    +-- ServerRefused       a client was told no; carries what the server said
    +-- StillPending        a client was told "not yet" for longer than it may wait
    +-- CertificateRejected a client does not take the certificate that it was given
    +-- ChannelError        the (D)TLS channel could not be made or was lost
    |   +-- HandshakeFailed     the peer, or we, ended the handshake
    |   +-- PeerNotTrusted      the peer's certificate is not good enough
    |   +-- ChannelClosed       the channel ended before the answer was complete
    +-- ConfigurationError  an option or a file of the operator is wrong

Decoders of network octets raise :class:`MessageError` and nothing else. An exception outside
this tree is a bug: it becomes 500 / 5.00 with no detail on the wire and a full log entry.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class EstError(Exception):
    """Base of all errors of this distribution."""


class MessageError(EstError):
    """Octets from the network that are not what they should be.

    ``str(error)`` is a sentence that is safe to send to the peer.
    """


class ServerRefused(EstError):
    """The server refused a client's request.

    :param status: the HTTP status or CoAP code as it is written, such as ``403`` or ``4.03``.
    :param explanation: the server's words, sanitized to printable characters; may be empty.
    :param retry_after: seconds after which the server invites a repeat, if it said so.
    :param challenges: the values of WWW-Authenticate that came with it.
    """

    def __init__(
        self,
        status: str,
        explanation: str,
        *,
        retry_after: int | None = None,
        challenges: tuple[str, ...] = (),
    ) -> None:
        super().__init__(f"{status}: {explanation}" if explanation else status)
        self.status = status
        self.explanation = explanation
        self.retry_after = retry_after
        self.challenges = challenges


class StillPending(EstError):
    """The server has not decided within the time that the caller gave.

    :param retry_after: seconds after which the server invites a repeat.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the request is pending; the server asks to repeat it in {retry_after} s")
        self.retry_after = retry_after


class CertificateRejected(EstError):
    """The certificate that the server issued is not one that the client may use."""


class ChannelError(EstError):
    """The secure channel could not be established or ended early."""


class HandshakeFailed(ChannelError):
    """The (D)TLS handshake did not complete."""


class PeerNotTrusted(ChannelError):
    """The peer's certificate did not verify, or names somebody else."""


class ChannelClosed(ChannelError):
    """The channel ended before the exchange was complete."""


class ConfigurationError(EstError):
    """The operator's configuration, option or file is wrong; the message says which."""


class Status(NamedTuple):
    """The status of one refusal on either transport.

    ``http`` is the HTTP status code; ``coap`` the CoAP response code as its two numbers,
    class and detail (RFC 7252 section 12.1.2).
    """

    http: int
    coap: tuple[int, int]


class RefusalReason(StrEnum):
    """Stable codes for every reason to refuse a request.

    The code goes to logs, the ledger and metrics and never changes its meaning; the sentence
    beside it in :class:`RequestRefused` is for people and may.
    """

    MALFORMED_REQUEST = "malformed-request"
    MALFORMED_BODY = "malformed-body"
    MALFORMED_CSR = "malformed-csr"
    BAD_OPTION = "bad-option"
    BODY_TOO_LARGE = "body-too-large"
    BLOCKS_INCOMPLETE = "blocks-incomplete"
    REQUEST_TIMEOUT = "request-timeout"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    NOT_ACCEPTABLE = "not-acceptable"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    UNKNOWN_OPERATION = "unknown-operation"
    UNKNOWN_LABEL = "unknown-label"
    POP_FAILED = "proof-of-possession-failed"
    POP_LINKING_REQUIRED = "pop-linking-required"
    POP_LINKING_FAILED = "pop-linking-failed"
    KEY_NOT_ALLOWED = "key-not-allowed"
    KEY_COMPROMISED = "key-compromised"
    CSR_ATTRIBUTES_MISSING = "csr-attributes-missing"
    KEY_PROTECTION_REQUIRED = "key-protection-required"
    KEY_PROTECTION_IMPOSSIBLE = "key-protection-impossible"
    DECRYPT_KEY_UNKNOWN = "decrypt-key-unknown"
    AUTHENTICATION_REQUIRED = "authentication-required"
    CREDENTIALS_WRONG = "credentials-wrong"
    TOO_MANY_ATTEMPTS = "too-many-attempts"
    SECRET_USED_UP = "secret-used-up"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_REVOKED = "certificate-revoked"
    CERTIFICATE_SUPERSEDED = "certificate-superseded"
    CERTIFICATE_UNKNOWN = "certificate-unknown"
    UNKNOWN_DEVICE = "unknown-device"
    DEVICE_NOT_ACTIVE = "device-not-active"
    DEVICE_QUARANTINED = "device-quarantined"
    ALREADY_CLAIMED = "already-claimed"
    QUOTA_EXCEEDED = "quota-exceeded"
    APPROVAL_DENIED = "approval-denied"
    IDENTITY_MISMATCH = "identity-mismatch"
    NOT_AUTHORIZED = "not-authorized"
    AUTHORIZER_UNAVAILABLE = "authorizer-unavailable"
    AUTHORITY_UNAVAILABLE = "authority-unavailable"
    TRY_LATER = "try-later"
    STORE_UNAVAILABLE = "store-unavailable"
    RECORD_TAMPERED = "record-tampered"
    INTERNAL_ERROR = "internal-error"


_BAD_REQUEST = Status(400, (4, 0))
_UNAUTHORIZED = Status(401, (4, 1))
_FORBIDDEN = Status(403, (4, 3))
_NOT_FOUND = Status(404, (4, 4))
_SERVER_ERROR = Status(500, (5, 0))
_TOO_MANY = Status(429, (4, 29))
_UNAVAILABLE = Status(503, (5, 3))

#: RFC 9148 section 4.5 pairs the codes; RFC 8075 section 7 supplies what it leaves out.
STATUS: dict[RefusalReason, Status] = {
    RefusalReason.MALFORMED_REQUEST: _BAD_REQUEST,
    RefusalReason.MALFORMED_BODY: _BAD_REQUEST,
    RefusalReason.MALFORMED_CSR: _BAD_REQUEST,
    RefusalReason.BAD_OPTION: Status(400, (4, 2)),
    RefusalReason.BODY_TOO_LARGE: Status(413, (4, 13)),
    RefusalReason.BLOCKS_INCOMPLETE: Status(400, (4, 8)),
    RefusalReason.REQUEST_TIMEOUT: Status(408, (4, 8)),
    RefusalReason.UNSUPPORTED_MEDIA_TYPE: Status(415, (4, 15)),
    RefusalReason.NOT_ACCEPTABLE: Status(406, (4, 6)),
    RefusalReason.METHOD_NOT_ALLOWED: Status(405, (4, 5)),
    RefusalReason.UNKNOWN_OPERATION: _NOT_FOUND,
    RefusalReason.UNKNOWN_LABEL: _NOT_FOUND,
    RefusalReason.POP_FAILED: _BAD_REQUEST,
    RefusalReason.POP_LINKING_REQUIRED: _FORBIDDEN,
    RefusalReason.POP_LINKING_FAILED: _FORBIDDEN,
    RefusalReason.KEY_NOT_ALLOWED: _FORBIDDEN,
    RefusalReason.KEY_COMPROMISED: _FORBIDDEN,
    RefusalReason.CSR_ATTRIBUTES_MISSING: _BAD_REQUEST,
    RefusalReason.KEY_PROTECTION_REQUIRED: _FORBIDDEN,
    RefusalReason.KEY_PROTECTION_IMPOSSIBLE: _FORBIDDEN,
    RefusalReason.DECRYPT_KEY_UNKNOWN: _FORBIDDEN,
    # HTTP 401 promises a WWW-Authenticate challenge (RFC 9110 section 15.5.2), so a refusal is
    # 401 exactly if it carries one; CoAP's 4.01 promises nothing.
    RefusalReason.AUTHENTICATION_REQUIRED: Status(403, (4, 1)),
    RefusalReason.CREDENTIALS_WRONG: _FORBIDDEN,
    RefusalReason.TOO_MANY_ATTEMPTS: _TOO_MANY,
    RefusalReason.SECRET_USED_UP: _FORBIDDEN,
    RefusalReason.CERTIFICATE_NOT_TRUSTED: _FORBIDDEN,
    RefusalReason.CERTIFICATE_EXPIRED: _FORBIDDEN,
    RefusalReason.CERTIFICATE_REVOKED: _FORBIDDEN,
    RefusalReason.CERTIFICATE_SUPERSEDED: _FORBIDDEN,
    RefusalReason.CERTIFICATE_UNKNOWN: _FORBIDDEN,
    RefusalReason.UNKNOWN_DEVICE: _FORBIDDEN,
    RefusalReason.DEVICE_NOT_ACTIVE: _FORBIDDEN,
    RefusalReason.DEVICE_QUARANTINED: _FORBIDDEN,
    RefusalReason.ALREADY_CLAIMED: _FORBIDDEN,
    # Where it makes sense to come again, 429; see RequestRefused.status.
    RefusalReason.QUOTA_EXCEEDED: _FORBIDDEN,
    RefusalReason.APPROVAL_DENIED: _FORBIDDEN,
    RefusalReason.IDENTITY_MISMATCH: _FORBIDDEN,
    RefusalReason.NOT_AUTHORIZED: _FORBIDDEN,
    RefusalReason.AUTHORIZER_UNAVAILABLE: _UNAVAILABLE,
    RefusalReason.AUTHORITY_UNAVAILABLE: _UNAVAILABLE,
    RefusalReason.TRY_LATER: _UNAVAILABLE,
    RefusalReason.STORE_UNAVAILABLE: _UNAVAILABLE,
    RefusalReason.RECORD_TAMPERED: _SERVER_ERROR,
    RefusalReason.INTERNAL_ERROR: _SERVER_ERROR,
}


class RequestRefused(EstError):
    """The server refuses a request.

    :param reason: the stable code.
    :param sentence: what the peer is told; must give nothing away that the peer may not know.
    :param detail: what the log and the ledger are told beside it; never sent.
    :param retry_after: seconds after which a repeat makes sense (503 / 5.03, 429 / 4.29).
    :param device: UDID of the device that it is about, where known; for the log and the ledger.
    :param challenges: values for WWW-Authenticate; with any of them it is a 401 over HTTP.
    """

    def __init__(
        self,
        reason: RefusalReason,
        sentence: str,
        *,
        detail: str = "",
        retry_after: int | None = None,
        device: str | None = None,
        challenges: tuple[str, ...] = (),
    ) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.detail = detail
        self.retry_after = retry_after
        self.device = device
        self.challenges = challenges
        #: Name of the registration authority that the request came through, for the same.
        self.registration_authority: str | None = None

    @property
    def status(self) -> Status:
        """The HTTP and CoAP status of this refusal."""
        if self.reason is RefusalReason.QUOTA_EXCEEDED and self.retry_after is not None:
            return _TOO_MANY
        status = STATUS[self.reason]
        return status._replace(http=_UNAUTHORIZED.http) if self.challenges else status

    def __str__(self) -> str:
        return f"{self.reason}: {self.sentence}"
