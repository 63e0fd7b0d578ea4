"""TLS without its socket: octets of the stream in, octets of the stream out."""

from __future__ import annotations

from OpenSSL import SSL

from est_protocol.errors import ChannelClosed, ChannelError, HandshakeFailed
from est_protocol.secure_channel import bindings
from est_protocol.secure_channel.engine import Engine, explain


class TlsEngine(Engine):
    """One TLS connection.

    After every call, also after one that raised, send what :meth:`octets_to_send` returns: a
    failed handshake leaves an alert there that tells the peer why.

    Made as any :class:`~est_protocol.secure_channel.engine.Engine`, with a context of
    :func:`~est_protocol.secure_channel.context.tls_context`.
    """

    @property
    def context(self) -> SSL.Context:
        """The OpenSSL context."""
        return self._connection.get_context()

    def start(self) -> None:
        """Begin the handshake; a client's first flight is then ready to be sent."""
        if not self._server:
            self._handshake()

    @property
    def only_tickets_wait(self) -> bool:
        """Whether all that waits to be sent, right after the handshake, is what nobody waits for.

        OpenSSL ends a server's TLS 1.3 handshake with two session tickets, and pyOpenSSL cannot
        tell it not to. They may go along with the first answer.
        """
        return self._server and self.peer is not None and self.peer.protocol == "TLSv1.3"

    def receive_octets(self, octets: bytes) -> list[bytes]:
        """Take what arrived and return the plaintext in it, one entry per record.

        :raises HandshakeFailed: the handshake is over without success.
        :raises PeerNotTrusted: the same, because of the server's certificate.
        :raises ChannelError: the peer broke the protocol after the handshake.
        """
        if not octets or self._failed or self.peer_closed:
            return []
        self._connection.bio_write(octets)
        if not self.established:
            self._handshake()
        if not self.established:
            return []
        try:
            return self._read_plaintext()
        except ChannelError:
            self._failed = True
            raise

    def receive_eof(self) -> None:
        """Take note that the stream has ended.

        An end without close_notify may be an attacker's truncation (RFC 8446 section 6.1). Many
        peers end like that, so it is no error here, but ``peer_closed`` stays false and whoever
        relies on the end of the stream to delimit a message must look at it.

        :raises HandshakeFailed: the handshake was not complete.
        """
        if not self.established and not self._failed:
            self._failed = True
            raise HandshakeFailed("the peer ended the connection during the handshake")

    def send_plaintext(self, plaintext: bytes) -> None:
        """Encrypt ``plaintext``; the records are then ready to be sent.

        :raises ChannelClosed: :meth:`close` was called, the channel failed or is not established.
        """
        if not self.established or self._closed or self._failed:
            raise ChannelClosed("the TLS channel is not open for sending")
        if not plaintext:
            return
        try:
            self._connection.sendall(plaintext)
        except SSL.Error as error:
            self._failed = True
            raise ChannelError(explain(error)) from error

    def close(self) -> None:
        """Say close_notify; does nothing the second time or where there is no channel.

        :raises ChannelError: OpenSSL cannot, for instance in the middle of a renegotiation.
        """
        if self._closed or self._failed or not self.established:
            return
        self._closed = True
        try:
            self._connection.shutdown()
        except SSL.Error as error:
            self._failed = True
            raise ChannelError(explain(error)) from error

    def octets_to_send(self) -> bytes:
        """Everything that waits to be sent to the peer."""
        return self._read_ciphertext()

    def _read_plaintext(self) -> list[bytes]:
        # A stream leaves nothing in OpenSSL but what these octets count, so that there is no need
        # for OpenSSL to say by an exception that there is no more.
        plaintext: list[bytes] = []
        while bindings.octets_to_read(self._connection):
            record = self._read_record()
            if record is None:
                break
            plaintext.append(record)
        return plaintext

    def _handshake(self) -> None:
        try:
            self._continue_handshake()
        except ChannelError:
            self._failed = True
            raise
