"""``est-server serve --workers``: real processes, real sockets."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from est_client import EstClient, LocalCredentials
from est_client.coaps import CoapsClientLimits, CoapsConnection, CoapsConnector
from est_client.connection import Connector, EstConnection
from est_client.connectors import connector_for
from est_client.retry import RetryPolicy
from est_client.secrets import HttpLogin
from est_client.self_signed import self_signed
from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.credentials import AnchorSet
from est_protocol.errors import ChannelError, ServerRefused, StillPending
from est_protocol.messages import CertificatesResponse, EstRequest, Transport
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import TrustAnchors
from est_server import ClientIdentity, EnrollmentRequest, IssuanceGrant, grant_for
from tests import pki
from tests.server.served_process import PATIENCE, ROOT, Deployment, ServedProcess, deploy, serving

#: So that a lost datagram costs no more than is needed on loopback.
QUICK = TransmissionParameters(ack_timeout=0.2, empty_ack_delay=0.05, max_retransmit=3)
AGAIN = RetryPolicy(attempts=20, first_delay=0.05, longest_delay=0.2)


@pytest.fixture
def deployment(tmp_path: Path, request: pytest.FixtureRequest) -> Deployment:
    """A server with as many devices as its parameter says."""
    return deploy(tmp_path, getattr(request, "param", 1))


def quick_connector(url: str, block_size: int = 64) -> Connector:
    if url.startswith("https"):
        return connector_for(url)
    host, _, port = url.removeprefix("coaps://").rpartition(":")
    limits = CoapsClientLimits(handshake_timeout=20.0, answer_timeout=5.0)
    return CoapsConnector(host, int(port), parameters=QUICK, limits=limits, block_size=block_size)


def client_of(url: str, deployment: Deployment, device: str) -> EstClient:
    identity = LocalCredentials(pki.make_key(device), ())
    return EstClient(quick_connector(url), trust=deployment.trust, identity=identity, retry=AGAIN)


async def enroll(url: str, deployment: Deployment, device: str) -> x509.Certificate:
    """Enroll as a device does that comes back until it has its certificate."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            async with client_of(url, deployment, device) as client:
                return await client.simpleenroll(key=pki.make_key(device))
        except (ChannelError, ServerRefused, StillPending) as error:
            refused_for_good = isinstance(error, ServerRefused) and error.status.startswith("4")
            if time.monotonic() > end or refused_for_good:
                raise
            await asyncio.sleep(0.05)


