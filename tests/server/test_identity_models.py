"""The examples of "choose an identity model", each served and used over both transports."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from docs.generate import ROOT
from est_client import EstClient, LocalCredentials, TrustDatabase, connector_for
from est_protocol.errors import ServerRefused, StillPending
from est_protocol.keys import spki_sha256
from est_server import EstServer
from est_server.cli import main
from tests.behaviour.world import Device
from tests.births import born
from tests.pki import make_ca, make_key, make_leaf

PAGE = (ROOT / "docs" / "how-to" / "choose-an-identity-model.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- model: ([a-z-]+) -->\n```toml\n(.*?)```\n", PAGE, re.DOTALL))
ACME = make_ca("acme")

Output = pytest.CaptureFixture[str]


@dataclass
class Plant:
    """A server that an example of the page describes.

    :param transport: which of its two listeners devices use.
    """

    config: Path
    server: EstServer
    transport: str

    async def run(self, *arguments: str) -> int:
        """A command as another process would run it."""
        return await command(self.config, *arguments)

    async def enroll(
        self,
        device: Device,
        *,
        key: str | None = None,
        label: str | None = None,
        secret: str | None = None,
    ) -> str:
        """The subject of the certificate that a device gets."""
        https = self.transport == "https"
        address = self.server.https_address if https else self.server.coaps_address
        url = f"{self.transport}://{address}"
        trust = TrustDatabase.load(self.config.parent / "ca.pem")
        identity = LocalCredentials(device.key, device.chain)
        async with EstClient(
            connector_for(url), trust=trust, identity=identity, label=label, otp_challenge=secret
        ) as client:
            certificate = await client.simpleenroll(key=make_key(key) if key else device.key)
        return certificate.subject.rfc4514_string()


async def command(config: Path, *arguments: str) -> int:
    return await asyncio.to_thread(main, [*arguments, "--config", str(config)])


def bare(name: str) -> Device:
    return Device(name, make_key(name))


def listed_with_birth(name: str) -> Device:
    key = make_key(name)
    return Device(name, key, make_leaf(ACME, f"birth of {name}", key=key).chain)


@asynccontextmanager
async def plant(directory: Path, model: str, transport: str) -> AsyncIterator[Plant]:
    """The example ``model`` of the page, with three devices of two owners on a list."""
    folder = directory / "est"
    ports = ["--https-port", "0", "--coaps-port", "0"]
    assert await asyncio.to_thread(main, ["init", str(folder), *ports]) == 0
    config = folder / "est-server.toml"
    rest, found, _ = config.read_text().partition("# Requests without a label.")
    assert found
    config.write_text(rest + '[default]\nauthorizers = ["device-list"]\n')
    anchor = directory / "acme.pem"
    anchor.write_bytes(ACME.certificate.public_bytes(Encoding.PEM))
    trusted = ("trust", "add-manufacturer", str(anchor), "--name", "acme")
    assert await command(config, *trusted) == 0
    rows = [
        f"{name},{spki_sha256(make_key(name).public_key()).hex()},acme"
        for name in ("one", "two", "three")
    ]
    listing = directory / "list.csv"
    listing.write_text("\n".join(["udid,spki_sha256,owner", *rows]) + "\n")
    assert await command(config, "devices", "import", str(listing), "--allow-unsigned") == 0
    config.write_text(rest + EXAMPLES[model])
    async with EstServer.from_config(config) as server:
        yield Plant(config, server, transport)


transports = pytest.mark.parametrize("transport", ["https", "coaps"])


def test_there_is_an_example_of_each() -> None:
    assert list(EXAMPLES) == [
        "listed-key",
        "birth-certificate-and-list",
        "birth-certificate",
        "one-time-secret",
        "approval",
        "all-of",
        "first-of",
    ]
    for text in EXAMPLES.values():
        tomllib.loads(text)


@transports
async def test_listed_key(tmp_path: Path, transport: str) -> None:
    async with plant(tmp_path, "listed-key", transport) as here:
        assert await here.enroll(bare("one")) == "CN=one"
        with pytest.raises(ServerRefused, match=r"not (on the device list|trusted here)"):
            await here.enroll(bare("stranger"))


@transports
async def test_birth_certificate_and_list(tmp_path: Path, transport: str) -> None:
    async with plant(tmp_path, "birth-certificate-and-list", transport) as here:
        assert await here.enroll(listed_with_birth("one"), key="operational") == "CN=one"
        with pytest.raises(ServerRefused, match="birth certificate is required"):
            await here.enroll(bare("two"))
        with pytest.raises(ServerRefused, match="not on the device list"):
            await here.enroll(listed_with_birth("overproduced"))


@transports
async def test_birth_certificate(tmp_path: Path, transport: str, capsys: Output) -> None:
    async with plant(tmp_path, "birth-certificate", transport) as here:
        device = born(ACME, "SN-17")
        with pytest.raises(ServerRefused, match="quarantine"):
            await here.enroll(device)
        assert await here.enroll(device, label="onboarding") == "CN=acme-SN-17"
        capsys.readouterr()
        assert await here.run("devices", "list") == 0
        assert re.search(r"^acme-SN-17  quarantined ", capsys.readouterr().out, re.MULTILINE)
        release = ("devices", "release", "acme-SN-17", "--reason", "seen at gate 4")
        assert await here.run(*release) == 0
        assert capsys.readouterr().out == "acme-SN-17  enrolled\n"
        name = x509.Name.from_rfc4514_string(await here.enroll(device))
        assert name == x509.Name.from_rfc4514_string("CN=acme-SN-17,O=plant-3")
        with pytest.raises(ServerRefused, match="not registered here"):
            await here.enroll(born(ACME, "XX-1", key="other"))
        assert await here.run(*release) == 1
        assert "cannot release" in capsys.readouterr().err


@transports
async def test_one_time_secret(tmp_path: Path, transport: str, capsys: Output) -> None:
    async with plant(tmp_path, "one-time-secret", transport) as here:
        capsys.readouterr()
        assert await here.run("secrets", "add", "batch") == 0
        secret = capsys.readouterr().out.strip()
        stranger = bare("stranger")
        expected = f"CN={spki_sha256(stranger.key.public_key()).hex()}"
        assert await here.enroll(stranger, secret=secret) == expected
        with pytest.raises(ServerRefused, match="not good any more"):
            await here.enroll(bare("another"), secret=secret)
        assert await here.run("devices", "list") == 0
        assert re.search(rf"^{expected[3:]}  enrolled ", capsys.readouterr().out, re.MULTILINE)


@transports
async def test_a_device_with_a_secret_of_its_own_after_a_factory_reset(
    tmp_path: Path, transport: str, capsys: Output
) -> None:
    async with plant(tmp_path, "one-time-secret", transport) as here:
        for key in ("as made", "after the reset"):
            capsys.readouterr()
            assert await here.run("secrets", "add", key, "--device", "pump-17") == 0
            secret = capsys.readouterr().out.strip()
            assert await here.enroll(bare(key), secret=secret) == "CN=pump-17"
            with pytest.raises(ServerRefused):
                await here.enroll(bare("another"), secret=secret)
            assert await here.run("devices", "reset", "pump-17", "--reason", "repaired") == 0
        assert await here.run("devices", "suspend", "pump-17", "--reason", "lost") == 0
        capsys.readouterr()
        assert await here.run("devices", "show", "pump-17") == 0
        assert re.search(r"^unlisted +one-time-secret$", capsys.readouterr().out, re.MULTILINE)
        with pytest.raises(ServerRefused, match="this device is suspended"):
            await here.enroll(bare("as made"), secret=secret)


@transports
async def test_approval(tmp_path: Path, transport: str) -> None:
    async with plant(tmp_path, "approval", transport) as here:
        with pytest.raises(StillPending) as waits:
            await here.enroll(bare("stranger"))
        assert waits.value.retry_after == 60
        assert await here.run("approvals", "approve", "1", "--reason", "read off the label") == 0
        await here.enroll(bare("stranger"))


@transports
async def test_all_of(tmp_path: Path, transport: str, capsys: Output) -> None:
    async with plant(tmp_path, "all-of", transport) as here:
        capsys.readouterr()
        assert await here.run("secrets", "add", "batch") == 0
        secret = capsys.readouterr().out.strip()
        with pytest.raises(ServerRefused):
            await here.enroll(bare("one"))
        with pytest.raises(ServerRefused):
            await here.enroll(bare("stranger"), secret=secret)
        with pytest.raises(StillPending):
            await here.enroll(bare("one"), secret=secret)
        assert await here.run("approvals", "approve", "1", "--reason", "seen") == 0
        assert await here.enroll(bare("one"), secret=secret) == "CN=one"


@transports
async def test_first_of(tmp_path: Path, transport: str) -> None:
    async with plant(tmp_path, "first-of", transport) as here:
        device = born(ACME, "SN-1")
        with pytest.raises(ServerRefused):
            await here.enroll(device)
        with pytest.raises(StillPending):
            await here.enroll(device, label="others")
        assert await here.run("approvals", "approve", "1", "--reason", "seen") == 0
        udid = spki_sha256(device.key.public_key()).hex()
        assert await here.enroll(device, label="others") == f"CN={udid}"
        assert await here.enroll(listed_with_birth("one"), label="either") == "CN=one"
        with pytest.raises(ServerRefused, match="quarantine"):
            await here.enroll(born(ACME, "SN-2", key="second"), label="either")
