"""What a client knows beside its key, and to whom it tells it.

HTTP credentials answer a 401 (RFC 7030 section 3.2.3), a one-time secret goes into the CSR as
otpChallenge (RFC 7894 section 3.1). Both are told to servers only that were verified by an
Explicit trust anchor, and are forgotten after the enrollment that they were for (RFC 7030
section 6), unless they are to be kept for servers that want them at renewals too.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from est_client.http_path import http_path
from est_protocol import digest_authentication
from est_protocol.credentials import AnchorSet
from est_protocol.errors import ConfigurationError, MessageError, PeerNotTrusted, ServerRefused
from est_protocol.http_authentication import (
    BasicCredentials,
    Challenge,
    DigestAlgorithm,
    DigestCredentials,
    HttpCredentials,
    format_credentials,
    parse_challenges,
)
from est_protocol.messages import EstRequest
from est_protocol.oid_names import OTP_CHALLENGE


@dataclass(frozen=True, slots=True)
class HttpLogin:
    """User name and password for HTTP authentication; ``repr`` does not show the password.

    :param user: may be empty (RFC 7030 section 3.2.3).
    :param basic: whether to answer Basic, which shows the server the password.
    :param md5: whether to answer Digest with MD5 where nothing better is asked for.
    :raises ConfigurationError: a control character, or a colon in a user name for Basic.
    """

    user: str
    password: str = field(repr=False)
    basic: bool = True
    md5: bool = False

    def __post_init__(self) -> None:
        try:
            format_credentials(BasicCredentials(self.user, self.password))
        except MessageError as error:
            raise ConfigurationError(str(error)) from error


def answer(
    challenges: Iterable[str], login: HttpLogin, *, method: str, uri: str, cnonce: str
) -> HttpCredentials | None:
    """The answer to the strongest challenge that can be answered (RFC 7616 section 3.7).

    :param challenges: the values of WWW-Authenticate.
    :param uri: the request target.
    :param cnonce: a fresh random text.
    :return: ``None`` if there is none.
    """
    found = _read(challenges)
    algorithms = [DigestAlgorithm.SHA_256, *([DigestAlgorithm.MD5] if login.md5 else [])]
    for algorithm in algorithms:
        for challenge in found:
            if _asks_for(challenge, algorithm):
                return _digest(challenge.parameters, algorithm, login, method, uri, cnonce)
    if login.basic and any(challenge.scheme.lower() == "basic" for challenge in found):
        return BasicCredentials(login.user, login.password)
    return None


@dataclass(frozen=True, slots=True)
class Listener:
    """A server that might be told a secret.

    :param verified_by: the trust database that verified it.
    :param home: whether it is the one that the caller named, not one that it redirects to.
    """

    verified_by: AnchorSet | None
    home: bool = True


class ClientSecrets:
    """The secrets of one client, until they have done their work.

    :param login: for HTTP authentication, or ``None``.
    :param otp: the text of an otpChallenge, or ``None``.
    :param over_implicit_trust: tell them to servers too that only an Implicit trust anchor
        verified, of whom the name is all that is known.
    :param keep: for renewals, which a certificate is enough for otherwise.
    """

    def __init__(
        self, login: HttpLogin | None, otp: str | None, *, over_implicit_trust: bool, keep: bool
    ) -> None:
        self._login = login
        self._otp = otp
        self._over_implicit_trust = over_implicit_trust
        self._keep = keep

    def have_worked(self) -> None:
        """Drop them; what was enrolled authenticates from now on."""
        if not self._keep:
            self._login = self._otp = None

    def values(self, given: Mapping[str, str] | None, *, first: bool) -> Mapping[str, str]:
        """What a CSR's open attributes may be filled with, the secret among them.

        :param first: as for :meth:`csr_attributes`.
        """
        return {**self._otp_challenge(first=first), **(given or {})}

    def csr_attributes(
        self, given: Mapping[str, str], server: Listener, *, first: bool
    ) -> Mapping[str, str]:
        """The attributes of a CSR, the one that carries the secret among them.

        :param given: the others, by OID.
        :param server: who would be told.
        :param first: whether it is a first enrollment; a certificate renews itself.
        :raises PeerNotTrusted: the server must not be told.
        """
        attributes = {**given, **self._otp_challenge(first=first)}
        if OTP_CHALLENGE in attributes:
            self._check(server)
        return attributes

    def answer(
        self, refused: ServerRefused, asked: EstRequest, server: Listener
    ) -> HttpCredentials | None:
        """The HTTP credentials to repeat a request with, if the refusal asks for any.

        :param asked: the request that was refused.
        :return: ``None`` if there is nothing to say, or it was said and is not right.
        :raises PeerNotTrusted: the server must not be told.
        """
        if self._login is None or not refused.challenges:
            return None
        said = asked.http_credentials
        if said is not None and not (isinstance(said, DigestCredentials) and _is_stale(refused)):
            return None
        self._check(server)
        return answer(
            refused.challenges,
            self._login,
            method=asked.operation.method,
            uri=asked.path or http_path(asked.operation, asked.label),
            cnonce=secrets.token_urlsafe(24),
        )

    def _otp_challenge(self, *, first: bool) -> Mapping[str, str]:
        return {OTP_CHALLENGE: self._otp} if self._otp and (first or self._keep) else {}

    def _check(self, server: Listener) -> None:
        if not server.home:
            raise PeerNotTrusted("secrets are not told to a server that another redirected to")
        if server.verified_by is AnchorSet.EXPLICIT or self._over_implicit_trust:
            return
        raise PeerNotTrusted(
            "secrets are not told to a server that no Explicit trust anchor verified "
            "(RFC 7030 section 6)"
        )


def _read(headers: Iterable[str]) -> list[Challenge]:
    found: list[Challenge] = []
    for header in headers:
        try:
            found += parse_challenges(header)
        except MessageError:
            # Another header may ask for something that we understand.
            continue
    return found


def _is_stale(refused: ServerRefused) -> bool:
    stale = [c.parameters.get("stale", "").lower() for c in _read(refused.challenges)]
    return "true" in stale


def _asks_for(challenge: Challenge, algorithm: DigestAlgorithm) -> bool:
    given = challenge.parameters
    offered = [option.strip().lower() for option in given.get("qop", "").split(",")]
    return (
        challenge.scheme.lower() == "digest"
        and given.get("algorithm", "MD5").lower() == algorithm.value.lower()
        and "auth" in offered
        and {"realm", "nonce"} <= given.keys()
    )


def _digest(
    given: Mapping[str, str],
    algorithm: DigestAlgorithm,
    login: HttpLogin,
    method: str,
    uri: str,
    cnonce: str,
) -> DigestCredentials:
    secret = digest_authentication.user_secret(
        algorithm, login.user, given["realm"], login.password
    )
    response = digest_authentication.response(
        secret,
        algorithm,
        method=method,
        uri=uri,
        nonce=given["nonce"],
        nonce_count=1,
        cnonce=cnonce,
    )
    return DigestCredentials(
        user=login.user,
        realm=given["realm"],
        nonce=given["nonce"],
        uri=uri,
        cnonce=cnonce,
        nonce_count=1,
        algorithm=algorithm,
        response=response,
        opaque=given.get("opaque"),
    )
