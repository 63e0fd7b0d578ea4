"""The server of a simulation: all of it is real but the sockets and the clock.

A fleet simulator opens it in its own event loop and hands in what stands for sockets. Its CA, its
configuration and its store are made for the run, in a directory of the caller's.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ConfigurationError, RequestRefused
from est_protocol.messages import EstRequest, EstResponse, Transport
from est_protocol.operations import Operation
from est_protocol.secure_channel.tcp import StreamListenerFactory
from est_protocol.secure_channel.udp import DatagramTransportFactory
from est_server.assembly import Assembly, open_service, open_store
from est_server.authorization.secret_hashes import hash_secret
from est_server.coaps.server import CoapsServer
from est_server.coaps.server import serve as serve_coaps
from est_server.config import ServerConfig, load_config
from est_server.device_records import ListDescription, ListedDevice, ListRow
from est_server.https import EstSite, HttpsServer
from est_server.https import serve as serve_https
from est_server.legacy_forms import LegacyForms
from est_server.new_server import CONFIG_NAME, STORE_NAME, NewServer, provision
from est_server.service import EnrollmentService
from est_server.user_credentials import EnrollmentSecret

#: Where it "listens"; the simulated devices know it by this address.
HOST, HTTPS_PORT, COAPS_PORT = "127.0.0.1", 8443, 5684
#: The cheapest scrypt there is; these secrets protect nothing.
_HASH_COST = 16


@dataclass(frozen=True, slots=True)
class InProcessOptions:
    """How the server is to be set up.

    :param manufacturers: whose birth certificates it believes.
    :param secrets: the one-time secret of each device, by its UDID; where there are any, only they
        count.
    :param validity: of the certificates that it issues.
    :param handshake_timeout: seconds that a handshake may take, on either transport; ``None`` for
        the server's own default, here as below.
    :param ack_timeout: CoAP's ACK_TIMEOUT in seconds.
    :param maximum_sessions: DTLS sessions, and TLS connections, at a time.
    :param mtu: octets of the largest DTLS datagram that it sends.
    :param block_size_exponent: SZX of the largest CoAP block that it sends.
    :param send_root: whether DTLS handshakes carry the root certificate too.
    :param workers: processors.
    :param work_time: simulated seconds that one of them takes for a request, with its share of
        the handshake.
    """

    manufacturers: Sequence[x509.Certificate] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    validity: timedelta = timedelta(days=90)
    handshake_timeout: float | None = None
    ack_timeout: float | None = None
    maximum_sessions: int | None = None
    mtu: int | None = None
    block_size_exponent: int | None = None
    send_root: bool = False
    workers: int = 1
    work_time: float = 0.0


class Workers:
    """The processors of a server, which take simulated time for each request, in its turn.

    :param count: how many there are.
    :param seconds: that one of them takes for a request.
    :param clock: the simulated seconds.
    """

    def __init__(self, count: int, seconds: float, clock: Callable[[], float]) -> None:
        if count < 1 or seconds < 0:
            raise ConfigurationError("a server has workers, and they take no negative time")
        self._seconds = seconds
        self._clock = clock
        self._free_at = [0.0] * count

    async def work(self) -> None:
        """Wait for a worker, and for its work."""
        if not self._seconds:
            return
        now = self._clock()
        done = max(now, heapq.heappop(self._free_at)) + self._seconds
        heapq.heappush(self._free_at, done)
        await asyncio.sleep(done - now)


class ServerView:
    """What the server sees of a run; the service of both transports goes through it."""

    def __init__(
        self,
        service: EnrollmentService,
        workers: Workers,
        clock: Callable[[], float],
        standing_still: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._service = service
        self._workers = workers
        self._clock = clock
        self._standing_still = standing_still
        self._answering: set[asyncio.Task[EstResponse]] = set()
        self._coaps: CoapsServer | None = None
        self._https: HttpsServer | None = None
        #: Answers by operation and what became of it: ``answered`` or a reason for refusal.
        self.answers: Counter[tuple[str, str]] = Counter()
        #: Seconds of real time that each request took, the store's flush included.
        self.latencies: list[float] = []
        #: Simulated seconds from each request to its answer, waiting for a worker included.
        self.waits: list[float] = []
        #: Requests that are being worked on, now and at most.
        self.working = self.most_working = 0
        #: Moment, sessions, requests being worked on; one entry per request.
        self.history: list[tuple[float, int, int]] = []

    def watch(self, coaps: CoapsServer | None, https: HttpsServer | None) -> None:
        """Count their sessions too."""
        self._coaps, self._https = coaps, https

    @property
    def sessions(self) -> int:
        """DTLS sessions and TLS connections, handshakes included."""
        coaps = 0 if self._coaps is None else self._coaps.sessions
        return coaps + (0 if self._https is None else self._https.connections)

    @property
    def labels(self) -> tuple[str | None, ...]:
        """See :class:`~est_server.service.EnrollmentService`."""
        return self._service.labels

    def operations(self, label: str | None) -> tuple[Operation, ...]:
        """See :class:`~est_server.service.EnrollmentService`."""
        return self._service.operations(label)

    def legacy_forms(self, label: str | None) -> LegacyForms:
        """See :class:`~est_server.service.EnrollmentService`."""
        return self._service.legacy_forms(label)

    async def respond(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        """Answer a request.

        A client that vanishes, which may cancel this, does not let simulated time go on while
        the store still writes.
        """
        task = asyncio.create_task(self._answer(request, peer))
        self._answering.add(task)
        task.add_done_callback(self._answered)
        return await asyncio.shield(task)

    def _answered(self, task: asyncio.Task[EstResponse]) -> None:
        self._answering.discard(task)
        if not task.cancelled():
            # A refusal is counted, whether or not somebody still waits for it.
            task.exception()

    async def _answer(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        arrived = self._clock()
        self.working += 1
        self.most_working = max(self.most_working, self.working)
        self.history.append((arrived, self.sessions, self.working))
        outcome = "answered"
        try:
            await self._workers.work()
            began = time.perf_counter()
            with self._standing_still():
                try:
                    return await self._service.respond(request, peer)
                finally:
                    self.latencies.append(time.perf_counter() - began)
        except RequestRefused as refused:
            outcome = refused.reason.value
            raise
        finally:
            self.working -= 1
            self.waits.append(self._clock() - arrived)
            self.answers[request.operation.value, outcome] += 1

    async def record_refusal(
        self,
        refused: RequestRefused,
        *,
        operation: Operation | None,
        label: str | None,
        transport: Transport,
        peer: PeerCredentials,
    ) -> None:
        """See :class:`~est_server.service.EnrollmentService`."""
        self.answers[operation.value if operation else "-", refused.reason.value] += 1
        await self._service.record_refusal(
            refused, operation=operation, label=label, transport=transport, peer=peer
        )


class InProcessServer:
    """A server that runs; made by :func:`serve_in_process`.

    :param root: the certificate that devices trust.
    :param view: what it sees.
    :param store: the file of its store.
    """

    def __init__(self, root: x509.Certificate, view: ServerView, store: Path) -> None:
        self.root = root
        self.view = view
        self._store = store
        self.host = HOST
        self.ports = {Transport.HTTPS: HTTPS_PORT, Transport.COAPS: COAPS_PORT}

    def certificates_per_device(self) -> Mapping[str, int]:
        """How many certificates the ledger holds for each device, by UDID."""
        with closing(sqlite3.connect(f"file:{self._store}?mode=ro", uri=True)) as db:
            return dict(
                db.execute(
                    "SELECT device, count(*) FROM issuances WHERE status = 'issued' GROUP BY device"
                )
            )


@asynccontextmanager
async def serve_in_process(
    directory: Path,
    listed: Sequence[tuple[str, bytes]],
    settings: Mapping[str, object],
    *,
    open_datagrams: DatagramTransportFactory,
    open_listener: StreamListenerFactory,
    now: Callable[[], datetime],
    clock: Callable[[], float],
    standing_still: Callable[[], AbstractContextManager[None]],
) -> AsyncIterator[InProcessServer]:
    """Make a server in ``directory`` and serve both transports.

    :param directory: empty, or not there.
    :param listed: UDID, and SHA-256 (32 octets) of the key's SubjectPublicKeyInfo, of each device.
    :param settings: fields of :class:`InProcessOptions`.
    :param open_datagrams: opens the UDP socket.
    :param open_listener: opens the TCP listener.
    :param now: the simulated date and time.
    :param clock: the simulated seconds of a clock that never jumps.
    :param standing_still: lets no simulated time pass.
    :raises ConfigurationError: an option makes no sense.
    """
    options = InProcessOptions(**settings)  # type: ignore[arg-type]
    root = provision(directory, NewServer(hosts=("localhost", HOST)), now=now())
    config = _configured(directory, options)
    with standing_still():
        await _import(config, listed, options.secrets, now())
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_service(config, clock=_Clock(now)))
        view = ServerView(
            parts.service,
            Workers(options.workers, options.work_time, clock),
            clock,
            standing_still,
        )
        coaps, https = await _serve(stack, parts, view, open_datagrams, open_listener)
        view.watch(coaps, https)
        yield InProcessServer(root, view, directory / STORE_NAME)


class _Clock:
    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now


async def _serve(
    stack: AsyncExitStack,
    parts: Assembly,
    view: ServerView,
    open_datagrams: DatagramTransportFactory,
    open_listener: StreamListenerFactory,
) -> tuple[CoapsServer, HttpsServer]:
    assert parts.https is not None
    assert parts.coaps is not None
    site = EstSite(view, parts.https.limits)
    https = await serve_https(site, replace(parts.https, open_listener=open_listener))
    await stack.enter_async_context(https)
    coaps = await serve_coaps(view, replace(parts.coaps, transport_factory=open_datagrams))
    await stack.enter_async_context(coaps)
    return coaps, https


def _configured(directory: Path, options: InProcessOptions) -> ServerConfig:
    for number, certificate in enumerate(options.manufacturers):
        folder = directory / "manufacturers"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / f"{number}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    config = load_config(directory / CONFIG_NAME)
    assert config.https is not None
    assert config.coaps is not None
    default = replace(
        config.default, profile=replace(config.default.profile, validity=options.validity)
    )
    if options.secrets:
        default = replace(default, authorizers=("one-time-secret",), otp_challenge=True)
    coaps, https = config.coaps, config.https
    if options.maximum_sessions is not None:
        wanted = options.maximum_sessions
        datagram = replace(
            coaps.limits.datagram,
            maximum_sessions=wanted,
            maximum_handshakes=wanted,
            hellos_per_second=max(coaps.limits.datagram.hellos_per_second, wanted),
        )
        coaps = replace(coaps, limits=replace(coaps.limits, datagram=datagram))
        https = replace(https, limits=replace(https.limits, max_connections=wanted))
    if options.handshake_timeout is not None:
        seconds = options.handshake_timeout
        datagram = replace(coaps.limits.datagram, handshake_timeout=seconds)
        coaps = replace(coaps, limits=replace(coaps.limits, datagram=datagram))
        https = replace(https, limits=replace(https.limits, handshake_timeout=seconds))
    if options.ack_timeout is not None:
        coaps = replace(
            coaps, transmission=replace(coaps.transmission, ack_timeout=options.ack_timeout)
        )
    if options.mtu is not None:
        coaps = replace(coaps, dtls=replace(coaps.dtls, mtu=options.mtu))
    if options.block_size_exponent is not None:
        site = replace(coaps.limits.site, block_size_exponent=options.block_size_exponent)
        coaps = replace(coaps, limits=replace(coaps.limits, site=site))
    coaps = replace(coaps, send_root=options.send_root)
    return replace(config, default=default, coaps=coaps, https=https)


async def _import(
    config: ServerConfig,
    listed: Sequence[tuple[str, bytes]],
    secrets: Mapping[str, str],
    now: datetime,
) -> None:
    rows = [ListRow.of(line, ListedDevice(*device)) for line, device in enumerate(listed, 1)]
    digest = hashlib.sha256(repr(rows).encode()).digest()
    described = ListDescription(f"unsigned-{digest.hex()[:16]}", digest, None, None)
    async with open_store(config) as store:
        await store.import_devices(rows, lambda: described, now=now)
        for udid, secret in secrets.items():
            await store.add_secret(
                EnrollmentSecret(udid, hash_secret(secret, cost=_HASH_COST), device=udid), now=now
            )
