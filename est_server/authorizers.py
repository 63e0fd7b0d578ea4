"""From the names of authorizers in the configuration to the one that decides for a label."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence

from est_protocol.errors import ConfigurationError
from est_server.approvals import ApprovalTerms
from est_server.authorization.combinators import all_of, first_of
from est_server.authorization.device_list import DeviceListAuthorizer
from est_server.authorization.manual_approval import KeyHolders, ManualApproval
from est_server.config.settings import Combination, LabelSettings
from est_server.interfaces import Authorizer, DeviceRegistry
from est_server.label_users import HTTP_USER, ONE_TIME_SECRET, LabelUsers
from est_server.quotas import DeviceQuotas

DEVICE_LIST = "device-list"
APPROVAL = "approval"


def make_authorizer(
    settings: LabelSettings, registry: DeviceRegistry, users: LabelUsers
) -> Authorizer:
    """The authorizer that ``settings`` describes.

    :param users: who knows the users of the label.

    :raises ConfigurationError: none is named, or one that does not exist.
    """
    if not settings.authorizers:
        raise ConfigurationError(
            f'none is named, and there is no default; ["{DEVICE_LIST}"] grants to the devices of '
            "imported lists"
        )
    _require_heeded(settings)
    if settings.combination is Combination.FIRST_OF:
        return _combined(first_of, settings.authorizers, settings, registry, users)
    others = [name for name in settings.authorizers if name != APPROVAL]
    if not others:
        return _make_one(APPROVAL, settings, registry, users)
    together = _combined(all_of, others, settings, registry, users)
    if APPROVAL not in settings.authorizers:
        return together
    return ManualApproval(together, settings.approval)


def _require_heeded(settings: LabelSettings) -> None:
    """Check that no bound was set that nobody heeds.

    :raises ConfigurationError: one was.
    """
    heeding = {
        "quotas": (DEVICE_LIST, settings.quotas != DeviceQuotas()),
        "approval": (APPROVAL, settings.approval != ApprovalTerms()),
    }
    for table, (name, is_set) in heeding.items():
        if is_set and name not in settings.authorizers:
            raise ConfigurationError(f"{table} is set, but {name} is not among them")


def _combined(
    combine: Callable[..., Authorizer],
    names: Sequence[str],
    settings: LabelSettings,
    registry: DeviceRegistry,
    users: LabelUsers,
) -> Authorizer:
    made = [_make_one(name, settings, registry, users) for name in names]
    return combine(*made) if len(made) > 1 else made[0]


def _make_one(
    name: str, settings: LabelSettings, registry: DeviceRegistry, users: LabelUsers
) -> Authorizer:
    if name == DEVICE_LIST:
        proof = settings.device_list
        return DeviceListAuthorizer(
            registry,
            birth_certificates=proof.birth_certificates,
            bare_keys=proof.bare_keys,
            expired_birth_certificates=proof.expired_birth_certificates,
            owners=settings.allowed_owners,
            quotas=settings.quotas,
        )
    if name == APPROVAL:
        return ManualApproval(KeyHolders(registry), settings.approval)
    if name == ONE_TIME_SECRET:
        return users.secrets_authorizer()
    if name == HTTP_USER:
        return users.http_user_authorizer()
    if ":" in name:
        return _import(name)
    raise ConfigurationError(
        f"no authorizer {name!r}: neither {DEVICE_LIST}, {ONE_TIME_SECRET}, {HTTP_USER}, "
        f"{APPROVAL} nor "
        "module:function"
    )


def _import(name: str) -> Authorizer:
    module_name, _, function = name.partition(":")
    try:
        authorizer: Authorizer = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"no authorizer {name!r}: {error}") from error
    is_async = inspect.iscoroutinefunction(authorizer) or inspect.iscoroutinefunction(
        getattr(authorizer, "__call__", None)  # noqa: B004
    )
    if not is_async:
        raise ConfigurationError(f"authorizer {name!r} is no async function")
    return authorizer
