"""A client that knows nothing of a CoAPS server but its host, port and CA."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from est_client import EstClient, TrustDatabase
from est_client.coaps import CoapsConnector
from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.errors import MessageError, ServerRefused
from est_protocol.secure_channel.context import LocalCredentials
from est_server.coaps.limits import CoapsLimits
from est_server.coaps.server import CoapsEndpoint, serve
from tests.behaviour.world import KEYS, LABEL, Device, World

PARAMETERS = TransmissionParameters(ack_timeout=0.05, empty_ack_delay=0.03)


@asynccontextmanager
async def client(
    world: World, device: Device, label: str | None = None
) -> AsyncIterator[EstClient]:
    """A client of a server whose resources are at a place of its own."""
    limits = CoapsLimits()
    endpoint = CoapsEndpoint(
        credentials=world.server_credentials,
        anchors=world.server_anchors,
        port=0,
        parameters=PARAMETERS,
        limits=replace(limits, site=replace(limits.site, short_root="at/this/place")),
    )
    trust = TrustDatabase(explicit=(world.authority_root,))
    async with await serve(world.service, endpoint) as server:
        connector = CoapsConnector(
            "127.0.0.1",
            server.port,
            root=("not", "there"),
            block_size=64,
            parameters=PARAMETERS,
            discover=True,
        )
        identity = LocalCredentials(device.key, device.chain)
        async with EstClient(
            connector, trust=trust, identity=identity, label=label, adopt_trust=label is None
        ) as est:
            yield est


@pytest.mark.conformance("CU-03", "CU-09")
async def test_finds_its_way_and_enrolls(world: World) -> None:
    device = await world.list_device("a")
    async with client(world, device) as est:
        certificate = await est.simpleenroll()
        assert certificate.public_key() == device.key.public_key()
        assert await est.csrattrs() is None


@pytest.mark.conformance("CU-09", "CU-10")
async def test_finds_a_label(world: World) -> None:
    device = await world.list_device("a")
    async with client(world, device, LABEL) as est:
        assert world.labelled_issuing in await est.cacerts()


async def test_what_is_not_linked_to_is_not_there(world: World) -> None:
    device = await world.list_device("a", born=True)
    async with client(world, device) as est:
        await est.cacerts()
        with pytest.raises(ServerRefused, match=r"4\.04"):
            await est.serverkeygen(encrypted=False)
    async with client(world, device, KEYS) as est:
        assert await est.serverkeygen(encrypted=False)


async def test_a_label_that_is_not_there(world: World) -> None:
    device = await world.list_device("a")
    async with client(world, device, "no-such-label") as est:
        with pytest.raises(MessageError, match="no-such-label"):
            await est.cacerts()
