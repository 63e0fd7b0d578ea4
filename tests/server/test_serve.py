"""``est-server serve`` and :class:`EstServer`: both transports, and an orderly end."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from est_client import EstClient, LocalCredentials, TrustDatabase, connector_for
from est_protocol.errors import ConfigurationError, ServerRefused
from est_protocol.keys import spki_sha256
from est_server import (
    ClientIdentity,
    EnrollmentRequest,
    EstServer,
    IssuanceGrant,
    grant_for,
    open_service,
)
from est_server.cli import main
from est_server.config import load_config
from est_server.stores.sqlite.owner import no_servers, stable_owner
from tests import pki

ROOT = Path(__file__).parent.parent.parent
#: Seconds that a server may take to start or to end.
PATIENCE = 120


@pytest.fixture
def config(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The configuration of a new server, with one device on its list.

    Its parameter is the kind of the CA's key.
    """
    kind = getattr(request, "param", "ec-p256")
    folder = tmp_path / "est"
    ports = ["--https-port", "0", "--coaps-port", "0"]
    assert main(["init", str(folder), "--key-type", kind, *ports]) == 0
    listed = spki_sha256(pki.make_key("device").public_key()).hex()
    (tmp_path / "list.csv").write_text(f"udid,spki_sha256\nsensor-0001,{listed}\n")
    file = folder / "est-server.toml"
    imports = ["devices", "import", str(tmp_path / "list.csv"), "--allow-unsigned"]
    assert main([*imports, "--config", str(file)]) == 0
    change(file, "allow_unsigned = true", "allow_unsigned = false")
    return file


def change(config: Path, old: str, new: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


@pytest.fixture
def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "est_server.cli", "serve", "--config", str(config)]


@pytest.fixture
def process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    with running:
        yield running
        running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_ends_well(
    process: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert process.stdout is not None
    ready = process.stdout.readline()
    assert re.fullmatch(r"ready https=127\.0\.0\.1:[1-9]\d* coaps=127\.0\.0\.1:[1-9]\d*\n", ready)
    process.send_signal(number)
    rest, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_a_port_that_is_taken(config: Path, command: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace("port = 0", f"port = {port}", 1))
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 1
    assert re.fullmatch(r"est-server: error: .*in use.*\n", done.stderr)


@pytest.mark.parametrize("transport", ["https", "coaps"])
@pytest.mark.parametrize("config", ["ec-p256", "ec-p384", "rsa-3072", "ed25519"], indirect=True)
async def test_a_listed_device_enrolls_and_renews(config: Path, transport: str) -> None:
    identity = LocalCredentials(pki.make_key("device"), ())
    trust = TrustDatabase.load(config.parent / "ca.pem")
    async with EstServer.from_config(config) as server:
        address = {"https": server.https_address, "coaps": server.coaps_address}[transport]
        url = f"{transport}://{address}"
        async with EstClient(connector_for(url), trust=trust, identity=identity) as client:
            first = await client.simpleenroll(key=identity.key)
            client.identity = LocalCredentials(identity.key, client.chain_of(first))
            second = await client.simplereenroll(key=identity.key)
    for certificate in (first, second):
        assert certificate.subject.rfc4514_string() == "CN=sensor-0001"
    assert first.serial_number != second.serial_number


async def test_a_label_without_an_authorizer_keeps_the_server_from_starting(config: Path) -> None:
    change(config, 'authorizers = ["device-list"]', "")
    with pytest.raises(ConfigurationError, match=r"est-server.toml: \[default\] authorizers: none"):
        async with open_service(config):
            pytest.fail("it started")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("device-lists", "no authorizer 'device-lists'"),
        ("no.such.module:decide", "No module named"),
        ("est_server.cli:no_such_function", "has no attribute"),
        ("est_server.cli:main", "is no async function"),
    ],
)
async def test_an_authorizer_that_does_not_exist(config: Path, name: str, message: str) -> None:
    change(config, '"device-list"', f'"{name}"')
    with pytest.raises(ConfigurationError, match=message):
        async with open_service(config):
            pytest.fail("it started")


@pytest.mark.parametrize("config", ["ed25519"], indirect=True)
async def test_coaps_wants_an_ec_key(config: Path) -> None:
    change(config, "server/coaps", "server/https")
    with pytest.raises(ConfigurationError, match="CoAPS needs an EC key"):
        async with open_service(config):
            pytest.fail("it started")


