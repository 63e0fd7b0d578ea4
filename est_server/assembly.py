"""From a configuration to the parts that it describes, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from est_protocol.chain import is_self_signed
from est_protocol.errors import ConfigurationError
from est_protocol.key_package import KeyGenerator
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors
from est_server.alarm_webhook import Webhook
from est_server.alarms import AlarmBell, AlarmSink, to_all
from est_server.anchors import load_anchors, load_manufacturers
from est_server.authorities.local import LocalAuthority
from est_server.authorities.signers.file import (
    FileSigner,
    passphrase_from_environment,
    read_private_key,
)
from est_server.authorization.secret_hashes import SlowChecks
from est_server.authorizers import DEVICE_LIST, make_authorizer
from est_server.coaps.server import CoapsEndpoint
from est_server.config import ServerConfig, label_table, load_config
from est_server.config.reader import Place
from est_server.config.settings import (
    AuthoritySettings,
    CoapsSettings,
    Combination,
    HttpsSettings,
    KeyGenerationSettings,
)
from est_server.crl_server import CrlEndpoint
from est_server.https import HttpsEndpoint, PlainHttpEndpoint, ProxyTrust
from est_server.https.peers import NO_PROXIES
from est_server.interfaces import Authorizer, Clock, LabelPolicy
from est_server.key_protection import KeyGenerationPolicy
from est_server.label_users import LabelUsers
from est_server.pem_files import load_certificates
from est_server.revocation.publisher import CrlPublisher
from est_server.service import EnrollmentService, SystemClock
from est_server.stores import opening
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.store import Store


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a configuration describes, ready to be served.

    :param service: answers requests of both transports.
    :param store: the devices, and everything that was asked and issued.
    :param https: where and how to serve HTTPS; ``None`` if it is not configured.
    :param coaps: where and how to serve CoAPS; ``None`` if it is not configured.
    :param crls: which CRLs to publish and where; ``None`` if it is not configured.
    :param proxied: where to serve TLS-terminating proxies over plain HTTP; ``None``: nowhere.
    :param proxies: whose word is taken for who the client is.
    """

    service: EnrollmentService
    store: Store
    https: HttpsEndpoint | None
    coaps: CoapsEndpoint | None
    crls: CrlEndpoint | None = None
    proxied: PlainHttpEndpoint | None = None
    proxies: ProxyTrust = NO_PROXIES


@asynccontextmanager
async def open_service(
    config: ServerConfig | Path | str,
    *,
    authorizer: Authorizer | None = None,
    alarm_sink: AlarmSink | None = None,
    clock: Clock | None = None,
    store: Store | None = None,
    processes: int = 1,
) -> AsyncIterator[Assembly]:
    """Put together what ``config`` describes; its store is open as long as the context lasts.

    :param config: a configuration, or the path of an ``est-server.toml``.
    :param authorizer: decides for every label, in place of the authorizers that the
        configuration names.
    :param alarm_sink: hears of alarms, beside the log and the webhook of the configuration.
    :param clock: the source of time; the machine's clock by default.
    :param store: the store, if it is open already; it stays so.
    :param processes: how many serve on the same ports; they share what may be guessed.
    :raises ConfigurationError: the configuration, or a file that it names, is not usable.
    """
    if not isinstance(config, ServerConfig):
        config = load_config(Path(config))
    authorities = {name: load_authority(settings) for name, settings in config.authorities.items()}
    anchors = load_anchors(config)
    https = _https_endpoint(config.https, anchors) if config.https else None
    coaps = _coaps_endpoint(config.coaps, anchors) if config.coaps else None
    opened = nullcontext(store) if store else open_store(config, serves=True, clock=clock)
    async with opened as store:
        generator = _key_generator(https, coaps)
        labels = _label_policies(config, authorities, store, authorizer, generator)
        users = config.service.users
        alarms = _alarm_bell(config, alarm_sink)
        service = EnrollmentService(
            labels,
            store,
            clock=clock,
            registry=store,
            listed_only=authorizer is None and _goes_by_list(config),
            authorizer_timeout=config.service.authorizer_timeout,
            issuance_timeout=config.service.issuance_timeout,
            user_limits=replace(users, guesses=users.guesses.shared_by(processes)),
            alarms=alarms,
        )
        try:
            yield Assembly(
                service,
                store,
                https,
                coaps,
                _crl_endpoint(config, authorities, store, alarms),
                config.proxy.endpoint() if config.proxy else None,
                config.proxy.trust(anchors) if config.proxy else NO_PROXIES,
            )
        finally:
            await service.close()


