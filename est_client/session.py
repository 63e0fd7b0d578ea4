"""One client's channel to its server: made when needed, trusted before it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from cryptography import x509

from est_client.bootstrap import CaFingerprint, bootstrap
from est_client.connection import Connector, EstConnection
from est_client.secrets import Listener
from est_client.self_signed import self_signed
from est_client.server_identity import is_registration_authority, verify_server
from est_client.trust import TrustDatabase
from est_protocol.chain import verify_chain
from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import CertificateRejected, ConfigurationError, PeerNotTrusted
from est_protocol.keys import SigningKey
from est_protocol.messages import Transport
from est_protocol.secure_channel.context import LocalCredentials

_log = logging.getLogger(__name__)

#: How far the notBefore of a self-signed certificate lies in the past, for slow clocks.
_BACKDATE = timedelta(days=1)
_SELF_SIGNED_VALIDITY = timedelta(days=365)


class Session:
    """Keeps at most one connection, with the identity and the trust of the moment.

    :param identity: the key, and the certificate chain or none, to authenticate with. Replace
        the attribute and the next connection uses the new one.
    :param trust: what the server's chain may end at, or the fingerprint to find that out by.
    :param label: the label under which a bootstrap asks for /cacerts.
    :param present_bare_key: whether an identity without certificates presents a self-signed one;
        on CoAPS it always does (RFC 9148 section 3).
    :param keep: seconds after which an idle connection is not used any more; the server may
        have ended it by then (RFC 9148 section 3).
    :param monotonic: seconds of a clock that never jumps.
    :param now: the current time, timezone-aware.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        label: str | None,
        trust: TrustDatabase | CaFingerprint,
        identity: LocalCredentials | None,
        present_bare_key: bool,
        keep: float,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        #: To the server that the caller named.
        self.connector = connector
        self._elsewhere: Connector | None = None
        self.identity = identity
        self._label = label
        self._trust = trust
        self._keep = keep
        self._monotonic = monotonic
        self._now = now
        self._last_used = 0.0
        self._present_bare_key = present_bare_key or connector.transport is Transport.COAPS
        self._self_signed: tuple[SigningKey, LocalCredentials] | None = None
        self._connection: EstConnection | None = None
        self._connected_as: LocalCredentials | None = None
        self._server_chain: tuple[x509.Certificate, ...] = ()
        #: The database that verified the server of the latest connection.
        self.verified_by: AnchorSet | None = None

    @property
    def trust(self) -> TrustDatabase | None:
        """The trust databases; ``None`` while the fingerprint has not been followed."""
        return self._trust if isinstance(self._trust, TrustDatabase) else None

    @property
    def server(self) -> Listener:
        """What is known of the server of the latest connection."""
        return Listener(self.verified_by, home=self._elsewhere is None)

    async def go_elsewhere(self, connector: Connector | None) -> None:
        """Make a new connection, by ``connector`` until :meth:`go_home`; ``None``: to the server
        that the caller named."""
        await self.close()
        self._elsewhere = connector

    async def go_home(self) -> None:
        """Connect to the server that the caller named again."""
        if self._elsewhere is not None:
            await self.close()
            self._elsewhere = None

    async def connection(self) -> EstConnection:
        """The connection, made anew if there is none, it is stale or the identity has changed.

        :raises PeerNotTrusted: the server is not the one that was meant; nothing was sent.
        :raises ChannelError: there is no server, or no handshake.
        """
        stale = self._monotonic() - self._last_used > self._keep
        if self._connection is not None and (stale or self._connected_as is not self.identity):
            await self.close()
        if self._connection is None:
            self._connection = await self._connect()
            self._connected_as = self.identity
        self._last_used = self._monotonic()
        return self._connection

    def answered(self) -> None:
        """An answer came over the connection: it has been idle only since now."""
        self._last_used = self._monotonic()

    async def _connect(self) -> EstConnection:
        credentials = self._credentials()
        if isinstance(self._trust, CaFingerprint):
            self._trust = await bootstrap(
                self.connector,
                self._trust,
                label=self._label,
                credentials=credentials,
                now=self._now(),
            )
        connector = self._elsewhere or self.connector
        connection = await connector.connect(credentials=credentials, anchors=self._trust.anchors())
        try:
            self.verified_by = verify_server(connection.server, connector.host)
        except PeerNotTrusted:
            await connection.close()
            raise
        server = connection.server
        self._server_chain = tuple(server.chain)
        self._warn_of_a_mere_name(server)
        _log.info(
            "connected to %s: %s, %s, verified by the %s trust anchors",
            connector.host,
            server.protocol,
            server.cipher,
            self.verified_by.value,
        )
        return connection

    def _warn_of_a_mere_name(self, server: PeerCredentials) -> None:
        """RFC 9148 section 9.2: an Implicit anchor does not say who may be a registrar."""
        if self.connector.transport is Transport.COAPS and self.verified_by is AnchorSet.IMPLICIT:
            certificate = server.certificate
            if certificate is not None and not is_registration_authority(certificate):
                _log.warning("nothing but its name says that this is an EST server: no id-kp-cmcRA")

    def _credentials(self) -> LocalCredentials | None:
        identity = self.identity
        if identity is None:
            if self.connector.transport is Transport.COAPS:
                raise ConfigurationError("EST over CoAPS needs a client key (RFC 9148 section 3)")
            return None
        if identity.chain:
            return identity
        if not self._present_bare_key:
            return None
        if self._self_signed is None or self._self_signed[0] is not identity.key:
            certificate = self_signed(
                identity.key,
                not_before=self._now() - _BACKDATE,
                validity=_SELF_SIGNED_VALIDITY,
            )
            self._self_signed = identity.key, LocalCredentials(identity.key, (certificate,))
        return self._self_signed[1]

    async def adopt_trust(self, anchors: Sequence[x509.Certificate]) -> None:
        """Take the anchors that /cacerts gave over this very session.

        The server's chain is verified once more, under the new anchors, since they are what later
        connections are verified by (RFC 7030 section 4.1.3). On CoAPS it has to verify before
        anything else is sent (RFC 9148 section 9.1). On HTTPS the Explicit anchor that it does
        verify by is kept beside them: RFC 7030 section 4.1.3 adds entries to the Explicit
        database, and wants the Implicit one disabled only.

        :raises PeerNotTrusted: it does not verify; the trust is as before, the session closed.
        """
        previous = self.trust or TrustDatabase()
        chain = self._server_chain
        try:
            verify_chain(chain[0], anchors=anchors, intermediates=chain[1:], now=self._now())
        except CertificateRejected as error:
            anchors = (*anchors, await self._other_anchor(previous, error))
        self._trust = previous.learned(anchors)

    async def _other_anchor(
        self, previous: TrustDatabase, error: CertificateRejected
    ) -> x509.Certificate:
        """The Explicit anchor of a server that is of another CA than those that it names."""
        chain = self._server_chain
        if self.connector.transport is Transport.HTTPS:
            try:
                path = verify_chain(
                    chain[0],
                    anchors=previous.explicit,
                    intermediates=chain[1:],
                    now=self._now(),
                )
            except CertificateRejected:
                pass
            else:
                _log.info("the server itself is of another CA, which stays a trust anchor")
                return path[-1]
        await self.close()
        raise PeerNotTrusted(
            "the server is not one of the CA whose certificates it sends, so it could not be "
            f"verified again by them: {error}"
        ) from error

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
