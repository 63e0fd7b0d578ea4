"""Authorization of users whom HTTP authentication knows, such as those of a provisioning line.

What this protects against: whoever does not know a user's password. What it does not protect
against: a user who enrolls devices for other ends; the map says which devices each one has.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from est_protocol.errors import RefusalReason, RequestRefused
from est_server.authorization.known_users import grant_renewal, grant_to_user
from est_server.interfaces import ClientIdentity, DeviceRegistry, EnrollmentRequest, IssuanceGrant
from est_server.user_credentials import CredentialsVerifier


class AnyDevice(Enum):
    """What a user may enroll who has no single device."""

    LISTED = "listed"


class HttpUserAuthorizer:
    """Grants the label's profile to the devices of users.

    :param registry: the devices.
    :param verifier: the one that must have verified the user, which is the label's own.
    :param users: for each user name the UDID of its device, or :attr:`AnyDevice.LISTED`; who is
        not in here gets nothing. The empty name is a name like others.
    :param unlisted: grant to the devices in ``users`` even if they are not on the list; they are
        registered with their first enrollments.
    """

    def __init__(
        self,
        registry: DeviceRegistry,
        verifier: CredentialsVerifier,
        users: Mapping[str, str | AnyDevice],
        *,
        unlisted: bool = False,
    ) -> None:
        self._registry = registry
        self._verifier = verifier
        self._users = dict(users)
        self._unlisted = unlisted

    async def __call__(
        self, request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant:
        """See :class:`~est_server.interfaces.Authorizer`."""
        renewal = await grant_renewal(self._registry, request, client, unlisted=self._unlisted)
        if renewal is not None:
            return renewal
        user = client.http_user
        if user is None or user.verifier is not self._verifier:
            raise RequestRefused(
                RefusalReason.AUTHENTICATION_REQUIRED, "HTTP authentication is required"
            )
        device = self._users.get(user.name)
        if device is None:
            raise RequestRefused(
                RefusalReason.NOT_AUTHORIZED, "this user has no device here", detail=str(user)
            )
        named = device if isinstance(device, str) else None
        return await grant_to_user(
            self._registry,
            request,
            device=named,
            unlisted="http-user" if self._unlisted and named is not None else None,
            reason=str(user),
        )
