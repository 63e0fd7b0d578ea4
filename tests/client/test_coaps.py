from __future__ import annotations

import pytest

from est_protocol import pkcs10
from est_protocol.messages import CertificatesResponse, EstRequest, Transport
from est_protocol.operations import Operation
from est_protocol.secure_channel.policy import DtlsPolicy
from tests import pki
from tests.server.coaps_ends import (
    DEVICE,
    ISSUER,
    ROOT,
    IssuingService,
    connected,
    endpoint_of,
    serving,
)

CACERTS = EstRequest(Operation.CACERTS, Transport.COAPS)


def enrollment(label: str | None = None) -> EstRequest:
    csr = pkcs10.build(DEVICE.key, pki.make_name("device")).der
    return EstRequest(Operation.SIMPLEENROLL, Transport.COAPS, label, csr)


@pytest.mark.parametrize("block_size", [16, 64, 256, 1024])
async def test_both_directions_in_blocks(block_size: int) -> None:
    service = IssuingService()
    async with serving(service) as server, connected(server, block_size=block_size) as connection:
        answer = await connection.request(CACERTS)
        assert isinstance(answer, CertificatesResponse)
        assert set(answer.certificates) == {ISSUER.certificate, ROOT.certificate}
        answer = await connection.request(enrollment("plant"))
        assert isinstance(answer, CertificatesResponse)
        assert answer.certificates[0].public_key() == DEVICE.key.public_key()
    assert [r.operation for r in service.requests] == [Operation.CACERTS, Operation.SIMPLEENROLL]
    assert service.requests[1] == service.requests[1]
    assert service.peers[0].channel_binding == connection.server.channel_binding


@pytest.mark.parametrize("mtu", [256, 512])
async def test_small_mtu(mtu: int) -> None:
    service = IssuingService()
    policy = DtlsPolicy(mtu=mtu)
    async with (
        serving(service, endpoint_of(policy=policy)) as server,
        connected(server, policy=policy) as connection,
    ):
        assert isinstance(await connection.request(CACERTS), CertificatesResponse)
        assert isinstance(await connection.request(enrollment()), CertificatesResponse)