def open_store(
    config: ServerConfig,
    *,
    serves: bool = False,
    existing: bool = False,
    as_it_is: bool = False,
    clock: Clock | None = None,
) -> AbstractAsyncContextManager[Store]:
    """Open the store that ``config`` describes; see :func:`est_server.stores.opening.open_store`.

    :param serves: whether devices are served with it.
    :param existing: refuse a store that would have to be made.
    :param as_it_is: refuse a store that would have to be made or brought up to date.
    :param clock: the source of time; the machine's clock by default.
    """
    settings = config.store
    return opening.open_store(
        settings.location,
        clock=clock or SystemClock(),
        options=settings.bounds,
        sqlite=settings.sqlite,
        postgresql=settings.postgresql,
        integrity_key=load_integrity_key(config),
        serves=serves,
        existing=existing,
        as_it_is=as_it_is,
    )


def load_integrity_key(config: ServerConfig) -> IntegrityKey | None:
    """The key that the store's rows are sealed with; ``None`` if it is configured to have none.

    :raises ConfigurationError: the file is not there, or not usable.
    """
    file = config.integrity_key
    if file is not None and not file.exists():
        raise ConfigurationError(
            f"{config.file}: [store]: the integrity key {file} is not there; est-server devices "
            "seal --new-key makes one. Without a key, whoever can write the store can add devices: "
            "who accepts that says unsealed = true"
        )
    return None if file is None else IntegrityKey.read(file)


def load_authority(settings: AuthoritySettings) -> LocalAuthority:
    """The certificate authority that ``settings`` describes.

    :raises ConfigurationError: a file is not usable.
    """
    passphrase = passphrase_from_environment(settings.key_passphrase_variable)
    signer = FileSigner(settings.key, passphrase=passphrase)
    issuing, *issuers = load_certificates(settings.certificate)
    rollover = load_certificates(settings.rollover) if settings.rollover else ()
    try:
        return LocalAuthority(signer, issuing, issuers, rollover=rollover)
    except ConfigurationError as error:
        raise ConfigurationError(f"{settings.certificate}: {error}") from error


def _https_endpoint(settings: HttpsSettings, anchors: TrustAnchors) -> HttpsEndpoint:
    return HttpsEndpoint(
        credentials=_load_credentials(settings),
        anchors=anchors,
        host=settings.listen,
        port=settings.port,
        policy=settings.tls,
        limits=settings.limits,
    )


