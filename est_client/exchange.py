"""One request and its answer, through lost answers and "not yet" (RFC 7030 section 4.2.3)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from est_client.connection import EstConnection
from est_client.redirects import Redirected, RedirectPolicy, Route
from est_client.retry import Patience, RetryPolicy
from est_client.secrets import ClientSecrets
from est_client.session import Session
from est_protocol.errors import (
    ChannelClosed,
    ChannelError,
    PeerNotTrusted,
    ServerRefused,
    StillPending,
)
from est_protocol.http_authentication import DigestCredentials
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    GeneratedKeyResponse,
    Pending,
)
from est_protocol.operations import Operation

_log = logging.getLogger(__name__)

#: Credentials that are made anew for one request, because the server calls their nonce stale.
_MOST_STALE = 2

_Answer = TypeVar("_Answer", CertificatesResponse, CsrAttributesResponse, GeneratedKeyResponse)


class _AnswerElsewhere(Exception):
    """A server has asked for HTTP authentication, and ended the connection before the answer.

    libest's does so without announcing it. The answer goes over a new channel, with a body that
    is made for it; bounded by two, the second for a server that then has a nonce of its own.
    """

    def __init__(self, challenge: ServerRefused) -> None:
        super().__init__()
        self.challenge = challenge


class Exchange:
    """Sends requests over a session until each is answered, or patience ends.

    Every repeat goes over a new channel, which is verified like the first, with a body that is
    made for that channel.

    :param label: the label of every request.
    :param secrets: what to answer a server with that asks for HTTP authentication.
    :param redirects: which redirects to follow.
    :param sleep: waits for a number of seconds.
    :param monotonic: seconds of a clock that never jumps.
    """

    def __init__(
        self,
        session: Session,
        *,
        label: str | None,
        secrets: ClientSecrets,
        redirects: RedirectPolicy,
        retry: RetryPolicy,
        sleep: Callable[[float], Awaitable[None]],
        monotonic: Callable[[], float],
    ) -> None:
        self._session = session
        self._label = label
        self._secrets = secrets
        self._redirects = redirects
        self._retry = retry
        self._sleep = sleep
        self._monotonic = monotonic

    async def send(
        self,
        operation: Operation,
        body: Callable[[EstConnection], bytes],
        *,
        expected: type[_Answer],
        wait: float = 0.0,
    ) -> _Answer:
        """Send a request and wait for its final answer.

        :param body: makes the DER body for the channel that it will travel over.
        :param expected: the kind of value that answers ``operation``.
        :param wait: seconds to wait in all while the server says "not yet".
        :raises EstError: as :meth:`est_client.client.EstClient.simpleenroll`.
        """
        patience = Patience(self._retry, wait=wait, monotonic=self._monotonic)
        asked = False

        def begin(connection: EstConnection) -> bytes:
            nonlocal asked
            asked = True
            return body(connection)

        while True:
            try:
                answer = await self._ask(operation, begin)
            except PeerNotTrusted:
                await self._session.close()
                raise
            except ChannelError as error:
                # Where nothing was ever sent there is no answer to be lost.
                if not asked:
                    raise
                delay = patience.after_loss(error)
                _log.warning("%s: no answer (%s)", operation.value, error)
            except ServerRefused as error:
                if error.retry_after is None:
                    raise
                error.retry_after = self._heeded(error.retry_after)
                delay = patience.after_not_yet(error.retry_after, error)
            else:
                if isinstance(answer, expected):
                    return answer
                assert isinstance(answer, Pending), answer
                retry_after = self._heeded(answer.retry_after)
                delay = patience.after_not_yet(retry_after, StillPending(retry_after))
            _log.info("%s: asking again in %.1f s", operation.value, delay)
            await self._session.close()
            await self._sleep(delay)

    def _heeded(self, retry_after: int) -> int:
        heeded = self._retry.heeded(retry_after)
        if heeded < retry_after:
            _log.warning(
                "the server asks to be asked again in %d s; it will be after %d s already",
                retry_after,
                heeded,
            )
        return heeded

    async def _ask(
        self, operation: Operation, body: Callable[[EstConnection], bytes]
    ) -> EstResponse:
        """Ask once, wherever redirects lead; each leads to a new channel, verified like the first,
        and to a body that is made for it (RFC 7030 section 3.2.1)."""
        request = EstRequest(operation, self._session.connector.transport, self._label)
        route = Route(self._redirects)
        challenge, moves = None, 0
        try:
            while True:
                connection = await self._session.connection()
                asked = replace(request, body=body(connection))
                if challenge is not None:
                    asked = self._answered(asked, challenge)
                try:
                    return await self._ask_over(connection, asked, moves)
                except _AnswerElsewhere as moved:
                    challenge, moves = moved.challenge, moves + 1
                except Redirected as redirect:
                    route.follow(redirect)
                    _log.info("%s: %s", operation.value, redirect.explanation)
                    await self._session.go_elsewhere(None if redirect.home else redirect.connector)
                    request, challenge = replace(request, path=redirect.path), None
        finally:
            await self._session.go_home()

    async def _ask_over(
        self, connection: EstConnection, request: EstRequest, moves: int
    ) -> EstResponse:
        """Ask over one connection, and say who asks if the server wants to know.

        :param moves: how many connections have ended over that already.
        :raises _AnswerElsewhere: this one has, too.
        """
        challenge: ServerRefused | None = None
        answered = 0
        try:
            while True:
                try:
                    answer = await connection.request(request)
                    self._session.answered()
                    return answer
                except Redirected:
                    raise
                except ServerRefused as refused:
                    if moves == 1 and isinstance(request.http_credentials, DigestCredentials):
                        # The nonce may have been for the connection that has ended.
                        raise _AnswerElsewhere(refused) from refused
                    if answered > _MOST_STALE:
                        # Whoever calls every nonce stale would be answered for ever.
                        raise
                    request, challenge = self._answered(request, refused), refused
                    answered += 1
                except ChannelClosed as error:
                    if challenge is None or moves:
                        raise
                    raise _AnswerElsewhere(challenge) from error
        except ServerRefused as refused:
            if refused.status == "401":
                # RFC 7030 section 3.2.3: who cannot answer ends the connection.
                await self._session.close()
            raise
        except BaseException:
            # Half an answer may still be on its way; no other request may meet it.
            await self._session.close()
            raise

    def _answered(self, request: EstRequest, refused: ServerRefused) -> EstRequest:
        """The request with the HTTP credentials that the server asks for.

        For the connection of the moment, whose server is verified: there is no other that may be
        told.

        :raises ServerRefused: there is no answer to that; it is ``refused`` itself.
        """
        credentials = self._secrets.answer(refused, request, self._session.server)
        if credentials is None:
            raise refused
        return replace(request, http_credentials=credentials)
