"""A server of this process that reads its configuration again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from est_client import EstClient, LocalCredentials
from est_client.connection import EstConnection
from est_client.connectors import connector_for
from est_protocol.errors import ChannelError, ConfigurationError, ServerRefused
from est_protocol.messages import EstRequest, Transport
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import TrustAnchors
from est_server import Alarm, AlarmKind, EstServer
from est_server.cli import main
from est_server.service import EnrollmentService
from tests import pki
from tests.server.served_process import Deployment, deploy


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    """A server with one device."""
    return deploy(tmp_path)


async def enroll(server: EstServer, deployment: Deployment, identity: LocalCredentials) -> None:
    connector = connector_for(f"https://{server.https_address}")
    async with EstClient(connector, trust=deployment.trust, identity=identity) as client:
        await client.simpleenroll(key=identity.key)


async def test_a_new_manufacturer_is_believed_from_a_reload_on(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.change("[store]", "[default.device_list]\nbare_keys = false\n\n[store]")
    maker = pki.make_ca("maker")
    birth = pki.make_leaf(maker, "device-0", key=pki.make_key("device-0"))
    file = deployment.folder / "maker.pem"
    file.write_bytes(maker.certificate.public_bytes(Encoding.PEM))
    async with EstServer.from_config(deployment.config) as server:
        with pytest.raises(ServerRefused):
            await enroll(server, deployment, birth)
        trust = ["trust", "add-manufacturer", str(file), "--config", str(deployment.config)]
        assert main(trust) == 0
        assert "from SIGHUP on" in capsys.readouterr().out
        await server.reload()
        await enroll(server, deployment, birth)


async def test_whoever_hears_of_alarms_still_does_after_a_reload(deployment: Deployment) -> None:
    heard = asyncio.Queue[Alarm]()
    order = ["devices", "revoke", "device-0", "--reason", "key-compromise"]
    assert await asyncio.to_thread(main, [*order, "--config", str(deployment.config)]) == 0
    async with EstServer.from_config(deployment.config, alarm_sink=heard.put) as server:
        await server.reload()
        with pytest.raises(ServerRefused):
            await enroll(server, deployment, LocalCredentials(pki.make_key("device-0"), ()))
        assert (await heard.get()).kind is AlarmKind.COMPROMISED_KEY


CACERTS = EstRequest(Operation.CACERTS, Transport.HTTPS)


async def go_on(connection: EstConnection) -> None:
    """Use a connection until it ends."""
    async with asyncio.timeout(60):
        while True:
            await connection.request(CACERTS)
            await asyncio.sleep(0.05)


async def test_old_settings_end_with_their_time(deployment: Deployment) -> None:
    with deployment.config.open("a") as file:
        file.write("[service.reload]\ngrace = 0.1\n")
    async with EstServer.from_config(deployment.config) as server:
        connector = connector_for(f"https://{server.https_address}")
        connection = await connector.connect(credentials=None, anchors=deployment.trust.anchors())
        await connection.request(CACERTS)
        await server.reload()
        await connection.request(CACERTS)
        with pytest.raises(ChannelError):
            await go_on(connection)
        await connection.close()


async def test_so_many_old_settings_are_kept_and_no_more(deployment: Deployment) -> None:
    with deployment.config.open("a") as file:
        file.write("[service.reload]\ngenerations = 2\n")
    async with EstServer.from_config(deployment.config) as server:
        connector = connector_for(f"https://{server.https_address}")
        anchors: TrustAnchors = deployment.trust.anchors()
        connections = []
        for _ in range(3):
            connections.append(await connector.connect(credentials=None, anchors=anchors))
            await connections[-1].request(CACERTS)
            await server.reload()
        with pytest.raises(ChannelError):
            await go_on(connections[0])
        for connection in connections[1:]:
            await connection.request(CACERTS)
        for connection in connections:
            await connection.close()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('listen = "127.0.0.1"', 'listen = "::1"', "[https] listen"),
        ("[store]", "[crl]\nport = 0\n\n[store]", "[crl]"),
        ('file = "audit.log"', 'file = "other.log"', "[log]"),
        ("est.sqlite", "other.sqlite", "[store]"),
        ("[store]", "[service.workers]\nattempts = 2\n\n[store]", "[service.workers]"),
    ],
)
async def test_what_needs_a_restart_is_named(
    deployment: Deployment, old: str, new: str, named: str
) -> None:
    async with EstServer.from_config(deployment.config) as server:
        deployment.change(old, new)
        with pytest.raises(ConfigurationError) as refused:
            await server.reload()
        assert f"a restart is needed, since these have changed: {named}" in str(refused.value)
        await enroll(server, deployment, LocalCredentials(pki.make_key("device-0"), ()))


async def test_a_server_without_a_configuration_has_none_to_read_again(
    deployment: Deployment,
) -> None:
    async with EstServer.from_config(deployment.config) as configured:
        parts = configured._served
        assert isinstance(parts.service, EnrollmentService)
        server = EstServer(parts.service, https=parts.https)
        with pytest.raises(ConfigurationError, match="was not made from a configuration"):
            await server.reload()
