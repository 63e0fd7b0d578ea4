"""Two ends of DTLS over a network in memory that loses, doubles, delays and garbles datagrams."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from est_protocol.credentials import AnchorSet
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, dtls_context
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_listener import DtlsListener
from est_protocol.secure_channel.policy import DtlsPolicy
from tests import pki

ROOT = pki.make_ca("root")
ISSUER = pki.make_ca("issuer", ROOT)
SERVER = pki.make_server(ISSUER)
DEVICE = pki.make_leaf(ISSUER, "device")
SERVER_ANCHORS = TrustAnchors({AnchorSet.OPERATIONAL: (ROOT.certificate,)})
CLIENT_ANCHORS = TrustAnchors({AnchorSet.EXPLICIT: (ROOT.certificate,)})


def make_listener(policy: DtlsPolicy | None = None, lifetime: float = 60.0) -> DtlsListener:
    """A listener with the test PKI's server certificate."""
    policy = policy or DtlsPolicy()
    context = dtls_context(policy, server=True, credentials=SERVER, anchors=SERVER_ANCHORS)
    return DtlsListener(context, SERVER_ANCHORS, policy, secret_lifetime=lifetime)


def make_client(
    policy: DtlsPolicy | None = None,
    credentials: LocalCredentials | None = DEVICE,
    anchors: TrustAnchors = CLIENT_ANCHORS,
) -> DtlsSession:
    """A client that has its first flight ready."""
    policy = policy or DtlsPolicy()
    context = dtls_context(
        policy, server=False, credentials=credentials, anchors=anchors, require_trust=True
    )
    session = DtlsSession(context, anchors, policy, server=False, server_name="localhost")
    session.start()
    return session


@dataclass
class Network:
    """What happens to datagrams, each way; the same for the same seed.

    :param loss: the share of datagrams that vanish.
    :param duplicate: the share that arrives twice.
    :param reorder: the share that is overtaken by everything sent in the same turn.
    :param garbage: the share that is followed by a datagram of random octets.
    """

    seed: int = 0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    garbage: float = 0.0
    lost: int = 0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def carry(self, datagrams: list[bytes]) -> list[bytes]:
        """What arrives of ``datagrams``."""
        early: list[bytes] = []
        late: list[bytes] = []
        for datagram in datagrams:
            if self._random.random() < self.loss:
                self.lost += 1
                continue
            copies = 2 if self._random.random() < self.duplicate else 1
            (late if self._random.random() < self.reorder else early).extend([datagram] * copies)
            if self._random.random() < self.garbage:
                early.append(self._random.randbytes(self._random.randrange(1, 300)))
        return early + late


@dataclass
class Pair:
    """A client and a listener, and the server's session once there is one."""

    listener: DtlsListener
    client: DtlsSession
    network: Network = field(default_factory=Network)
    address: str = "127.0.0.1:1"
    server: DtlsSession | None = None
    sizes: list[int] = field(default_factory=list)

    @property
    def established(self) -> bool:
        """Whether both ends have completed the handshake."""
        return self.client.established and self.server is not None and self.server.established

    def turn(self) -> None:
        """Let each end act once on what arrives and on what time it is."""
        self.client.handle_timeout()
        for datagram in self._carry(self.client.datagrams_to_send()):
            self._to_server(datagram)
        if self.server is not None:
            self.server.handle_timeout()
            self._to_client(self.server.datagrams_to_send())

    def _to_server(self, datagram: bytes) -> None:
        if self.server is not None:
            self.server.receive_datagram(datagram)
            return
        replies, self.server = self.listener.receive_datagram(
            datagram, self.address, time.monotonic()
        )
        self._to_client(replies)

    def _to_client(self, datagrams: list[bytes]) -> None:
        for datagram in self._carry(datagrams):
            self.client.receive_datagram(datagram)

    def _carry(self, datagrams: list[bytes]) -> list[bytes]:
        self.sizes += [len(datagram) for datagram in datagrams]
        return self.network.carry(datagrams)

    def shake_hands(self) -> DtlsSession:
        """Complete the handshake without loss; the server's session."""
        for _ in range(8):
            self.turn()
        assert self.established
        assert self.server is not None
        return self.server


def connect(policy: DtlsPolicy | None = None) -> tuple[DtlsSession, DtlsSession]:
    """An established client and its server."""
    pair = Pair(make_listener(policy), make_client(policy))
    return pair.client, pair.shake_hands()


def shake_hands_in_real_time(pairs: list[Pair], seconds: float) -> None:
    """Let all pairs shake hands side by side; OpenSSL's retransmission timer knows real time only.

    :raises TimeoutError: one of them is not done after ``seconds``.
    """
    end = time.monotonic() + seconds
    while waiting := [pair for pair in pairs if not pair.established]:
        if time.monotonic() > end:
            raise TimeoutError(f"{len(waiting)} of {len(pairs)} handshakes are not complete")
        for pair in waiting:
            pair.turn()
        time.sleep(0.01)
