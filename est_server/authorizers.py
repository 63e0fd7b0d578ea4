"""From the names of authorizers in the configuration to the one that decides for a label."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import cast

from cryptography import x509

from est_protocol.errors import ConfigurationError
from est_server.approvals import ApprovalTerms
from est_server.authorization.birth_certificate import BirthCertificateAuthorizer
from est_server.authorization.combinators import all_of, first_of
from est_server.authorization.device_list import DeviceListAuthorizer
from est_server.authorization.manual_approval import KeyHolders, ManualApproval
from est_server.birth_certificates import BirthCertificateSettings, ProvisioningPolicy
from est_server.config.settings import Combination, LabelSettings
from est_server.interfaces import Authorizer, DeviceRegistry
from est_server.label_users import HTTP_USER, ONE_TIME_SECRET, LabelUsers
from est_server.quotas import DeviceQuotas

DEVICE_LIST = "device-list"
BIRTH_CERTIFICATE = "birth-certificate"
APPROVAL = "approval"

Manufacturers = Mapping[str, Sequence[x509.Certificate]]


def make_authorizer(
    settings: LabelSettings,
    registry: DeviceRegistry,
    users: LabelUsers,
    manufacturers: Manufacturers,
) -> Authorizer:
    """The authorizer that ``settings`` describes.

    :param users: who knows the users of the label.
    :param manufacturers: the certificates of each manufacturer, by its name.
    :raises ConfigurationError: none is named, or one that does not exist.
    """
    if not settings.authorizers:
        raise ConfigurationError(
            f'none is named, and there is no default; ["{DEVICE_LIST}"] grants to the devices of '
            "imported lists"
        )
    _require_heeded(settings)

    def make(name: str) -> Authorizer:
        return _make_one(name, settings, registry, users, manufacturers)

    if settings.combination is Combination.FIRST_OF:
        return first_of(*map(make, settings.authorizers))
    others = [name for name in settings.authorizers if name != APPROVAL]
    if not others:
        return make(APPROVAL)
    together = all_of(*map(make, others))
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
        "birth_certificate": (BIRTH_CERTIFICATE, settings.birth_certificate is not None),
    }
    for table, (name, is_set) in heeding.items():
        if is_set and name not in settings.authorizers:
            raise ConfigurationError(f"{table} is set, but {name} is not among them")


def _make_one(
    name: str,
    settings: LabelSettings,
    registry: DeviceRegistry,
    users: LabelUsers,
    manufacturers: Manufacturers,
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
    if name == BIRTH_CERTIFICATE:
        rules = settings.birth_certificate or BirthCertificateSettings()
        policy = None if rules.policy is None else cast(ProvisioningPolicy, _import(rules.policy))
        return BirthCertificateAuthorizer(registry, manufacturers, rules, policy=policy)
    if name == APPROVAL:
        return ManualApproval(KeyHolders(registry), settings.approval)
    if name == ONE_TIME_SECRET:
        return users.secrets_authorizer()
    if name == HTTP_USER:
        return users.http_user_authorizer()
    if ":" in name:
        return cast(Authorizer, _import(name))
    raise ConfigurationError(
        f"no authorizer {name!r}: neither {DEVICE_LIST}, {BIRTH_CERTIFICATE}, {ONE_TIME_SECRET}, "
        f"{HTTP_USER}, {APPROVAL} nor module:function"
    )


def _import(name: str) -> object:
    """An ``async def``, or an object that can be called like one."""
    module_name, _, function = name.partition(":")
    try:
        found: object = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"no authorizer {name!r}: {error}") from error
    is_async = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(
        getattr(found, "__call__", None)  # noqa: B004
    )
    if not is_async:
        raise ConfigurationError(f"authorizer {name!r} is no async function")
    return found
