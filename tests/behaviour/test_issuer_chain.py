"""Answers with the issuers of the certificate, for clients that take them from there."""

from __future__ import annotations

import pytest

from est_protocol.messages import CertificatesResponse, EstRequest, Transport
from est_protocol.operations import Operation
from est_server.legacy_forms import LegacyForms
from tests.behaviour.roads import Road
from tests.behaviour.world import World
from tests.pki import make_name


@pytest.mark.conformance("SE-03")
async def test_the_chain_comes_along_on_https_where_it_is_switched_on(
    world: World, road: Road
) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        body = connection.csr(device.key, make_name("a wish")).der
        request = EstRequest(Operation.SIMPLEENROLL, road.transport, None, body)
        alone = await connection._connection.request(request)
        assert isinstance(alone, CertificatesResponse)
        world.change_policy(None, legacy=LegacyForms(issuer_chain=True))
        # A retry: the same certificate, told in the other way.
        answer = await connection._connection.request(request)
    assert isinstance(answer, CertificatesResponse)
    assert len(alone.certificates) == 1
    issuers = (world.authority_issuing,) if road.transport is Transport.HTTPS else ()
    assert set(answer.certificates) == {*alone.certificates, *issuers}
    assert len(answer.certificates) == 1 + len(issuers)
