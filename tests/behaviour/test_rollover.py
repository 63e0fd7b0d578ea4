"""A CA is replaced while devices live on: who was made before follows by itself."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_client import CaFingerprint, EstClient, FileKeyStore, TrustDatabase, keep_current
from est_client.lifecycle import Waiting, enroll_device
from est_server import EstServer
from est_server.authorities.creation import create_ca
from est_server.cli import main
from est_server.new_server import CONFIG_NAME, NewServer, provision
from tests.behaviour.programs import Gate

#: How long the old CA still lives.
LIFE = timedelta(days=30)


def now() -> datetime:
    return datetime.now(UTC)


def after_the_old_ca() -> datetime:
    """What the device's clock says when the old CA is gone; the server's may be behind."""
    return now() + LIFE + timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server whose CA comes to its end."""
    short = partial(create_ca, root_validity=LIFE, issuing_validity=LIFE)
    monkeypatch.setattr("est_server.new_server.create_ca", short)
    provision(tmp_path / "est", NewServer(https_port=0, coaps_port=0), now=now())
    return tmp_path / "est"


@asynccontextmanager
async def serving(folder: Path, transport: str) -> AsyncIterator[str]:
    async with EstServer.from_config(folder / CONFIG_NAME, authorizer=Gate()) as server:
        address = {"https": server.https_address, "coaps": server.coaps_address}[transport]
        yield f"{transport}://{address}"


def roll_over(
    folder: Path, capsys: pytest.CaptureFixture[str], *, before: str = "ca", to: str = "ca-2"
) -> None:
    """Do what the operator does, and what the command tells to do."""
    config = folder / CONFIG_NAME
    root_key = str(folder / before / "root.key")
    capsys.readouterr()
    arguments = ["--config", str(config), "--root-key", root_key, "--out", str(folder / to)]
    assert main(["ca", "rollover", *arguments]) == 0
    said = capsys.readouterr().out
    tables = tomllib.loads(said[said.index("\n[") : said.rindex("\nDevices")])
    lines = config.read_text().splitlines()
    authorities = {f"authorities.{name}": t for name, t in tables.pop("authorities").items()}
    for table, settings in {**tables, **authorities}.items():
        set_in(lines, f"[{table}]", {key: f'{key} = "{value}"' for key, value in settings.items()})
    config.write_text("\n".join(lines) + "\n")


def set_in(lines: list[str], header: str, settings: dict[str, str]) -> None:
    """Set these in one table of a configuration, and leave the rest of it."""
    if header not in lines:
        lines += ["", header]
    first = lines.index(header) + 1
    last = next((n for n in range(first, len(lines)) if lines[n].startswith("[")), len(lines))
    rest = [line for line in lines[first:last] if line.split(" =")[0] not in settings]
    lines[first:last] = [*settings.values(), *rest]


def certificate_in(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


async def enroll(url: str, store: FileKeyStore, trust: TrustDatabase | CaFingerprint) -> None:
    async with EstClient(url, trust=trust) as client:
        await enroll_device(client, store)


@pytest.mark.conformance("CA-07", "CA-08", "CA-09", "CA-11", "CD-17", "CD-19")
@pytest.mark.parametrize("transport", ["https", "coaps"])
async def test_a_device_that_was_made_before_ends_with_the_new_root_alone(
    folder: Path, transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FileKeyStore(folder / "device")
    old_root = certificate_in(folder / "ca.pem")
    async with serving(folder, transport) as url:
        await enroll(url, store, TrustDatabase.load(folder / "ca.pem"))
    assert await store.trust_anchors() == (old_root,)

    roll_over(folder, capsys)
    new_root = certificate_in(folder / "ca-2" / "ca.pem")
    async with serving(folder, transport) as url:
        renewed = await renew(url, store, Waiting())
        assert renewed.issuer.rfc4514_string() == "CN=EST Issuing CA G2"
        anchors = await store.trust_anchors()
        assert anchors[0] == new_root
        assert [a.public_key() for a in anchors] == [new_root.public_key(), old_root.public_key()]

        later = Waiting(now=after_the_old_ca)
        again = await renew(url, store, later)
        assert again.issuer == renewed.issuer
        assert await store.trust_anchors() == (new_root,)
        assert await renew(url, store, later)


async def renew(url: str, store: FileKeyStore, waiting: Waiting) -> x509.Certificate:
    trust = TrustDatabase(explicit=await store.trust_anchors())
    async with EstClient(url, trust=trust, now=waiting.now) as client:
        done = await keep_current(client, store, force=True, waiting=waiting)
    assert done.renewed is not None
    return done.renewed


@pytest.mark.conformance("CA-07")
@pytest.mark.parametrize("transport", ["https", "coaps"])
@pytest.mark.parametrize("generation", ["ca.pem", "ca-2/ca.pem"])
@pytest.mark.parametrize("by_fingerprint", [False, True], ids=["anchor", "fingerprint"])
async def test_a_device_that_knows_either_root_enrolls(
    folder: Path,
    transport: str,
    generation: str,
    by_fingerprint: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    roll_over(folder, capsys)
    root = certificate_in(folder / generation)
    trust: TrustDatabase | CaFingerprint = TrustDatabase(explicit=(root,))
    if by_fingerprint:
        trust = CaFingerprint(root.fingerprint(hashes.SHA256()))
    store = FileKeyStore(folder / "device")
    async with serving(folder, transport) as url:
        await enroll(url, store, trust)
    assert (await store.trust_anchors())[0] == certificate_in(folder / "ca-2" / "ca.pem")


def crl_of(certificate: x509.Certificate, server: EstServer) -> str:
    """Where the CRL of a certificate's CA is, by what the certificate says."""
    extension = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    [point] = extension.value
    assert point.full_name is not None
    [name] = point.full_name
    assert isinstance(name, x509.UniformResourceIdentifier)
    return name.value.replace("http://crl.example.com", f"http://{server.crl_address}")


async def test_certificates_of_both_generations_find_the_crl_of_their_own_ca(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = folder / CONFIG_NAME
    lines = config.read_text().splitlines()
    set_in(lines, "[crl]", {"port": "port = 0", "url": 'url = "http://crl.example.com"'})
    set_in(lines, "[default.profile]", {"crl": 'crl_distribution_points = ["{crl}"]'})
    config.write_text("\n".join(lines) + "\n")
    store = FileKeyStore(folder / "device")
    certificates = []
    async with serving(folder, "https") as url:
        await enroll(url, store, TrustDatabase.load(folder / "ca.pem"))
    for generation in ("ca-2", "ca-3"):
        identity = await store.identity()
        assert identity is not None
        certificates.append(identity.chain[0])
        before = {"ca-2": "ca", "ca-3": "ca-2"}[generation]
        roll_over(folder, capsys, before=before, to=generation)
        async with serving(folder, "https") as url:
            certificates.append(await renew(url, store, Waiting()))
    async with (
        EstServer.from_config(config, authorizer=Gate()) as server,
        aiohttp.ClientSession() as session,
    ):
        for certificate in certificates:
            async with session.get(crl_of(certificate, server)) as answer:
                assert answer.status == 200
                crl = x509.load_der_x509_crl(await answer.read())
            assert crl.issuer == certificate.issuer
    assert len({crl_of(certificate, server) for certificate in certificates}) == 3
