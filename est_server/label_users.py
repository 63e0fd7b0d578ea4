"""From a label's settings to those who know its users' secrets."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import cast

from est_protocol.errors import ConfigurationError
from est_protocol.http_authentication import DigestAlgorithm
from est_server.authorization.http_user import AnyDevice, HttpUserAuthorizer
from est_server.authorization.one_time_secret import OneTimeSecrets
from est_server.authorization.secret_hashes import SlowChecks
from est_server.config.settings import HttpAuthenticationSettings, LabelSettings
from est_server.stores.store import Store
from est_server.user_credentials import CredentialsVerifier, HttpAuthentication

#: The name of the store's one-time secrets, as verifier and as authorizer.
ONE_TIME_SECRET = "one-time-secret"
HTTP_USER = "http-user"

#: In ``http_users``: any listed device.
ANY_DEVICE = "*"


class LabelUsers:
    """Who knows the users of one label, and who grants to them.

    :param checks: makes the checker of slow hashes, the same one for all labels; called only
        where there are any.
    :raises ConfigurationError: the settings contradict one another.
    """

    def __init__(
        self, settings: LabelSettings, store: Store, checks: Callable[[], SlowChecks]
    ) -> None:
        self._settings = settings
        self._store = store
        http = settings.http_authentication
        known_by_http = http is not None and http.verifier == ONE_TIME_SECRET
        wanted = settings.otp_challenge or known_by_http
        self._secrets = (
            OneTimeSecrets(store, store, unlisted=settings.unlisted_devices, checks=checks())
            if wanted
            else None
        )
        if ONE_TIME_SECRET in settings.authorizers and not wanted:
            raise ConfigurationError(
                f"nobody can show a secret to {ONE_TIME_SECRET}: set otp_challenge = true, or "
                f'http_authentication.verifier = "{ONE_TIME_SECRET}"'
            )
        self.http = self._http(http) if http is not None else None
        self.one_time_secrets = self._secrets if settings.otp_challenge else None

    def secrets_authorizer(self) -> OneTimeSecrets:
        """The authorizer ``one-time-secret``."""
        assert self._secrets is not None
        return self._secrets

    def http_user_authorizer(self) -> HttpUserAuthorizer:
        """The authorizer ``http-user``.

        :raises ConfigurationError: the label has no HTTP authentication, or no users.
        """
        if self.http is None or self.http.verifier is self._secrets:
            raise ConfigurationError(
                f"{HTTP_USER} needs http_authentication with a verifier of its own"
            )
        if not self._settings.http_users:
            raise ConfigurationError(f"{HTTP_USER} needs a table http_users")
        users: dict[str, str | AnyDevice] = {
            user: AnyDevice.LISTED if device == ANY_DEVICE else device
            for user, device in self._settings.http_users.items()
        }
        return HttpUserAuthorizer(
            self._store, self.http.verifier, users, unlisted=self._settings.unlisted_devices
        )

    def _http(self, settings: HttpAuthenticationSettings) -> HttpAuthentication:
        digest = settings.digest
        if settings.verifier == ONE_TIME_SECRET:
            if digest:
                raise ConfigurationError(
                    "one-time secrets are kept as slow hashes, which Digest cannot use; leave "
                    "digest out"
                )
            digest = ()
        if not settings.basic and digest == ():
            raise ConfigurationError("neither Basic nor Digest is left to ask for")
        return HttpAuthentication(
            self._verifier(settings.verifier),
            required=settings.required,
            realm=settings.realm,
            basic=settings.basic,
            digest=(DigestAlgorithm.SHA_256,) if digest is None else digest,
            renewals=settings.renewals,
            quoted_challenges=self._settings.legacy.quoted_challenges,
        )

    def _verifier(self, name: str) -> CredentialsVerifier:
        if name == ONE_TIME_SECRET:
            assert self._secrets is not None
            return self._secrets
        module, colon, attribute = name.partition(":")
        if not colon:
            raise ConfigurationError(
                f"no verifier {name!r}: neither {ONE_TIME_SECRET} nor module:object"
            )
        try:
            verifier = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"no verifier {name!r}: {error}") from error
        for method in ("check_password", "digest_secret"):
            if not inspect.iscoroutinefunction(getattr(verifier, method, None)):
                raise ConfigurationError(f"verifier {name!r} has no async method {method}")
        return cast(CredentialsVerifier, verifier)
