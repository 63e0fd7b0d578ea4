"""One server, several labels, all from one ``est-server.toml``, on both transports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509

from est_client import EstClient, LocalCredentials, TrustDatabase
from est_protocol.errors import ServerRefused
from est_protocol.keys import spki_sha256
from est_protocol.operations import Operation
from est_server import ClientIdentity, EnrollmentRequest, EstServer, IssuanceGrant, grant_for
from est_server.cli import main
from est_server.coaps.discovery import links
from tests.pki import make_key

#: Every character that a path segment can hold as it is, and some that it cannot.
PCHARS = "-._~!$&'()*+,;=:@"
ODD = "caf\u00e9 {2}/100%"

CONFIG = f"""
[authorities.plant]
certificate = "../plant/ca/issuing.pem"
key = "../plant/ca/issuing.key"

[labels."{PCHARS}"]
authority = "plant"
authorizers = ["tests.behaviour.test_several_labels:anybody"]
require_pop_linking = true

[labels."{PCHARS}".profile]
subject = "CN={{udid}},OU=plant"
validity = "1d"

[labels."caf%C3%A9 %7B2%7D%2F100%25"]
authorizers = ["device-list"]

[labels.strict]
authorizers = ["device-list"]
require_pop_linking = true
"""


async def anybody(request: EnrollmentRequest, client: ClientIdentity) -> IssuanceGrant:
    """Grants to whoever holds a key; the authorizer of one label only."""
    return grant_for(request, device="anybody")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    ports = ["--https-port", "0", "--coaps-port", "0"]
    assert main(["init", str(tmp_path / "est"), *ports]) == 0
    assert main(["init", str(tmp_path / "plant"), "--name", "Plant", *ports]) == 0
    file = tmp_path / "est" / "est-server.toml"
    file.write_text(file.read_text() + CONFIG)
    listed = spki_sha256(make_key("device").public_key()).hex()
    devices = tmp_path / "list.csv"
    devices.write_text(f"udid,spki_sha256\nsensor-0001,{listed}\n")
    assert main(["devices", "import", str(devices), "--allow-unsigned", "--config", str(file)]) == 0
    return file


@pytest.fixture
async def server(config: Path) -> AsyncIterator[EstServer]:
    async with EstServer.from_config(config) as running:
        yield running


class Fleet:
    """Makes clients of one server on one transport; they trust the roots of both CAs."""

    def __init__(self, server: EstServer, transport: str, folder: Path) -> None:
        address = {"https": server.https_address, "coaps": server.coaps_address}[transport]
        self._url = f"{transport}://{address}"
        self.roots = {
            name: x509.load_pem_x509_certificate((folder / name / "ca.pem").read_bytes())
            for name in ("est", "plant")
        }

    def client(self, segment: str | None = None, *, key: str = "device") -> EstClient:
        """A client with a bare key; ``segment`` is the label as the URL has it."""
        return EstClient(
            self._url if segment is None else f"{self._url}/.well-known/est/{segment}",
            trust=TrustDatabase(explicit=tuple(self.roots.values())),
            identity=LocalCredentials(make_key(key), ()),
            adopt_trust=False,
        )


@pytest.fixture(params=["https", "coaps"])
def fleet(request: pytest.FixtureRequest, server: EstServer, tmp_path: Path) -> Fleet:
    return Fleet(server, request.param, tmp_path)


@pytest.mark.conformance("HTTP-04", "HTTP-06", "CU-10")
async def test_every_label_has_its_own_ca_and_the_default_answers_beside_them(fleet: Fleet) -> None:
    answers = {}
    for segment in (None, PCHARS, quote(ODD, safe=""), "strict"):
        async with fleet.client(segment) as client:
            answers[segment] = await client.cacerts()
    assert fleet.roots["plant"] in answers.pop(PCHARS)
    assert all(fleet.roots["est"] in answer for answer in answers.values())


async def test_a_label_has_its_own_profile_and_authorizer(fleet: Fleet) -> None:
    async with fleet.client() as client:
        unlabelled = await client.simpleenroll(key=make_key("device"))
    async with fleet.client(PCHARS, key="stranger") as client:
        labelled = await client.simpleenroll(key=make_key("stranger"))
    assert unlabelled.subject.rfc4514_string() == "CN=sensor-0001"
    assert labelled.subject.rfc4514_string() == "CN=anybody,OU=plant"
    assert labelled.issuer.rfc4514_string() == "CN=Plant Issuing CA"
    assert labelled.not_valid_after_utc - labelled.not_valid_before_utc < timedelta(days=2)
    async with fleet.client(key="stranger") as client:
        with pytest.raises(ServerRefused, match=r"403|4\.03"):
            await client.simpleenroll(key=make_key("stranger"))


async def test_a_label_has_its_own_strictness(fleet: Fleet) -> None:
    device = make_key("device")
    async with fleet.client("strict") as client:
        client._pop_linking = False
        with pytest.raises(ServerRefused, match="linking"):
            await client.simpleenroll(key=device)


@pytest.mark.parametrize(
    "segment",
    ["caf%C3%A9%20%7B2%7D%2F100%25", "caf%c3%a9%20%7b2%7d%2f100%25", "c%61f%C3%A9%20{2}%2F100%25"],
)
async def test_spellings_of_one_label_are_one_label(
    fleet: Fleet, server: EstServer, segment: str
) -> None:
    """Asked twice, in two spellings: the second answer repeats the first."""
    device = make_key("device")
    async with fleet.client(quote(ODD, safe="")) as client:
        first = await client.simpleenroll(key=device)
    async with fleet.client(segment) as client:
        assert await client.simpleenroll(key=device) == first


@pytest.mark.parametrize("segment", ["caf%C3%A9", "STRICT", "stric", "strict%20", "%25", "plant"])
async def test_another_label_is_not_found(fleet: Fleet, segment: str) -> None:
    async with fleet.client(segment) as client:
        with pytest.raises(ServerRefused, match=r"404|4\.04"):
            await client.cacerts()


@pytest.mark.conformance("CU-10")
def test_discovery_spells_labels_as_a_path_does() -> None:
    served = {label: [Operation.CACERTS] for label in (None, PCHARS, ODD)}
    assert [link.href for link in links(("est",), served)] == [
        "/est/crts",
        f"/est/{PCHARS}/crts",
        "/est/caf%C3%A9%20%7B2%7D%2F100%25/crts",
    ]