def _coaps_endpoint(settings: CoapsSettings, anchors: TrustAnchors) -> CoapsEndpoint:
    credentials = _load_credentials(settings)
    if not isinstance(credentials.key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(
            f"{settings.key}: CoAPS needs an EC key, which the mandatory suite of RFC 9148 "
            "section 3 authenticates with"
        )
    if not settings.send_root:
        chain = tuple(c for c in credentials.chain if not is_self_signed(c))
        credentials = LocalCredentials(credentials.key, chain)
    return CoapsEndpoint(
        credentials=credentials,
        anchors=anchors,
        host=settings.listen,
        port=settings.port,
        policy=settings.dtls,
        parameters=settings.transmission,
        limits=settings.limits,
    )


def _alarm_bell(config: ServerConfig, sink: AlarmSink | None) -> AlarmBell:
    settings = config.alarms
    if settings.webhook is None:
        return AlarmBell(sink, settings.limits)
    try:
        webhook = Webhook(settings.webhook, timeout=settings.webhook_timeout)
    except ConfigurationError as error:
        Place(config.file, "alarms", "webhook").fail(str(error))
    return AlarmBell(to_all(webhook, sink) if sink else webhook, settings.limits)


def _crl_endpoint(
    config: ServerConfig,
    authorities: Mapping[str, LocalAuthority],
    store: Store,
    alarms: AlarmBell,
) -> CrlEndpoint | None:
    settings = config.crl
    if settings is None:
        return None
    issuers = {}
    for name, authority in authorities.items():
        try:
            issuers[config.crl_name(name)] = authority.crl_issuer()
        except ConfigurationError as error:
            raise ConfigurationError(f"{config.file}: [crl]: {error}") from error
    return CrlEndpoint(
        publisher=CrlPublisher(store, issuers, SystemClock(), settings.schedule, alarms),
        http=PlainHttpEndpoint(settings.listen, settings.port, settings.limits),
        max_age=settings.max_age,
    )


def _load_credentials(settings: HttpsSettings | CoapsSettings) -> LocalCredentials:
    passphrase = passphrase_from_environment(settings.key_passphrase_variable)
    key = read_private_key(settings.key, passphrase=passphrase)
    chain = load_certificates(settings.certificate)
    if chain[0].public_key() != key.public_key():
        raise ConfigurationError(
            f"{settings.key} is not the key of the first certificate in {settings.certificate}; "
            "if est-server ca server-certificate was interrupted, give it again, without --new-key"
        )
    return LocalCredentials(key, chain)


def _label_policies(
    config: ServerConfig,
    authorities: Mapping[str, LocalAuthority],
    store: Store,
    authorizer: Authorizer | None,
    generator: KeyGenerator | None,
) -> dict[str | None, LabelPolicy]:
    checks = cache(SlowChecks)
    return {
        label: _label_policy(config, label, authorities, store, authorizer, checks, generator)
        for label in config.policies
    }


def _label_policy(
    config: ServerConfig,
    label: str | None,
    authorities: Mapping[str, LocalAuthority],
    store: Store,
    authorizer: Authorizer | None,
    checks: Callable[[], SlowChecks],
    generator: KeyGenerator | None,
) -> LabelPolicy:
    settings = config.policies[label]
    try:
        users = LabelUsers(settings, store, checks)
    except ConfigurationError as error:
        place = Place(config.file, label_table(label))
        raise ConfigurationError(f"{place}: {error}") from error
    return LabelPolicy(
        authority=authorities[settings.authority],
        authorizer=authorizer or _authorizer(config, label, store, users),
        profile=config.profile(label),
        require_pop_linking=settings.require_pop_linking,
        csr_wishes=settings.csr_attributes.wishes(),
        enforce_csr_wishes=settings.csr_attributes.enforce,
        key_generation=_key_generation(settings.server_key_generation, generator),
        http=users.http,
        one_time_secrets=users.one_time_secrets,
        legacy=settings.legacy,
        registration_authorities=(
            settings.registration_authorities.policy()
            if settings.registration_authorities
            else None
        ),
        owners=settings.allowed_owners,
        serve_quarantined=settings.serve_quarantined,
    )


def _key_generator(https: HttpsEndpoint | None, coaps: CoapsEndpoint | None) -> KeyGenerator | None:
    """Who signs generated keys: this server, by the name that its clients know it by."""
    endpoint = https or coaps
    if endpoint is None:
        return None
    return KeyGenerator(endpoint.credentials.key, endpoint.credentials.chain)


def _key_generation(
    settings: KeyGenerationSettings | None, generator: KeyGenerator | None
) -> KeyGenerationPolicy | None:
    if settings is None:
        return None
    return KeyGenerationPolicy(
        kinds=settings.kinds,
        require_protected_key=settings.require_protected_key,
        retry_window=settings.retry_window,
        generator=generator,
    )


def _goes_by_list(config: ServerConfig) -> bool:
    """Whether every label's certificates are for listed devices only.

    Where they are not, the list does not say either who may ask for the CA certificates.
    """
    return all(
        DEVICE_LIST in settings.authorizers
        and (settings.combination is Combination.ALL_OF or len(settings.authorizers) == 1)
        for settings in config.policies.values()
    )


def _authorizer(
    config: ServerConfig, label: str | None, store: Store, users: LabelUsers
) -> Authorizer:
    place = Place(config.file, label_table(label), "authorizers")
    try:
        return make_authorizer(config.policies[label], store, users, load_manufacturers(config))
    except ConfigurationError as error:
        place.fail(str(error))
