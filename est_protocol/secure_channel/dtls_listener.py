"""Stateless cookies before any state per peer (RFC 6347 section 4.2.1), without the socket."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from OpenSSL import SSL

from est_protocol.errors import ChannelError
from est_protocol.secure_channel import records
from est_protocol.secure_channel.context import TrustAnchors
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.policy import DtlsPolicy

_SECRET_SIZE = 32
_COOKIE_SIZE = 16


class DtlsListener:
    """Answers the ClientHellos of all unknown peers and opens sessions for those who return.

    One object serves any number of peers and keeps nothing of any of them: a ClientHello without
    a valid cookie costs a HelloVerifyRequest that is shorter than itself.

    :param context: made by :func:`~est_protocol.secure_channel.context.dtls_context` for a
        server; the listener sets its cookie callbacks, so it can have but one listener.
    :param anchors: the anchors that ``context`` was made with.
    :param policy: the policy that ``context`` was made with.
    :param secret_lifetime: seconds after which the cookies' secret is replaced. A cookie is good
        for at least that long and at most twice as long.
    :param random: as :func:`os.urandom`.
    :param predecessor: the listener that this one takes the place of; its cookies stay good, and
        the two parameters before this one are its.
    """

    def __init__(
        self,
        context: SSL.Context,
        anchors: TrustAnchors,
        policy: DtlsPolicy,
        *,
        secret_lifetime: float = 60.0,
        random: Callable[[int], bytes] = os.urandom,
        predecessor: DtlsListener | None = None,
    ) -> None:
        self._context = context
        self._anchors = anchors
        self._policy = policy
        self._secrets: _CookieSecrets = (
            predecessor._secrets if predecessor else _CookieSecrets(secret_lifetime, random)
        )
        self._peer = b""
        context.set_cookie_generate_callback(lambda _: self._secrets.cookie(self._peer))
        context.set_cookie_verify_callback(
            lambda _, cookie: self._secrets.is_valid(cookie, self._peer)
        )
        self._next = self._new_session()

    def knows_the_cookie(self, datagram: bytes, address: str) -> bool:
        """Whether ``datagram`` is a ClientHello with the cookie that ``address`` was given.

        Costs a hundredth of what :meth:`receive_datagram` does, and changes nothing.
        """
        record = records.first_handshake_record(datagram)
        cookie = record.cookie if record is not None else b""
        return bool(cookie) and self._secrets.is_valid(cookie, address.encode("utf-8"))

    def receive_datagram(
        self, datagram: bytes, address: str, now: float
    ) -> tuple[list[bytes], DtlsSession | None]:
        """Take a datagram of a peer that has no session.

        :param address: the peer's address and port; cookies are bound to it.
        :param now: seconds on a clock that never jumps.
        :return: the datagrams to send back, and the session if the peer returned its cookie. What
            is no ClientHello in one piece is dropped.
        """
        record = records.first_handshake_record(datagram)
        random = record.client_random if record is not None else None
        if record is None or random is None:
            return [], None
        self._secrets.rotate(now)
        self._peer = address.encode("utf-8")
        session = self._next
        try:
            session.listen(record, address)
        except ChannelError:
            # What OpenSSL made of a malformed ClientHello may linger in the object.
            self._next = self._new_session()
            # Only who returned its cookie is told, with an alert, that its handshake cannot be.
            return session.datagrams_to_send() if session.client_random else [], None
        if not session.client_random:
            return session.datagrams_to_send(), None
        self._next = self._new_session()
        return session.datagrams_to_send(), session

    def _new_session(self) -> DtlsSession:
        return DtlsSession(self._context, self._anchors, self._policy, server=True)


class _CookieSecrets:
    """HMAC cookies under a secret that is replaced from time to time."""

    def __init__(self, lifetime: float, random: Callable[[int], bytes]) -> None:
        self._lifetime = lifetime
        self._random = random
        self._current = random(_SECRET_SIZE)
        self._previous = random(_SECRET_SIZE)
        self._replace_at: float | None = None

    def rotate(self, now: float) -> None:
        """Replace the secret if it is old enough."""
        if self._replace_at is None:
            self._replace_at = now + self._lifetime
        if now >= self._replace_at:
            # After a long pause the current secret is too old to serve as the previous one.
            stale = now >= self._replace_at + self._lifetime
            self._previous = self._random(_SECRET_SIZE) if stale else self._current
            self._current = self._random(_SECRET_SIZE)
            self._replace_at = now + self._lifetime

    def cookie(self, peer: bytes) -> bytes:
        """The cookie of ``peer`` under the current secret."""
        return _mac(self._current, peer)

    def is_valid(self, cookie: bytes, peer: bytes) -> bool:
        """Whether ``peer`` was given this cookie under the current secret or the one before."""
        return any(
            hmac.compare_digest(cookie, _mac(secret, peer))
            for secret in (self._current, self._previous)
        )


def _mac(secret: bytes, peer: bytes) -> bytes:
    return hmac.digest(secret, peer, hashlib.sha256)[:_COOKIE_SIZE]
