"""One (D)TLS channel without its socket: what TLS and DTLS have in common.

:class:`Engine` wraps one OpenSSL connection over memory BIOs. :mod:`.tls` and :mod:`.dtls` add
what differs: a stream of octets here, datagrams, cookies and timers there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509
from OpenSSL import SSL

from est_protocol.channel_binding import (
    EXPORTER_LABEL,
    EXPORTER_LENGTH,
    ChannelBinding,
    ChannelBindingType,
)
from est_protocol.credentials import PeerCredentials, VerificationFailure
from est_protocol.errors import ChannelError, HandshakeFailed, MessageError, PeerNotTrusted
from est_protocol.secure_channel.bindings import has_extended_master_secret, octets_to_send
from est_protocol.secure_channel.context import TrustAnchors
from est_protocol.secure_channel.peer_certificates import PeerCertificates
from est_protocol.secure_channel.policy import DtlsPolicy, TlsPolicy
from est_protocol.x509_decoding import decoding_x509

#: Largest plaintext of one TLS record (RFC 8446 section 5.1).
_RECORD_SIZE = 16384


class Engine:
    """One channel. Feed it what arrives, send what it has to say.

    :param context: made by :mod:`est_protocol.secure_channel.context`.
    :param anchors: the anchors that ``context`` was made with.
    :param server: the role.
    :param address: the peer's address, for logs.
    :param server_name: what a client puts into the server_name extension (RFC 6066 section 3): a
        DNS name in ASCII; ``None`` for IP addresses, which may not stand there.
    """

    def __init__(
        self,
        context: SSL.Context,
        anchors: TrustAnchors,
        *,
        server: bool,
        address: str = "",
        server_name: str | None = None,
    ) -> None:
        self._connection = SSL.Connection(context, None)
        if server_name is not None:
            self._connection.set_tlsext_host_name(server_name.encode("ascii"))
        self._failed = False
        self._closed = False
        self._failures: list[VerificationFailure] = []
        self._connection.set_app_data(self._failures)
        self._anchors = anchors
        self._server = server
        self.address = address
        if server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
        #: Who the peer is; ``None`` until the handshake is complete.
        self.peer: PeerCredentials | None = None
        #: Whether the peer has said that it sends no more (close_notify).
        self.peer_closed = False

    @property
    def established(self) -> bool:
        """Whether the handshake is complete."""
        return self.peer is not None

    @property
    def extended_master_secret(self) -> bool:
        """Whether RFC 7627 binds the keys to the handshake; TLS 1.3 does so by itself."""
        return has_extended_master_secret(self._connection)

    def _continue_handshake(self) -> None:
        """Take the handshake as far as the octets that have arrived allow.

        :raises HandshakeFailed: it is over; an alert may be waiting to be sent.
        """
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return
        except (SSL.Error, ValueError) as error:
            if self._failures and not self._server:
                failures = "; ".join(failure.text for failure in self._failures)
                raise PeerNotTrusted(f"the server's certificate: {failures}") from error
            raise HandshakeFailed(explain(error)) from error
        self.peer = self._peer_credentials()

    def _read_plaintext(self) -> list[bytes]:
        """Decrypt what has arrived, one entry per record.

        :raises ChannelError: the peer broke the protocol.
        """
        plaintext: list[bytes] = []
        while (record := self._read_record()) is not None:
            plaintext.append(record)
        return plaintext

    def _read_record(self) -> bytes | None:
        """Decrypt the next record that has arrived, ``None`` if there is no more.

        :raises ChannelError: the peer broke the protocol.
        """
        try:
            return self._connection.recv(_RECORD_SIZE)
        except SSL.WantReadError:
            return None
        except SSL.ZeroReturnError:
            self.peer_closed = True
            return None
        except SSL.Error as error:
            raise ChannelError(explain(error)) from error

    def _read_ciphertext(self) -> bytes:
        """Everything that OpenSSL wants to send."""
        waiting = octets_to_send(self._connection)
        return self._connection.bio_read(waiting) if waiting else b""

    def _channel_binding(self) -> ChannelBinding | None:
        if self._connection.get_protocol_version() == SSL.TLS1_3_VERSION:
            value = self._connection.export_keying_material(EXPORTER_LABEL, EXPORTER_LENGTH, b"")
            return ChannelBinding(ChannelBindingType.TLS_EXPORTER, value)
        policy: TlsPolicy | DtlsPolicy = self._connection.get_context().get_app_data()
        if not (
            has_extended_master_secret(self._connection)
            or policy.bind_without_extended_master_secret
        ):
            # RFC 7627 section 6.1: tls-unique may be that of another channel, too.
            return None
        # RFC 5929 section 3.1: the first Finished message of the handshake, which in a full
        # handshake is the client's; there is no resumption here.
        connection = self._connection
        value_or_none = (
            connection.get_peer_finished() if self._server else connection.get_finished()
        )
        if value_or_none is None:
            raise HandshakeFailed("the handshake is complete but has no Finished message")
        return ChannelBinding(ChannelBindingType.TLS_UNIQUE, value_or_none)

    def _strength_failures(self, path: Sequence[x509.Certificate]) -> Iterable[VerificationFailure]:
        """What OpenSSL did not say of the strength of the peer's path."""
        return ()

    def _peer_credentials(self) -> PeerCredentials:
        connection = self._connection
        try:
            # OpenSSL takes encodings that nobody after us could read.
            with decoding_x509("the peer's certificate"):
                certificates = PeerCertificates.of(connection, self._anchors)
                weak = self._strength_failures(certificates.path)
        except MessageError as error:
            raise HandshakeFailed(str(error)) from error
        return PeerCredentials(
            chain=certificates.presented,
            anchor_set=certificates.anchor_set,
            failures=tuple(dict.fromkeys([*self._failures, *weak])),
            channel_binding=self._channel_binding(),
            protocol=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "",
            address=self.address,
        )


def explain(error: Exception) -> str:
    """OpenSSL's error queue in one line."""
    if error.args and isinstance(error.args[0], list):
        return "; ".join(entry[2] or entry[0] for entry in error.args[0]) or "protocol error"
    return str(error) or "the connection ended"
