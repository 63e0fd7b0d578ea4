"""DTLS on asyncio for a client: one socket with one session."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from est_protocol.errors import ChannelError, HandshakeFailed
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_channel import ChannelUser, DtlsChannel
from est_protocol.secure_channel.udp import (
    DatagramTransportFactory,
    SocketAddress,
    send_datagram,
    udp_transport,
)

#: Octets that may wait for the socket; what comes on top is dropped.
_SEND_BUFFER = 1 << 18


class NobodyThere(HandshakeFailed):
    """Nobody listens at the server's address."""


class DtlsClient(asyncio.DatagramProtocol):
    """The client's socket with its one session; see :func:`connect_dtls`."""

    def __init__(
        self, session: DtlsSession, open_user: Callable[[DtlsChannel], ChannelUser], timeout: float
    ) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.channel = DtlsChannel(
            session,
            self._transmit,
            open_user,
            self._on_lost,
            handshake_timeout=timeout,
            idle_timeout=math.inf,
        )

    async def handshake(self) -> None:
        """Shake hands.

        :raises ChannelError: it did not work.
        """
        try:
            self.channel.session.start()
            self.channel.begin()
            await self._established
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the session with a close_notify, and the socket."""
        self.channel.close()
        if self._transport is not None:
            self._transport.close()
            await self._closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket's transport."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, and so is the session."""
        self.channel.close()
        if not self._closed.done():
            self._closed.set_result(None)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there, says the kernel; worth believing while there is no session."""
        if not self.channel.established and not self.channel.lost:
            self.channel.close(NobodyThere(f"there is no server: {exc}"))

    def datagram_received(self, data: bytes, addr: SocketAddress) -> None:
        """Give the datagram to the session."""
        self.channel.datagram_received(data)
        if self.channel.established and not self._established.done():
            self._established.set_result(None)

    def _on_lost(self, _channel: DtlsChannel, reason: ChannelError) -> None:
        if not self._established.done():
            self._established.set_exception(reason)
            # Whoever waits is told; if nobody does, nobody needs a warning either.
            self._established.exception()

    def _transmit(self, datagram: bytes) -> None:
        send_datagram(self._transport, datagram, None, _SEND_BUFFER)


async def connect_dtls(
    session: DtlsSession,
    open_user: Callable[[DtlsChannel], ChannelUser],
    *,
    remote: tuple[str, int],
    handshake_timeout: float = 60.0,
    factory: DatagramTransportFactory = udp_transport,
) -> DtlsClient:
    """Open a client's session.

    :param session: a client's session that has not begun.
    :param open_user: makes the user of the session once the handshake is complete.
    :param remote: host and port of the server.
    :param handshake_timeout: seconds that the handshake may take.
    :raises PeerNotTrusted: the server's chain does not verify.
    :raises ChannelError: there is no server, or no handshake.
    """
    client = DtlsClient(session, open_user, handshake_timeout)
    try:
        await factory(client, local=None, remote=remote)
    except OSError as error:
        client.channel.close()
        raise ChannelError(f"{remote[0]}: {error.strerror or error}") from error
    await client.handshake()
    return client
