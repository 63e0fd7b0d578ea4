"""The whole life of a device over a link that loses a fifth of its datagrams each way."""

from __future__ import annotations

import pytest

from est_client import EstClient, LocalCredentials, TrustDatabase
from est_client.coaps import CoapsConnector
from est_protocol.coap.parameters import TransmissionParameters
from est_server.coaps.server import CoapsEndpoint
from est_server.coaps.server import serve as serve_coaps
from est_server.ledger_records import CertificateState
from tests.behaviour.world import World
from tests.lossy import LossyNetwork


@pytest.mark.parametrize("block_size", [64, 256, 1024])
async def test_a_device_gets_and_renews_its_certificate(world: World, block_size: int) -> None:
    device = await world.list_device("far away")
    parameters = TransmissionParameters(ack_timeout=0.05, empty_ack_delay=0.03, max_retransmit=9)
    endpoint = CoapsEndpoint(
        credentials=world.server_credentials,
        anchors=world.server_anchors,
        port=0,
        parameters=parameters,
    )
    network = LossyNetwork(0.2, seed=block_size)
    async with await serve_coaps(world.service, endpoint) as server:
        connector = CoapsConnector(
            "127.0.0.1",
            server.port,
            block_size=block_size,
            parameters=parameters,
            transport_factory=network,
        )
        trust = TrustDatabase(explicit=(world.authority_root,))
        identity = LocalCredentials(device.key, ())
        async with EstClient(connector, trust=trust, identity=identity) as client:
            first = await client.simpleenroll()
            client.identity = LocalCredentials(device.key, (first,))
            second = await client.simplereenroll()
    assert network.lost > 0
    assert (await world.find(first)).state is CertificateState.SUPERSEDED
    assert (await world.find(second)).state is CertificateState.ACTIVE
    assert world.issued_count() == 2
