"""Who a client is by what it knows: checked before anybody is asked what it may have."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta

from est_protocol import digest_authentication
from est_protocol.challenge_attributes import OneTimeSecret
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import MessageError, RefusalReason, RequestRefused
from est_protocol.http_authentication import (
    BasicCredentials,
    Challenge,
    DigestAlgorithm,
    DigestCredentials,
    HttpCredentials,
)
from est_protocol.messages import EstRequest, Transport
from est_protocol.pkcs10 import CertificationRequest
from est_server.guesses import GuessCounter, GuessLimits
from est_server.interfaces import Clock, LabelPolicy
from est_server.peer_networks import network_of
from est_server.user_credentials import (
    CredentialsVerifier,
    HttpAuthentication,
    UserProof,
    UserRequirement,
    VerifiedUser,
)

#: Refusals of a client that showed no HTTP credentials, which they might have prevented.
_MIGHT_HELP = frozenset(
    {
        RefusalReason.AUTHENTICATION_REQUIRED,
        RefusalReason.CERTIFICATE_NOT_TRUSTED,
        RefusalReason.UNKNOWN_DEVICE,
    }
)

_PROOFS = {
    DigestAlgorithm.SHA_256: UserProof.DIGEST_SHA_256,
    DigestAlgorithm.MD5: UserProof.DIGEST_MD5,
}


@dataclass(frozen=True, slots=True)
class UserLimits:
    """Bounds of the authentication of users.

    :param nonce_lifetime: how long the nonce of a Digest challenge is valid.
    :param nonces_remembered: used nonces that are remembered, so that none is used twice.
    :param guesses: how often a secret may be guessed.
    """

    nonce_lifetime: timedelta = timedelta(minutes=5)
    nonces_remembered: int = 10_000
    guesses: GuessLimits = field(default_factory=GuessLimits)


class UserChecks:
    """Checks HTTP credentials and otpChallenges for one service.

    Nonces are good in the process that made them: a client stays with one while its connection
    lasts, and is asked once more with ``stale=true`` where it comes to another.
    """

    def __init__(self, clock: Clock, limits: UserLimits) -> None:
        self._clock = clock
        self._guesses = GuessCounter(limits.guesses)
        self._nonces = digest_authentication.Nonces(
            secrets.token_bytes(32),
            lifetime=limits.nonce_lifetime,
            most_used=limits.nonces_remembered,
        )

    async def http_user(
        self, request: EstRequest, peer: PeerCredentials, policy: LabelPolicy
    ) -> VerifiedUser | None:
        """The user by HTTP authentication, where the label and the operation ask for one.

        :raises RequestRefused: there has to be one and is not, or its credentials are wrong.
        """
        http = _asked(request, policy)
        if http is None:
            return None
        given = request.http_credentials
        if given is None:
            # curl --digest sends an empty body first, for it expects to be asked.
            enough = request.body or peer.certificate
            if http.required is UserRequirement.EITHER and enough:
                return None
            raise RequestRefused(
                RefusalReason.AUTHENTICATION_REQUIRED,
                "HTTP authentication is required",
                challenges=self._challenges(http),
            )
        if not _is_offered(given, http):
            raise self._wrong(http, given, "scheme, algorithm or realm was not offered")
        address = network_of(peer.address)
        async with self._guesses.guess(given.user, address, self._clock.now) as guess:
            guess.wrong = not await _is_right(given, http, request.operation.method)
        if guess.wrong:
            raise self._wrong(http, given, "wrong secret or unknown user")
        return VerifiedUser(given.user, self._take(given, http), http.verifier)

    async def otp_user(
        self,
        csr: CertificationRequest,
        peer: PeerCredentials,
        policy: LabelPolicy,
    ) -> VerifiedUser | None:
        """The user by the otpChallenge in the CSR, if there is one (RFC 7894 section 3.1).

        :raises RequestRefused: it is wrong, or nobody here can judge it; RFC 7894 section 4
            wants every challenge that is present to be right.
        """
        text = csr.challenges.otp_challenge
        if text is None:
            return None
        verifier = policy.one_time_secrets
        if verifier is None:
            raise RequestRefused(
                RefusalReason.CREDENTIALS_WRONG, "an otpChallenge is not accepted here"
            )
        try:
            given = OneTimeSecret.parse(text)
        except MessageError as error:
            raise RequestRefused(RefusalReason.MALFORMED_CSR, str(error)) from error
        address = network_of(peer.address)
        async with self._guesses.guess(given.name, address, self._clock.now) as guess:
            guess.wrong = not await verifier.check_password(given.name, given.secret)
        if guess.wrong:
            raise RequestRefused(
                RefusalReason.CREDENTIALS_WRONG,
                "the otpChallenge is wrong",
                detail=f"name {given.name!r}",
            )
        return VerifiedUser(given.name, UserProof.OTP_CHALLENGE, verifier)

    def ask(self, refused: RequestRefused, request: EstRequest, policy: LabelPolicy) -> None:
        """Add challenges to a refusal that HTTP credentials might have prevented."""
        http = _asked(request, policy)
        if http is None or refused.challenges or request.http_credentials is not None:
            return
        if refused.reason in _MIGHT_HELP:
            refused.challenges = self._challenges(http)

    def _take(self, given: HttpCredentials, http: HttpAuthentication) -> UserProof:
        if isinstance(given, BasicCredentials):
            return UserProof.BASIC
        if not self._nonces.use(given.nonce, given.nonce_count, self._clock.now()):
            raise RequestRefused(
                RefusalReason.AUTHENTICATION_REQUIRED,
                "the nonce of the HTTP credentials is stale",
                detail=f"user {given.user!r}",
                challenges=self._challenges(http, stale=True),
            )
        return _PROOFS[given.algorithm]

    def _wrong(
        self, http: HttpAuthentication, given: HttpCredentials, detail: str
    ) -> RequestRefused:
        return RequestRefused(
            RefusalReason.CREDENTIALS_WRONG,
            "the HTTP credentials are wrong",
            detail=f"user {given.user!r}: {detail}",
            challenges=self._challenges(http),
        )

    def _challenges(self, http: HttpAuthentication, *, stale: bool = False) -> tuple[str, ...]:
        """WWW-Authenticate values, the strongest scheme first (RFC 7616 section 3.7)."""
        nonce = self._nonces.make(self._clock.now(), secrets.token_bytes(16))
        found = []
        for algorithm in http.digest:
            parameters = {
                "realm": http.realm,
                "qop": "auth",
                "algorithm": algorithm.value,
                "nonce": nonce,
            }
            if not http.quoted_challenges:
                parameters["charset"] = "UTF-8"
            if stale:
                parameters["stale"] = "true"
            challenge = Challenge("Digest", parameters)
            found.append(challenge.written(quote_all=http.quoted_challenges))
        if http.basic:
            found.append(str(Challenge("Basic", {"realm": http.realm, "charset": "UTF-8"})))
        return tuple(found)


def _asked(request: EstRequest, policy: LabelPolicy) -> HttpAuthentication | None:
    """RFC 9148 has no HTTP authentication, and knows it for no operation."""
    if request.transport is not Transport.HTTPS or policy.http is None:
        return None
    return policy.http if policy.http.concerns(request.operation) else None


def _is_offered(given: HttpCredentials, http: HttpAuthentication) -> bool:
    if isinstance(given, BasicCredentials):
        return http.basic
    return given.algorithm in http.digest and given.realm == http.realm


async def _is_right(given: HttpCredentials, http: HttpAuthentication, method: str) -> bool:
    if isinstance(given, BasicCredentials):
        return await http.verifier.check_password(given.user, given.password)
    return await _is_right_digest(given, http.verifier, method)


async def _is_right_digest(
    given: DigestCredentials, verifier: CredentialsVerifier, method: str
) -> bool:
    secret = await verifier.digest_secret(given.user, given.realm, given.algorithm)
    # The same work for an unknown user, whose response must not be right by any chance.
    right = digest_authentication.is_right(
        given, secret or secrets.token_hex(given.algorithm.hex_digits // 2), method=method
    )
    return right and secret is not None
