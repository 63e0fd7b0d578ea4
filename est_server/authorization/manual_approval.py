"""Authorization by an operator who looks at each first enrollment.

What this protects against: everything that a person notices who compares the key's fingerprint
with what the factory, the installer or the device itself says. Whoever takes an approved key's
certificate has to have the key: an approval is for one request, for one key, once.

What it does not protect against: operators who approve without comparing; a key that was copied
before; and, where nothing else is asked for, strangers who fill the queue up to its bound and so
keep others waiting. Renewals are not looked at: the certificate that was approved is enough.
"""

from __future__ import annotations

from dataclasses import replace

from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import Pending
from est_server.approvals import ApprovalTerms
from est_server.authorization.known_users import grant_renewal, grant_to_user
from est_server.interfaces import (
    Authorizer,
    ClientIdentity,
    DeviceRegistry,
    EnrollmentRequest,
    IssuanceGrant,
)


class ManualApproval:
    """Grants what another authorizer grants, once an operator has approved it.

    Until then the answer is "not yet", and the request is in the queue of ``est-server approvals``.
    It is recognized over new connections, by new CSRs, and after a restart of either end, as long
    as client, device, label and key are the same. What the other one refuses never gets into the
    queue.

    :param authorizer: decides who may ask; see :class:`KeyHolders` for "anybody with a key".
    :param terms: for how long, how many.
    """

    def __init__(self, authorizer: Authorizer, terms: ApprovalTerms | None = None) -> None:
        self._authorizer = authorizer
        self._terms = terms or ApprovalTerms()

    async def __call__(
        self, request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant | Pending:
        """See :class:`~est_server.interfaces.Authorizer`."""
        decision = await self._authorizer(request, client)
        if not isinstance(decision, IssuanceGrant):
            return decision
        return replace(decision, approval=self._terms)


class KeyHolders:
    """Grants the label's profile to whoever proves to hold a key, listed or not.

    It protects against nothing, and is there for :class:`ManualApproval` to ask. The device is the
    one that the registry knows by the key that is to be certified, or else one with that key's
    SHA-256 as UDID, which is registered with its first enrollment; only a key that was proved on
    the channel is certified.

    :param registry: the devices.
    """

    def __init__(self, registry: DeviceRegistry) -> None:
        self._registry = registry

    async def __call__(
        self, request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant:
        """See :class:`~est_server.interfaces.Authorizer`."""
        renewal = await grant_renewal(self._registry, request, client, unlisted=True)
        if renewal is not None:
            return renewal
        key = request.key_sha256
        if key is None:
            raise RequestRefused(
                RefusalReason.AUTHENTICATION_REQUIRED,
                "for a key that the server makes, an operational certificate is required here",
            )
        if client.registration_authority is None and key not in client.proven_keys:
            raise RequestRefused(
                RefusalReason.AUTHENTICATION_REQUIRED,
                "present a certificate for the key, or link the request to this channel",
            )
        return await grant_to_user(
            self._registry, request, device=None, unlisted="approval", reason="holds the key"
        )