class Connect(Protocol):
    """Opens a connection."""

    async def __call__(self, url: str, deployment: Deployment) -> EstConnection: ...


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens connections that are closed at the end of the test."""
    key = pki.make_key("device-0")
    own = self_signed(
        key, not_before=datetime.now(UTC) - timedelta(days=1), validity=timedelta(days=2)
    )
    async with AsyncExitStack() as opened:

        async def connect(url: str, deployment: Deployment) -> EstConnection:
            anchors = TrustAnchors({AnchorSet.EXPLICIT: deployment.trust.explicit})
            connection = await quick_connector(url).connect(
                credentials=LocalCredentials(key, (own,)), anchors=anchors
            )
            opened.push_async_callback(connection.close)
            return connection

        yield connect


async def works(connection: EstConnection) -> bool:
    transport = Transport.COAPS if isinstance(connection, CoapsConnection) else Transport.HTTPS
    answer = await connection.request(EstRequest(Operation.CACERTS, transport))
    return isinstance(answer, CertificatesResponse)


def assert_each_is_enrolled_once(deployment: Deployment, devices: int) -> None:
    for table in ("claims", "issuances WHERE status = 'issued'"):
        assert deployment.query(f"SELECT count(*), count(DISTINCT device) FROM {table}") == [
            (devices, devices)
        ]


@pytest.mark.parametrize("deployment", [24], indirect=True)
async def test_a_device_is_claimed_once_whichever_workers_it_asks(deployment: Deployment) -> None:
    with serving(deployment, "--workers", "2") as server:
        addresses = r"ready https=127\.0\.0\.1:[1-9]\d* coaps=127\.0\.0\.1:[1-9]\d*\n"
        assert re.fullmatch(addresses, server.ready)
        names = [f"device-{number}" for number in range(24)]
        urls = (server.https, server.coaps)
        results = await asyncio.gather(
            *(enroll(url, deployment, name) for name in names for url in urls)
        )
        assert server.stop() == 0
        assert server.notified() == "STOPPING=1"
    # Both times it is the same key, so the second is taken for a repeat of the first.
    assert len({certificate.serial_number for certificate in results}) == 24
    assert_each_is_enrolled_once(deployment, 24)
    assert deployment.query("SELECT count(DISTINCT owner) FROM issuances") == [(2,)]


def _reaches(certificates: list[x509.Certificate], count: int) -> bool:
    return len(certificates) >= count


@pytest.mark.parametrize("deployment", [40], indirect=True)
async def test_a_worker_that_is_killed_under_load_is_replaced_and_nothing_is_lost(
    deployment: Deployment,
) -> None:
    certificates: list[x509.Certificate] = []

    async def enroll_some(url: str, numbers: range) -> None:
        for number in numbers:
            certificates.append(await enroll(url, deployment, f"device-{number}"))

    with serving(deployment, "--workers", "2") as server:
        before = server.workers
        loads = [
            asyncio.create_task(enroll_some(url, range(start, 40, 8)))
            for start in range(8)
            for url in [server.coaps if start % 2 else server.https]
        ]
        for victim in before:
            enough = len(certificates) + 5
            await until(partial(_reaches, certificates, enough))
            os.kill(victim, signal.SIGKILL)
        await asyncio.gather(*loads)
        assert len(server.workers) == 2
        assert not set(server.workers) & set(before)
        assert server.errors.count("was killed by SIGKILL") == 2
        assert server.stop() == 0
    assert len({certificate.serial_number for certificate in certificates}) == 40
    assert_each_is_enrolled_once(deployment, 40)
    issued = {sha256 for (sha256,) in deployment.query("SELECT sha256 FROM issuances")}
    assert {certificate.fingerprint(SHA256()) for certificate in certificates} <= issued


async def test_a_session_of_a_killed_worker_is_over_and_the_client_begins_another(
    deployment: Deployment, connect: Connect
) -> None:
    with serving(deployment, "--workers", "2") as server:
        connection = await connect(server.coaps, deployment)
        assert await works(connection)
        before = server.workers
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        await until(lambda: server.errors.count("listens again") == 2)
        with pytest.raises(ChannelError):
            await connection.request(EstRequest(Operation.CACERTS, Transport.COAPS))
        assert await works(await connect(server.coaps, deployment))


async def test_the_sessions_of_the_other_workers_go_on_when_one_is_killed(
    deployment: Deployment, connect: Connect
) -> None:
    with serving(deployment, "--workers", "2") as server:
        connections = [await connect(server.coaps, deployment) for _ in range(12)]
        os.kill(server.workers[0], signal.SIGKILL)
        await until(lambda: "listens again" in server.errors)
        # Not by the kernel's assignment, which would have changed with the number of sockets.
        results = await asyncio.gather(*map(works, connections), return_exceptions=True)
    ended = [result for result in results if result is not True]
    assert all(isinstance(result, ChannelError) for result in ended)
    assert 0 < len(ended) < len(connections)


async def test_a_worker_that_is_stuck_is_replaced(deployment: Deployment, connect: Connect) -> None:
    with deployment.config.open("a") as file:
        file.write("[service.workers]\nsilence = 1.0\n")
    with serving(deployment, "--workers", "2") as server:
        known = server.workers
        os.kill(known[0], signal.SIGSTOP)
        await until(lambda: "worker 1 is stuck, and is killed" in server.errors)
        await until(lambda: "listens again" in server.errors)
        assert known[0] not in server.workers
        assert known[1] in server.workers
        assert all([await works(await connect(server.https, deployment)) for _ in range(6)])


async def slow(request: EnrollmentRequest, client: ClientIdentity) -> IssuanceGrant:
    """An authorizer that says it has begun, and decides once it is let."""
    folder = Path(os.environ["EST_TEST_GATE"])
    (folder / f"begun-{uuid4()}").touch()
    while not (folder / "go").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return grant_for(request, device=f"slow-{next(iter(client.proven_keys)).hex()[:16]}")


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
async def test_stopping_finishes_what_is_under_way(
    deployment: Deployment,
    connect: Connect,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = deployment.folder.parent
    monkeypatch.setenv("EST_TEST_GATE", str(gate))
    deployment.change('["device-list"]', '["tests.server.test_workers:slow"]')
    with serving(deployment, *options) as server:
        enrolling = [
            asyncio.create_task(enroll(url, deployment, f"device-{number}"))
            for number, url in enumerate(2 * [server.https, server.coaps])
        ]
        await until(lambda: len(list(gate.glob("begun-*"))) == 4)
        server.process.send_signal(signal.SIGTERM)
        assert server.notified() == "STOPPING=1"
        with pytest.raises(ChannelError):
            await until_refused(connect, server.https, deployment)
        (gate / "go").touch()
        certificates = await asyncio.gather(*enrolling)
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0
    assert len({certificate.serial_number for certificate in certificates}) == 4
    assert_each_is_enrolled_once(deployment, 4)


async def until_refused(connect: Connect, url: str, deployment: Deployment) -> None:
    """Connect until nobody listens any more."""
    while True:
        await (await connect(url, deployment)).close()


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
async def test_reloading_renews_the_certificate_and_drops_no_session(
    deployment: Deployment, connect: Connect, options: tuple[str, ...]
) -> None:
    with serving(deployment, *options) as server:
        urls = (server.https, server.coaps)
        old = [await connect(url, deployment) for url in urls for _ in range(3)]
        assert all([await works(connection) for connection in old])
        new_certificates = deployment.renew_server_certificates()
        server.reload()
        addresses = server.ready.removeprefix("ready ").strip()
        files = [str(deployment.folder / "server" / f"{name}.pem") for name in ("https", "coaps")]
        assert server.line().startswith(f"reloaded {addresses} changed: {files[0]} until 20")
        assert all([await works(connection) for connection in old])
        new = [await connect(url, deployment) for url in urls for _ in range(3)]
        assert all([await works(connection) for connection in new])
        shown = [{c.server.certificate for c in connections} for connections in (old, new)]
        assert shown[1] == new_certificates
        assert not shown[0] & new_certificates
        for connection in old + new:
            await connection.close()
        assert server.stop() == 0
        assert server.errors == ""


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
async def test_a_configuration_that_does_not_load_changes_nothing(
    deployment: Deployment, connect: Connect, options: tuple[str, ...]
) -> None:
    good = deployment.config.read_text()
    certificate = deployment.folder / "server" / "https.pem"
    with serving(deployment, *options) as server:
        connection = await connect(server.https, deployment)
        deployment.config.write_text(f"{good}\nbroken")
        server.reload()
        assert "not valid TOML" in server.errors
        deployment.config.write_text(good.replace("port = 0", "port = 1", 1))
        server.reload()
        assert "a restart is needed, since these have changed: [https] port" in server.errors
        deployment.config.write_text(good)
        chain = certificate.read_text()
        certificate.write_text("no certificate")
        server.reload()
        assert "https.pem" in server.errors
        assert await works(connection)
        assert await works(await connect(server.https, deployment))
        certificate.write_text(chain)
        before = server.errors
        server.reload()
        assert server.errors == before
        # Nothing was said of those that did not work.
        assert server.line() == server.ready.replace("ready", "reloaded")
        assert await works(connection)


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
async def test_a_reload_says_which_tables_have_changed(
    deployment: Deployment, connect: Connect, options: tuple[str, ...]
) -> None:
    with serving(deployment, *options) as server:
        deployment.change('validity = "90d"', 'validity = "80d"')
        with deployment.config.open("a") as file:
            file.write('[labels.vpn]\nauthorizers = ["device-list"]\n')
        server.reload()
        assert server.line().endswith(" changed: [default], [labels.vpn]\n")
        assert server.process.stdout is not None
        server.process.stdout.close()
        server.reload()
        assert await works(await connect(server.https, deployment))
        assert server.stop() == 0


def test_a_configuration_that_no_worker_can_serve_is_said_once(deployment: Deployment) -> None:
    (deployment.folder / "server" / "https.pem").write_text("no certificate")
    done = run(deployment, "--workers", "3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("https.pem") == 1


def test_a_port_where_others_listen_is_taken(deployment: Deployment) -> None:
    with socket.socket() as other:
        # As the workers of another server of the same user have it.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        deployment.change("port = 0", f"port = {other.getsockname()[1]}")
        done = run(deployment, "--workers", "2")
    assert done.returncode == 1
    assert re.fullmatch(r"est-server: error: 127.0.0.1 port \d+: .*in use\n", done.stderr)


async def test_workers_share_what_may_be_guessed(deployment: Deployment) -> None:
    deployment.change(
        'authorizers = ["device-list"]',
        'authorizers = ["one-time-secret"]\n\n[default.http_authentication]\n'
        'verifier = "one-time-secret"\nrequired = "http"\n\n'
        "[service.users.guesses]\nper_user = 4\n",
    )
    statuses = []
    with serving(deployment, "--workers", "2") as server:
        for _ in range(12):
            async with EstClient(
                quick_connector(server.https),
                trust=deployment.trust,
                identity=LocalCredentials(pki.make_key("device-0"), ()),
                http_credentials=HttpLogin("batch", "wrong"),
                fetch_ca_certificates=False,
            ) as client:
                with pytest.raises(ServerRefused) as refused:
                    await client.simpleenroll()
            statuses.append(refused.value.status)
    assert set(statuses) == {"401", "429"}
    assert statuses.count("401") <= 4


@pytest.mark.parametrize("count", ["0", "-1", "257", "two", "²"])
def test_a_number_of_workers_that_makes_no_sense(deployment: Deployment, count: str) -> None:
    done = run(deployment, "--workers", count)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no number from 1 to 256" in done.stderr


def run(deployment: Deployment, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "est_server.cli", "serve", "--config", str(deployment.config)]
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )


def _is_replaced(server: ServedProcess, known: list[int]) -> bool:
    if server.process.poll() is not None:
        return True
    now = server.workers
    return len(now) == len(known) and now != known


async def test_workers_that_die_over_and_over_are_given_up(deployment: Deployment) -> None:
    with deployment.config.open("a") as file:
        file.write("[service.workers]\nattempts = 3\nfirst_pause = 0.01\nsettled_after = 600\n")
    with serving(deployment, "--workers", "2") as server:
        for _ in range(3):
            known = server.workers
            os.kill(known[0], signal.SIGKILL)
            await until(partial(_is_replaced, server, known))
        assert server.process.wait(PATIENCE) == 1
        assert "giving up: 3 workers in a row died at once" in server.errors


async def test_workers_end_with_their_supervisor(deployment: Deployment) -> None:
    with serving(deployment, "--workers", "2") as server:
        workers = server.workers
        server.process.kill()
        await until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