async def test_a_key_of_another_certificate(config: Path) -> None:
    change(config, '"server/https.key"', '"server/coaps.key"')
    with pytest.raises(ConfigurationError, match=r"not the key of the first certificate .* again"):
        async with open_service(config):
            pytest.fail("it started")


async def test_the_root_is_sent_over_coaps_exactly_if_configured(config: Path) -> None:
    async with open_service(config) as parts:
        assert parts.coaps is not None
        assert [c.subject == c.issuer for c in parts.coaps.credentials.chain][-1]
    change(config, "send_root = true", "send_root = false")
    async with open_service(config) as parts:
        assert parts.coaps is not None
        chain = parts.coaps.credentials.chain
        assert len(chain) == 2
        assert not any(c.subject == c.issuer for c in chain)


def test_who_takes_the_place_of_a_server_that_died_takes_over_what_it_left(tmp_path: Path) -> None:
    store = tmp_path / "est.sqlite"
    with stable_owner(store) as first:
        with stable_owner(store) as second, no_servers(store) as alone:
            assert first != second
            assert not alone
        with stable_owner(store) as restarted:
            assert restarted == second
    with no_servers(store) as alone:
        assert alone
        with stable_owner(store) as meanwhile:
            assert meanwhile != first
    with stable_owner(store) as restarted:
        assert restarted == first


@pytest.mark.parametrize(
    ("authorizers", "combination", "known_to_all"),
    [
        ('["device-list"]', "first-of", False),
        ('["device-list", "tests.server.test_serve:let_in"]', "all-of", False),
        ('["device-list", "tests.server.test_serve:let_in"]', "first-of", True),
        ('["tests.server.test_serve:let_in"]', "all-of", True),
    ],
)
async def test_who_may_ask_for_ca_certificates_over_coaps(
    config: Path, authorizers: str, combination: str, known_to_all: bool
) -> None:
    change(config, '["device-list"]', f'{authorizers}\ncombination = "{combination}"')
    identity = LocalCredentials(pki.make_key("stranger"), ())
    trust = TrustDatabase.load(config.parent / "ca.pem")
    async with EstServer.from_config(config) as server:
        url = f"coaps://{server.coaps_address}"
        async with EstClient(connector_for(url), trust=trust, identity=identity) as client:
            if known_to_all:
                assert len(await client.cacerts()) == 2
            else:
                with pytest.raises(ServerRefused, match=r"4\.03"):
                    await client.cacerts()


async def let_in(request: EnrollmentRequest, client: ClientIdentity) -> IssuanceGrant:
    """An authorizer of somebody's own."""
    return grant_for(request, device="anybody")


async def test_crls_are_served_and_named_in_certificates(config: Path) -> None:
    change(config, "[store]", '[crl]\nport = 0\nurl = "http://crl.example.com"\n\n[store]')
    change(config, "[default.profile]", '[default.profile]\ncrl_distribution_points = ["{crl}"]')
    identity = LocalCredentials(pki.make_key("device"), ())
    trust = TrustDatabase.load(config.parent / "ca.pem")
    async with EstServer.from_config(config) as server, aiohttp.ClientSession() as session:
        assert f"crl={server.crl_address}" in str(server)
        async with session.get(f"http://{server.crl_address}/default.crl") as answer:
            crl = x509.load_der_x509_crl(await answer.read())
        connector = connector_for(f"https://{server.https_address}")
        async with EstClient(connector, trust=trust, identity=identity) as client:
            certificate = await client.simpleenroll(key=identity.key)
    assert crl.issuer == certificate.issuer
    [point] = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name == [x509.UniformResourceIdentifier("http://crl.example.com/default.crl")]


@pytest.mark.parametrize(
    ("points", "complaint"),
    [("{crl}", "needs \\[crl\\]"), ("https://a/b.crl", "no http://"), ("http://ü/", "no http://")],
)
def test_an_address_of_a_crl_that_nobody_knows_is_refused(
    config: Path, points: str, complaint: str
) -> None:
    setting = f'[default.profile]\ncrl_distribution_points = ["{points}"]'
    change(config, "[default.profile]", setting)
    with pytest.raises(ConfigurationError, match=complaint):
        load_config(config)
