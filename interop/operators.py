"""People at the server under test: users with passwords, and one who approves requests."""

from __future__ import annotations

import hmac

from est_protocol import digest_authentication
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.http_authentication import DigestAlgorithm
from est_protocol.messages import Pending
from est_server.interfaces import ClientIdentity, EnrollmentRequest, IssuanceGrant

#: The one user that the server knows.
USER, PASSWORD = "operator", "made-up-password"

#: How many requests that wait for approval are remembered.
_REMEMBERED = 1000


class Users:
    """Knows :data:`USER`, for Basic and for Digest."""

    async def check_password(self, user: str, password: str) -> bool:
        """Whether ``password`` is the user's."""
        known = hmac.compare_digest(password.encode(), PASSWORD.encode())
        return known and user == USER

    async def digest_secret(self, user: str, realm: str, algorithm: DigestAlgorithm) -> str | None:
        """``H(A1)`` of the user, or ``None`` for anybody else."""
        if user != USER:
            return None
        return digest_authentication.user_secret(algorithm, user, realm, PASSWORD)


USERS = Users()

#: Keys that were told "not yet", in the order in which they came.
_waiting: dict[bytes, None] = {}


async def approve_a_second_later(
    request: EnrollmentRequest, client: ClientIdentity, /
) -> IssuanceGrant | Pending:
    """Say "not before a second" to the first request for a key, and nothing to the second.

    :raises RequestRefused: it was asked for before; for the combination ``first-of``.
    """
    key = request.csr.key_sha256
    if key in _waiting:
        raise RequestRefused(RefusalReason.NOT_AUTHORIZED, "the operator has no objection")
    _waiting[key] = None
    if len(_waiting) > _REMEMBERED:
        del _waiting[next(iter(_waiting))]
    return Pending(1)
