"""DTLS 1.2 without its socket: datagrams in, datagrams out, time as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509
from OpenSSL import SSL

from est_protocol.credentials import VerificationFailure
from est_protocol.errors import ChannelClosed, ChannelError, HandshakeFailed
from est_protocol.secure_channel import records
from est_protocol.secure_channel.context import TrustAnchors, strength_failures
from est_protocol.secure_channel.engine import Engine, explain
from est_protocol.secure_channel.policy import DtlsPolicy
from est_protocol.secure_channel.records import Record

#: How many sequence numbers back OpenSSL still takes a late record (RFC 6347 section 4.1.2.6).
_REPLAY_WINDOW = 64
#: Records of one datagram that are looked at; a whole flight has ten at most. A datagram of 64 KiB
#: has room for 5000, which take 21 ms.
_MOST_RECORDS = 32
#: Messages of the peer's side of a handshake, and parts of them in one record; there are six.
_MOST_MESSAGES = 16
#: Octets by which a protected record is longer than its plaintext, at most: header, explicit
#: nonce and tag of the GCM and CCM suites.
RECORD_OVERHEAD = records.HEADER_SIZE + 8 + 16


class DtlsSession(Engine):
    """One DTLS 1.2 association.

    After every call, also after one that raised, send what :meth:`datagrams_to_send` returns: a
    failed handshake leaves an alert there. Whenever :meth:`deadline` passes, call
    :meth:`handle_timeout`.

    :param context: made by :func:`~est_protocol.secure_channel.context.dtls_context`.
    :param anchors: the anchors that ``context`` was made with.
    :param policy: the policy that ``context`` was made with.
    :param server: the role; a server's sessions come out of a
        :class:`~est_protocol.secure_channel.dtls_listener.DtlsListener`.
    :param address: the peer's address, for logs.
    :param server_name: as for :class:`~est_protocol.secure_channel.engine.Engine`.
    """

    def __init__(
        self,
        context: SSL.Context,
        anchors: TrustAnchors,
        policy: DtlsPolicy,
        *,
        server: bool,
        address: str = "",
        server_name: str | None = None,
    ) -> None:
        super().__init__(context, anchors, server=server, address=address, server_name=server_name)
        self._connection.set_ciphertext_mtu(policy.mtu)
        #: Octets of the largest datagram.
        self.mtu = policy.mtu
        self._ccm8_forgery_limit = policy.ccm8_forgery_limit
        self._maximum_handshake = policy.maximum_handshake
        # Octets of the peer's handshake messages, by their numbers.
        self._claimed: dict[int, int] = {}
        self._window = _ReplayWindow()
        #: Protected records that did not decrypt.
        self.forged_records = 0
        #: The random of the ClientHello that a server's session was opened by.
        self.client_random = b""

    @property
    def maximum_plaintext(self) -> int:
        """Octets of the largest plaintext datagram that fits into the MTU."""
        return self.mtu - RECORD_OVERHEAD

    @property
    def open(self) -> bool:
        """Whether plaintext may be sent."""
        return self.established and not (self._closed or self._failed or self.peer_closed)

    @property
    def over(self) -> bool:
        """Whether nothing can be sent or received any more, nor a handshake be completed."""
        return self._closed or self._failed or self.peer_closed

    def start(self) -> None:
        """Begin the handshake; a client's first flight is then ready to be sent."""
        self._handshake()

    def receive_datagram(self, datagram: bytes) -> list[bytes]:
        """Take one datagram and return the plaintext datagrams in it, one per record.

        What is no record, or does not decrypt, is dropped without a word (RFC 6347 section
        4.1.2.7).

        :raises HandshakeFailed: the handshake is over without success.
        :raises PeerNotTrusted: the same, because of the server's certificate.
        :raises ChannelError: the session is over: a fatal alert, or too many forged records.
        """
        plaintext: list[bytes] = []
        for record in records.split(datagram, most=_MOST_RECORDS):
            if self.over:
                break
            plaintext += self._receive_record(record)
        return plaintext

    def listen(self, record: Record, address: str) -> None:
        """Let a session that has no peer yet take a ClientHello; for the listener only.

        Without a valid cookie in it a HelloVerifyRequest waits to be sent and the session is as
        it was before; with one the session is the peer's and ``client_random`` is set.

        :raises ChannelError: it is no ClientHello, or its handshake cannot succeed.
        """
        self._connection.bio_write(record.octets)
        try:
            self._connection.DTLSv1_listen()
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            raise ChannelError(explain(error)) from error
        self._connection.set_ciphertext_mtu(self.mtu)
        self.address = address
        self.client_random = record.client_random or b""
        self._handshake()

    def _receive_record(self, record: Record) -> list[bytes]:
        if not self.established and not self._fits(record):
            return []
        self._connection.bio_write(record.octets)
        try:
            if self.established:
                return self._receive_protected(record)
            self._continue_handshake()
            # What overtook the peer's Finished waits in OpenSSL.
            return self._read_plaintext() if self.established else []
        except ChannelError:
            self._failed = True
            raise

    def _fits(self, record: Record) -> bool:
        """Whether the handshake's messages do not become too much by this part of one."""
        parts = record.claimed_messages(_MOST_MESSAGES + 1)
        if not parts:
            return True
        claimed = dict(self._claimed)
        for number, octets in parts:
            # A part that claims less later takes nothing back of what is kept for the first.
            claimed[number] = max(octets, claimed.get(number, 0))
        # Both counts: one record may have many parts of one message.
        too_many = max(len(parts), len(claimed)) > _MOST_MESSAGES
        if too_many or sum(claimed.values()) > self._maximum_handshake:
            return False
        self._claimed = claimed
        return True

    def _receive_protected(self, record: Record) -> list[bytes]:
        # One record went in, so one comes out; asking for another cost 5 us each time.
        plaintext = self._read_record()
        if record.epoch and not self.peer_closed:
            self._count_forgery(record, accepted=plaintext is not None)
        return [] if plaintext is None else [plaintext]

    def _count_forgery(self, record: Record, *, accepted: bool) -> None:
        """Close before the 64-bit tag of CCM_8 has been guessed at too often.

        The limit is RFC 9147's (section 4.5.3); the other suites' tags are long enough. A
        retransmitted Finished counts too: it yields no plaintext, and there are few of them.
        """
        if accepted:
            self._window.accept(record.sequence_number)
        elif self._window.is_new(record.sequence_number):
            self.forged_records += 1
            assert self.peer is not None
            if "CCM8" in self.peer.cipher and self.forged_records >= self._ccm8_forgery_limit:
                raise ChannelError(f"{self.forged_records} records did not decrypt")

    def send_plaintext(self, plaintext: bytes) -> None:
        """Encrypt one plaintext datagram into one record, which is then ready to be sent.

        :raises ChannelClosed: the session is not established, or is over.
        :raises ValueError: ``plaintext`` is empty or longer than :attr:`maximum_plaintext`.
        """
        if not self.open:
            raise ChannelClosed("the DTLS session is not open for sending")
        if not 0 < len(plaintext) <= self.maximum_plaintext:
            raise ValueError(f"a plaintext of {len(plaintext)} octets does not fit")
        try:
            self._connection.send(plaintext)
        except SSL.Error as error:
            self._failed = True
            raise ChannelError(explain(error)) from error

    def datagrams_to_send(self) -> list[bytes]:
        """Everything that waits to be sent, in datagrams of at most the policy's MTU."""
        octets = self._read_ciphertext()
        if len(octets) <= self.mtu:
            return [octets] if octets else []
        return records.pack(records.split(octets), self.mtu)

    def deadline(self, now: float) -> float | None:
        """When to call :meth:`handle_timeout`, on the clock of ``now``; ``None`` for never.

        OpenSSL keeps the time itself: one second at first, doubled each time (RFC 6347 section
        4.2.4.1).
        """
        if self.over:
            return None
        left = self._connection.DTLSv1_get_timeout()
        return None if left is None else now + left

    def handle_timeout(self) -> None:
        """Retransmit the last flight of the handshake if its time has come.

        :raises HandshakeFailed: the peer has not answered too often.
        """
        if self.over:
            return
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            self._failed = True
            raise HandshakeFailed(explain(error)) from error

    def close(self) -> None:
        """Say close_notify; does nothing the second time or where there is no session."""
        if self._closed or self._failed or not self.established:
            self._closed = True
            return
        self._closed = True
        try:
            self._connection.shutdown()
        except SSL.Error as error:
            self._failed = True
            raise ChannelError(explain(error)) from error

    def _strength_failures(self, path: Sequence[x509.Certificate]) -> Iterable[VerificationFailure]:
        return strength_failures(path, self._anchors)

    def _handshake(self) -> None:
        try:
            self._continue_handshake()
        except ChannelError:
            self._failed = True
            raise


class _ReplayWindow:
    """Which records were accepted before, so that a duplicate is no forgery."""

    def __init__(self) -> None:
        self._highest = -1
        self._seen: set[int] = set()

    def accept(self, number: int) -> None:
        self._highest = max(self._highest, number)
        self._seen.add(number)
        if len(self._seen) > 2 * _REPLAY_WINDOW:
            self._seen = {seen for seen in self._seen if self.is_recent(seen)}

    def is_recent(self, number: int) -> bool:
        return number > self._highest - _REPLAY_WINDOW

    def is_new(self, number: int) -> bool:
        """Whether OpenSSL would have tried to decrypt it."""
        return self.is_recent(number) and number not in self._seen
