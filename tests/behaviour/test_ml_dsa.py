"""Post-quantum keys (RFC 9881): large requests and certificates on every road."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol import pkcs10
from est_protocol.errors import RefusalReason, ServerRefused
from est_protocol.keys import generate_key, spki_der, spki_sha256
from est_protocol.messages import CertificatesResponse, EstRequest
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials
from est_protocol.secure_channel.policy import TlsVersion
from est_server.device_records import ListedDevice
from tests.behaviour.roads import Road, https
from tests.behaviour.world import World
from tests.pki import make_name

KINDS = frozenset({"mldsa44", "mldsa65", "mldsa87"})


def allow(world: World, *usages: str) -> None:
    """Let the default label certify such keys."""
    profile = world.policy(None).profile
    usages_wanted = frozenset(usages) or profile.key_usages
    changed = replace(profile, allowed_keys=KINDS, key_usages=usages_wanted)
    world.change_policy(None, profile=changed)


@pytest.mark.conformance("PQ-12", "BW-03")
async def test_the_largest_key_is_certified_on_every_road(world: World, road: Road) -> None:
    allow(world)
    device = await world.list_device("a", born=True)
    fresh = generate_key("mldsa87")
    async with road.connection(device) as connection:
        csr = connection.csr(fresh, make_name("device"))
        assert len(csr.der) > 7000
        certificate = await connection.simpleenroll(fresh)
    assert spki_der(certificate.public_key()) == spki_der(fresh.public_key())
    assert len(certificate.public_bytes(Encoding.DER)) > 2592


@pytest.mark.conformance("PQ-02")
async def test_such_a_key_is_certified_for_signatures_alone(world: World) -> None:
    allow(world, "digital_signature", "key_encipherment", "data_encipherment", "key_agreement")
    device = await world.list_device("a", born=True)
    async with https(world, TlsVersion.TLS1_3) as road, road.connection(device) as connection:
        certificate = await connection.simpleenroll(generate_key("mldsa65"))
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not any((usage.key_encipherment, usage.data_encipherment, usage.key_agreement))


@pytest.mark.conformance("PQ-02")
async def test_such_a_key_is_not_certified_for_encryption(world: World) -> None:
    allow(world, "key_encipherment", "key_agreement")
    device = await world.list_device("a", born=True)
    async with https(world, TlsVersion.TLS1_3) as road, road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.simpleenroll(generate_key("mldsa65"))
    assert world.last_refusal == RefusalReason.KEY_NOT_ALLOWED
    assert world.issued_count() == 0


async def test_it_takes_the_operators_word(world: World) -> None:
    device = await world.list_device("a", born=True)
    async with https(world, TlsVersion.TLS1_3) as road, road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.simpleenroll(generate_key("mldsa44"))
    assert world.last_refusal == RefusalReason.KEY_NOT_ALLOWED


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_device_with_such_a_key_alone_enrolls_and_renews(world: World, kind: str) -> None:
    allow(world)
    key = generate_key(kind)
    listed = ListedDevice("udid-pq", spki_sha256(key.public_key()), {})
    await world.store.add_devices([listed], now=datetime.now(UTC))
    nobody = world.unlisted_device("with nothing to show")
    async with https(world, TlsVersion.TLS1_3) as road:
        async with road.connection(nobody) as session:
            first = await session.simpleenroll(key)
        connection = await road.connect(LocalCredentials(key, (first,)))
        try:
            csr = pkcs10.build(key, first.subject, binding=connection.server.channel_binding)
            renewal = EstRequest(Operation.SIMPLEREENROLL, road.transport, None, csr.der)
            answer = await connection.request(renewal)
        finally:
            await connection.close()
    assert isinstance(answer, CertificatesResponse)
    (second,) = answer.certificates
    assert second.subject == first.subject == make_name("udid-pq")
    assert second.serial_number != first.serial_number
