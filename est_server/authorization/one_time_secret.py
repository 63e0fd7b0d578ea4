"""Authorization by a secret that is good for so many first enrollments, and for so long.

What this protects against: devices that nobody gave a secret to, and secrets that leak after they
were used or have expired. What it does not protect against: whoever learns a secret in time
enrolls in the device's place, with a key of its own where the device is not listed.
"""

from __future__ import annotations

from dataclasses import replace

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.http_authentication import DigestAlgorithm
from est_server.authorization.known_users import grant_renewal, grant_to_user
from est_server.authorization.secret_hashes import SlowChecks
from est_server.interfaces import ClientIdentity, DeviceRegistry, EnrollmentRequest, IssuanceGrant
from est_server.user_credentials import SecretRegistry, VerifiedUser


class OneTimeSecrets:
    """Verifies one-time secrets, and grants the label's profile for them.

    Both a :class:`~est_server.user_credentials.CredentialsVerifier`, for HTTP Basic and for
    otpChallenges, and an :class:`~est_server.interfaces.Authorizer` that grants to those whom it
    verified itself. The name that goes with a secret is sent as the user name. Only slow hashes
    are kept, so Digest cannot be served.

    Expiry and number of uses are the ledger's to judge, in one step with the claim: a retry after
    a lost answer finds its certificate although its secret is used up. A certificate that this
    server issued is enough to renew it.

    :param registry: the devices.
    :param secrets: the store of the secrets.
    :param unlisted: grant to devices too that are not on the list: to the one that a secret is
        for, or else to one with the key's SHA-256 as UDID. It is registered with its first
        enrollment.
    :param checks: how many secrets are checked at one time.
    """

    def __init__(
        self,
        registry: DeviceRegistry,
        secrets: SecretRegistry,
        *,
        unlisted: bool = False,
        checks: SlowChecks | None = None,
    ) -> None:
        self._registry = registry
        self._secrets = secrets
        self._unlisted = unlisted
        self._checks = checks or SlowChecks()

    async def check_password(self, user: str, password: str) -> bool:
        """See :class:`~est_server.user_credentials.CredentialsVerifier`."""
        secret = await self._secrets.find_secret(user)
        return await self._checks.matches(password, secret.hash if secret else None)

    async def digest_secret(self, user: str, realm: str, algorithm: DigestAlgorithm) -> str | None:
        """``None``: a slow hash is of no use to Digest."""
        return None

    async def __call__(
        self, request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant:
        """See :class:`~est_server.interfaces.Authorizer`."""
        renewal = await grant_renewal(self._registry, request, client, unlisted=self._unlisted)
        if renewal is not None:
            return renewal
        user = self._user(client)
        secret = await self._secrets.find_secret(user.name)
        if secret is None:
            raise RequestRefused(
                RefusalReason.SECRET_USED_UP,
                "the secret is not good any more",
                detail=f"{user}: the secret was removed a moment ago",
            )
        grant = await grant_to_user(
            self._registry,
            request,
            device=secret.device,
            unlisted="one-time-secret" if self._unlisted else None,
            reason=f"one-time secret: {user}",
        )
        return replace(grant, secret=secret.number)

    def _user(self, client: ClientIdentity) -> VerifiedUser:
        found = [u for u in (client.http_user, client.otp_user) if u and u.verifier is self]
        if not found:
            raise RequestRefused(
                RefusalReason.AUTHENTICATION_REQUIRED, "a one-time secret is required"
            )
        if len({user.name for user in found}) > 1:
            raise RequestRefused(
                RefusalReason.IDENTITY_MISMATCH,
                "the credentials presented belong to different devices",
                detail=" and ".join(map(str, found)),
            )
        return found[0]
