"""Keys that the server generates, as its configuration says; and what no request shows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from est_client import EstClient, LocalCredentials, TrustDatabase, connector_for
from est_protocol.errors import ConfigurationError, ServerRefused
from est_protocol.key_package import KeyGenerator
from est_protocol.keys import key_kind, spki_der, spki_sha256
from est_protocol.operations import Operation
from est_server import EstServer, open_service
from est_server.assembly import open_store
from est_server.config import load_config
from est_server.device_records import ListedDevice
from est_server.key_generation import KeyFactory, channel_strength, check_policy
from est_server.key_protection import KeyGenerationPolicy
from est_server.new_server import NewServer, provision
from est_server.profiles import CertificateProfile
from tests import pki

LEAF = pki.make_leaf(None, "generator")
GENERATOR = KeyGenerator(LEAF.key, LEAF.chain)


@pytest.fixture
async def config(tmp_path: Path) -> Path:
    """A new server that knows one device, whose certificates may be encrypted for."""
    folder = tmp_path / "est"
    provision(folder, NewServer(https_port=0, coaps_port=0), now=datetime.now(UTC))
    file = folder / "est-server.toml"
    usages = 'key_usages = ["digital_signature", "key_agreement"]\n'
    file.write_text(file.read_text().rstrip() + "\n" + usages)
    key_hash = spki_sha256(pki.make_key("device").public_key())
    async with open_store(load_config(file)) as store:
        await store.add_devices([ListedDevice("sensor-1", key_hash)], now=datetime.now(UTC))
    return file


def add(config: Path, table: str) -> None:
    config.write_text(f"{config.read_text()}\n{table}\n")


@pytest.mark.parametrize("transport", ["https", "coaps"])
async def test_a_device_has_its_next_key_made_and_encrypted(config: Path, transport: str) -> None:
    add(config, "[default.server_key_generation]\nrequire_protected_key = true")
    identity = LocalCredentials(pki.make_key("device"), ())
    trust = TrustDatabase.load(config.parent / "ca.pem")
    async with EstServer.from_config(config) as server:
        address = {"https": server.https_address, "coaps": server.coaps_address}[transport]
        connector = connector_for(f"{transport}://{address}")
        async with EstClient(connector, trust=trust, identity=identity) as client:
            first = await client.simpleenroll()
            client.identity = LocalCredentials(identity.key, client.chain_of(first))
            with pytest.raises(ServerRefused, match="encrypted"):
                await client.serverkeygen(encrypted=False)
            generated = await client.serverkeygen()
            client.identity = generated
            renewed = await client.simplereenroll()
    assert generated.chain[0].subject == renewed.subject == first.subject
    assert spki_der(renewed.public_key()) == spki_der(generated.key.public_key())
    assert spki_der(renewed.public_key()) != spki_der(identity.key.public_key())


async def test_it_is_off_unless_it_is_switched_on(config: Path) -> None:
    async with open_service(config) as parts:
        assert Operation.SERVERKEYGEN not in parts.service.operations(None)
    add(config, "[default.server_key_generation]")
    assert load_config(config).default.server_key_generation is not None
    async with open_service(config) as parts:
        assert Operation.SERVERKEYGEN in parts.service.operations(None)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('kinds = ["ec-p192"]', "cannot be generated"),
        ("kinds = []", "of no kind"),
        ('retry_window = "-5m"', "duration"),
    ],
)
async def test_what_cannot_be_keeps_the_server_from_starting(
    config: Path, table: str, message: str
) -> None:
    add(config, f"[default.server_key_generation]\n{table}")
    with pytest.raises(ConfigurationError, match=message):
        async with open_service(config):
            pytest.fail("it started")


def test_what_is_generated_has_to_be_certified() -> None:
    profile = CertificateProfile(allowed_keys=frozenset({"ec-p256"}))
    with pytest.raises(ConfigurationError, match="not certified"):
        check_policy(KeyGenerationPolicy(kinds=("ec-p256", "ec-p384")), profile)


def test_encryption_cannot_be_required_where_nobody_signs() -> None:
    policy = KeyGenerationPolicy(require_protected_key=True)
    with pytest.raises(ConfigurationError, match="signs"):
        check_policy(policy, CertificateProfile())
    check_policy(replace(policy, generator=GENERATOR), CertificateProfile())
    check_policy(KeyGenerationPolicy(retry_window=timedelta(0)), CertificateProfile())


@pytest.mark.conformance("TLS-14")
@pytest.mark.parametrize(
    ("cipher", "strength"),
    [
        ("TLS_AES_256_GCM_SHA384", 256),
        ("TLS_AES_128_GCM_SHA256", 128),
        ("TLS_CHACHA20_POLY1305_SHA256", 256),
        ("ECDHE-ECDSA-AES128-SHA256", 128),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", 256),
        ("ECDHE-ECDSA-AES128-CCM8", 128),
        ("ECDHE-ECDSA-NULL-SHA", 0),
        ("TLS_SHA256_SHA256", 0),
        ("", 0),
    ],
)
def test_the_strength_of_a_cipher_suite(cipher: str, strength: int) -> None:
    assert channel_strength(cipher) == strength


async def test_slow_keys_do_not_hold_up_the_others() -> None:
    factory = KeyFactory()
    slow = asyncio.create_task(factory.make("rsa-2048"))
    await asyncio.sleep(0)
    assert key_kind((await factory.make("ec-p256")).public_key()) == "ec-p256"
    assert not slow.done()
    assert key_kind((await slow).public_key()) == "rsa-2048"
    factory.close()
