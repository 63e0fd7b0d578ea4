"""Authorizers made of authorizers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_protocol.messages import Pending
from est_server.device_records import Registration
from est_server.interfaces import Authorizer, ClientIdentity, EnrollmentRequest, IssuanceGrant
from est_server.quotas import merged as merged_quotas

#: Refusals from the least to the most telling; what is not named here tells more than these.
_LEAST_TELLING = (
    RefusalReason.AUTHENTICATION_REQUIRED,
    RefusalReason.CERTIFICATE_NOT_TRUSTED,
    RefusalReason.UNKNOWN_DEVICE,
    RefusalReason.NOT_AUTHORIZED,
)


def all_of(*authorizers: Authorizer) -> Authorizer:
    """Grants what every one of ``authorizers`` grants.

    They are asked in order; the first that refuses, or says "not yet", has spoken for all. They
    must grant to the same device. The names are those of the first, the validity is the shortest,
    a key that one of them insists on is insisted on, what one of them counts is counted, and the
    approval that one of them wants is wanted, on the terms of the first that does, and a device
    that one of them registers is registered.

    :raises ConfigurationError: there are none.
    """
    _require_some(authorizers)

    async def authorize(
        request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant | Pending:
        merged: IssuanceGrant | None = None
        for authorizer in authorizers:
            decision = await authorizer(request, client)
            if isinstance(decision, Pending):
                return decision
            if not isinstance(decision, IssuanceGrant):
                raise TypeError(f"an authorizer returned {type(decision).__name__}")
            merged = decision if merged is None else _merge(merged, decision)
        assert merged is not None
        return merged

    return authorize


def first_of(*authorizers: Authorizer) -> Authorizer:
    """Grants what the first of ``authorizers`` grants that does not refuse.

    Only a refusal leads to the next one; "not yet" is an answer, and an error is an error. If all
    refuse, the most telling refusal is given, with the details of all.

    :raises ConfigurationError: there are none.
    """
    _require_some(authorizers)

    async def authorize(
        request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant | Pending:
        refusals: list[RequestRefused] = []
        for authorizer in authorizers:
            try:
                return await authorizer(request, client)
            except RequestRefused as refused:
                refusals.append(refused)
        raise _most_telling(refusals)

    return authorize


def _require_some(authorizers: tuple[Authorizer, ...]) -> None:
    # Nobody refuses in an empty company, so it must not come together.
    if not authorizers:
        raise ConfigurationError("a combination of authorizers needs at least one")


def _merge(one: IssuanceGrant, other: IssuanceGrant) -> IssuanceGrant:
    if one.device != other.device:
        raise RequestRefused(
            RefusalReason.IDENTITY_MISMATCH,
            "the credentials presented belong to different devices",
            detail=f"{one.device} and {other.device}",
        )
    keys = {key for key in (one.key_sha256, other.key_sha256) if key is not None}
    if len(keys) > 1:
        raise RequestRefused(
            RefusalReason.KEY_NOT_ALLOWED,
            "no key satisfies all that is asked of it",
            device=one.device,
        )
    secrets = {number for number in (one.secret, other.secret) if number is not None}
    if len(secrets) > 1:
        raise RequestRefused(
            RefusalReason.NOT_AUTHORIZED,
            "one certificate is not issued for two one-time secrets",
            device=one.device,
        )
    return replace(
        one,
        secret=secrets.pop() if secrets else None,
        quotas=merged_quotas(one.quotas + other.quotas),
        approval=one.approval or other.approval,
        registration=_registration(one, other),
        validity=_shortest(one.validity, other.validity),
        key_sha256=keys.pop() if keys else None,
        reasons=one.reasons + other.reasons,
    )


def _registration(one: IssuanceGrant, other: IssuanceGrant) -> Registration | None:
    """What a birth certificate says comes before that somebody let the device in."""
    found = [grant.registration for grant in (one, other) if grant.registration is not None]
    return min(found, key=lambda new: new.device.is_unlisted, default=None)


def _shortest(one: timedelta | None, other: timedelta | None) -> timedelta | None:
    given = [validity for validity in (one, other) if validity is not None]
    return min(given, default=None)


def _most_telling(refusals: list[RequestRefused]) -> RequestRefused:
    def tells(refused: RequestRefused) -> int:
        if refused.reason in _LEAST_TELLING:
            return _LEAST_TELLING.index(refused.reason)
        return len(_LEAST_TELLING)

    chosen = max(refusals, key=tells)
    details = [f"{r.reason.value}: {r.detail or r.sentence}" for r in refusals]
    return RequestRefused(
        chosen.reason,
        chosen.sentence,
        detail="; ".join(details),
        retry_after=chosen.retry_after,
        device=chosen.device,
    )
