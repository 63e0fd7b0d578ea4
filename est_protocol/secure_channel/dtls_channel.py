"""One DTLS session on asyncio: its timers, and what uses it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Protocol

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ChannelClosed, ChannelError, HandshakeFailed
from est_protocol.secure_channel.dtls import DtlsSession

_log = logging.getLogger("est_protocol.dtls")


class ChannelUser(Protocol):
    """What uses one established session."""

    @property
    def busy(self) -> bool:
        """Whether there is work in progress, so that the session must not be closed as idle."""
        ...

    def datagram_received(self, plaintext: bytes) -> None:
        """Take one datagram of the peer; must not raise."""
        ...

    def channel_lost(self, reason: ChannelError) -> None:
        """The session is over; called exactly once."""
        ...


class DtlsChannel:
    """One DTLS session with its timers.

    :param session: the session.
    :param transmit: sends a datagram to the peer.
    :param open_user: makes the user of the session once the handshake is complete.
    :param on_lost: called once, when the session is over, before the user is told.
    """

    def __init__(
        self,
        session: DtlsSession,
        transmit: Callable[[bytes], None],
        open_user: Callable[[DtlsChannel], ChannelUser],
        on_lost: Callable[[DtlsChannel, ChannelError], None],
        *,
        handshake_timeout: float,
        idle_timeout: float,
    ) -> None:
        self.session = session
        self._transmit = transmit
        self._open_user = open_user
        self._on_lost = on_lost
        self._idle_timeout = idle_timeout
        self._loop = asyncio.get_running_loop()
        self._handshake_deadline = self._loop.time() + handshake_timeout
        self._last_activity = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._user: ChannelUser | None = None
        self._lost = False

    @property
    def peer(self) -> PeerCredentials:
        """The peer; only once the handshake is complete."""
        assert self.session.peer is not None
        return self.session.peer

    @property
    def established(self) -> bool:
        """Whether the handshake is complete."""
        return self._user is not None

    @property
    def busy(self) -> bool:
        """Whether the user has work in progress."""
        return self._user is not None and self._user.busy

    @property
    def last_activity(self) -> float:
        """When it was last used, by the loop's clock; in a handshake, when that began."""
        return self._last_activity

    @property
    def lost(self) -> bool:
        """Whether the session is over."""
        return self._lost

    def begin(self) -> None:
        """Send what waits in a new session and start its timers."""
        self._flush()
        self._schedule()

    def send(self, plaintext: bytes) -> None:
        """Send one datagram.

        :raises ChannelClosed: the session is over.
        :raises ValueError: it does not fit into the MTU.
        """
        self.session.send_plaintext(plaintext)
        self._last_activity = self._loop.time()
        self._flush()

    def datagram_received(self, datagram: bytes) -> bool:
        """Take one datagram; whether it proved to be the peer's."""
        if self._lost:
            return False
        try:
            plaintexts = self.session.receive_datagram(datagram)
        except ChannelError as error:
            self._lose(error)
            return False
        self._flush()
        if self._user is None:
            if self.session.established:
                self._last_activity = self._loop.time()
                self._user = self._open_user(self)
            self._schedule()
        if self._user is not None and plaintexts:
            self._last_activity = self._loop.time()
            for plaintext in plaintexts:
                if self._lost:
                    return False
                self._user.datagram_received(plaintext)
        if self.session.peer_closed:
            self.close(ChannelClosed("the peer closed the session"))
        return bool(plaintexts)

    def close(self, reason: ChannelError | None = None) -> None:
        """End the session with a close_notify; does nothing the second time."""
        if self._lost:
            return
        try:
            self.session.close()
        except ChannelError as error:
            _log.debug("%s: no close_notify: %s", self.session.address, error)
        self._lose(reason or ChannelClosed("the session was closed"))

    def _lose(self, reason: ChannelError) -> None:
        self._lost = True
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
        self._on_lost(self, reason)
        if self._user is not None:
            self._user.channel_lost(reason)

    def _flush(self) -> None:
        for datagram in self.session.datagrams_to_send():
            self._transmit(datagram)

    def _schedule(self) -> None:
        if self._lost:
            return
        now = self._loop.time()
        limit = self._handshake_deadline
        if self.established:
            limit = (now if self.busy else self._last_activity) + self._idle_timeout
        deadline = self.session.deadline(now)
        at = limit if deadline is None else min(limit, deadline)
        if self._timer is not None:
            # One that comes too early sets the next one; most handshakes need but one that way.
            if self._timer.when() <= at:
                return
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        if not self.established and now >= self._handshake_deadline:
            self.close(HandshakeFailed("the handshake took too long"))
            return
        if self.established and not self.busy and now >= self._last_activity + self._idle_timeout:
            self.close(ChannelClosed("the session was idle for too long"))
            return
        try:
            self.session.handle_timeout()
        except ChannelError as error:
            self._lose(error)
            return
        self._flush()
        self._schedule()
