"""Extension points and values of what a client knows, beside the key that it holds.

A secret comes as HTTP Basic or Digest (RFC 7030 section 3.2.3) or as an otpChallenge in the CSR
(RFC 7894 section 3.1). It says who asks; that the asker holds the CSR's key is not said by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from est_protocol.http_authentication import DigestAlgorithm
from est_protocol.operations import Operation


class UserProof(StrEnum):
    """How a client proved to know a secret."""

    BASIC = "basic"
    DIGEST_SHA_256 = "digest-sha-256"
    DIGEST_MD5 = "digest-md5"
    OTP_CHALLENGE = "otp-challenge"


class CredentialsVerifier(Protocol):
    """Knows the secrets of users; never tells them.

    The service bounds how often it asks, per user and per client address. Raise
    :class:`~est_protocol.errors.RequestRefused` to refuse with a reason of your own.
    """

    async def check_password(self, user: str, password: str) -> bool:
        """Whether this is the user's password; in constant time, for unknown users too.

        :param user: in NFC, may be empty (RFC 7030 section 3.2.3).
        :param password: in NFC.
        """
        ...

    async def digest_secret(self, user: str, realm: str, algorithm: DigestAlgorithm) -> str | None:
        """``H(user:realm:password)`` in hex (RFC 7616 section 3.4.2).

        :return: ``None`` if the user is unknown or the secret is not kept in this form.
        """
        ...


@dataclass(frozen=True, slots=True)
class VerifiedUser:
    """A user whose secret the client knows.

    :param name: the user name; may be empty.
    :param proof: how that was shown.
    :param verifier: who knows the user; equal names at two verifiers are two users.
    """

    name: str
    proof: UserProof
    verifier: CredentialsVerifier = field(repr=False)

    def __str__(self) -> str:
        """For the audit trail."""
        return f"user {self.name!r} by {self.proof.value}"


class UserRequirement(StrEnum):
    """How HTTP authentication and the channel's go together, where HTTP's is offered at all.

    ``HTTP``: HTTP credentials are necessary and enough. ``BOTH``: they are necessary beside a
    client certificate that verifies, or a listed key that is proved by a certificate or by a CSR
    that is linked to the channel; anybody can make a certificate that is neither. ``EITHER``: each
    is enough; who has neither is asked for HTTP credentials.

    On CoAPS, which has no HTTP authentication, the first two want the secret as otpChallenge, and
    of the same verifier.
    """

    HTTP = "http"
    BOTH = "both"
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class HttpAuthentication:
    """What a label asks of clients by HTTP authentication.

    :param verifier: knows the users.
    :param required: what it is asked for.
    :param realm: shown to clients, and part of what Digest hashes.
    :param basic: take Basic.
    :param digest: take Digest with these algorithms, the best first; MD5 is for peers that know
        nothing else.
    :param renewals: ask at renewals too, where the certificate being renewed is enough otherwise
        (RFC 7030 section 6: such credentials are best used once).
    :param quoted_challenges: write Digest's challenges for clients that read every value in quotes
        and no charset.
    """

    verifier: CredentialsVerifier
    required: UserRequirement = UserRequirement.EITHER
    realm: str = "EST"
    basic: bool = True
    digest: tuple[DigestAlgorithm, ...] = (DigestAlgorithm.SHA_256,)
    renewals: bool = False
    quoted_challenges: bool = False

    def is_necessary_for(self, operation: Operation) -> bool:
        """Whether nothing else is enough at ``operation``."""
        return self.required is not UserRequirement.EITHER and self.concerns(operation)

    def concerns(self, operation: Operation) -> bool:
        """Whether clients are asked at ``operation``."""
        if operation is Operation.SIMPLEREENROLL:
            return self.renewals
        return operation.enrolls


@dataclass(frozen=True, slots=True)
class EnrollmentSecret:
    """A secret that is good for a number of first enrollments.

    :param number: identifies it for ever; 0 before it is stored.
    :param name: what the client sends beside it.
    :param hash: a slow hash of it, see :mod:`est_server.authorization.secret_hashes`.
    :param device: UDID of the device that it is for, ``None`` if devices share it.
    :param max_uses: certificates that it is good for.
    :param expires_at: when it ends, ``None`` for never.
    :param uses: certificates that were issued or are being issued for it.
    """

    name: str
    hash: str = field(repr=False)
    device: str | None = None
    max_uses: int = 1
    expires_at: datetime | None = None
    number: int = 0
    uses: int = 0


class SecretRegistry(Protocol):
    """The store of one-time secrets; a use is counted by the ledger, together with the claim."""

    async def find_secret(self, name: str) -> EnrollmentSecret | None:
        """The secret of this name."""
        ...

    async def add_secret(self, secret: EnrollmentSecret, *, now: datetime) -> EnrollmentSecret:
        """Store a secret; returns it with its number.

        :raises KeyError: there is one of that name.
        """
        ...

    async def remove_secret(self, name: str) -> bool:
        """Remove a secret; whether there was one."""
        ...

    async def secrets(self) -> Sequence[EnrollmentSecret]:
        """All of them, by name."""
        ...
