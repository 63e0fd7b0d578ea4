"""What the client needs of a transport: one connection, and a way to make it."""

from __future__ import annotations

from typing import Protocol

from est_protocol.credentials import PeerCredentials
from est_protocol.messages import EstRequest, EstResponse, Transport
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors


class EstConnection(Protocol):
    """One established secure channel to an EST server.

    All requests of one connection travel over the same channel, so that a CSR linked to
    ``server.channel_binding`` reaches the server over the channel that it is linked to. A
    connection never reconnects by itself.
    """

    @property
    def server(self) -> PeerCredentials:
        """The server, as far as the handshake proved it."""
        ...

    async def request(self, request: EstRequest) -> EstResponse:
        """Send one request and wait for the whole answer.

        :raises ServerRefused: the server answered with an error.
        :raises MessageError: the answer does not decode, or is too large.
        :raises ChannelError: the channel ended, or took too long, before the answer was complete.
        """
        ...

    async def close(self) -> None:
        """Close the channel with a close_notify; does nothing the second time."""
        ...


class Connector(Protocol):
    """Makes connections to one EST server over one transport."""

    @property
    def transport(self) -> Transport:
        """The transport; some rules differ (RFC 9148 sections 3 and 9.1)."""
        ...

    @property
    def host(self) -> str:
        """The host that the server's certificate must name: DNS name or IP address literal."""
        ...

    async def connect(
        self,
        *,
        credentials: LocalCredentials | None,
        anchors: TrustAnchors,
        require_trust: bool = True,
    ) -> EstConnection:
        """Open a channel.

        :param credentials: the client's own key and certificate chain; ``None`` for none.
        :param anchors: what the server's chain may end at.
        :param require_trust: end the handshake if the server's chain does not verify. Only the
            provisional connection of a bootstrap (RFC 7030 section 4.1.1) goes without.
        :raises PeerNotTrusted: the server's chain does not verify.
        :raises ChannelError: there is no server, or no handshake.
        """
        ...
