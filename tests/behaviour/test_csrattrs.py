"""What a server asks for in a CSR, told and enforced, whichever road the request takes."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from est_client.client import EstClient
from est_client.connection import EstConnection
from est_client.trust import TrustDatabase
from est_protocol.csr_attributes import CsrAttribute, CsrAttributes, ExtensionTemplate
from est_protocol.csr_wishes import read
from est_protocol.errors import ConfigurationError, RefusalReason, ServerRefused
from est_protocol.keys import generate_key
from est_protocol.messages import Transport
from est_protocol.oid_names import CHALLENGE_PASSWORD, EST_IDENTITY_LINKING, KEY_USAGE
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors
from tests.behaviour.roads import Road
from tests.behaviour.world import LABEL, STRICT, WISHES, WISHING, Device, World
from tests.pki import make_name

WISHED_SUBJECT = x509.Name(
    [
        x509.NameAttribute(NameOID.COMMON_NAME, "pump 7"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "pumps"),
    ]
)
WISHED_NAMES = (x509.DNSName("a.test"), x509.IPAddress(ip_address("192.0.2.7")))
DIGITAL_SIGNATURE = ExtensionTemplate(KEY_USAGE, True, b"\x03\x02\x07\x80")


@pytest.mark.conformance("ATT-02", "ATT-06", "ATT-28", "AUTH-03", "TLS-19")
async def test_a_label_says_what_it_asks_for(world: World, road: Road) -> None:
    """A bare key is nobody on HTTPS, and may ask all the same."""
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        der = await connection.csrattrs(label=WISHING)
    assert der is not None
    message = CsrAttributes.decode(der)
    assert message.template is not None
    assert read(message) == WISHES


@pytest.mark.conformance("ATT-02", "CR-03")
async def test_a_label_without_wishes_says_nothing(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        assert await connection.csrattrs() is None
        assert await connection.csrattrs(label=LABEL) is None


@pytest.mark.conformance("POP-05")
async def test_linking_is_announced_where_it_is_required(world: World, road: Road) -> None:
    """RFC 7030 section 4.5.2."""
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        der = await connection.csrattrs(label=STRICT)
    assert der is not None
    assert CsrAttributes.decode(der).elements == (CsrAttribute(CHALLENGE_PASSWORD),)


@pytest.mark.conformance("AUTH-03")
async def test_a_stranger_may_ask_on_https_only(world: World, road: Road) -> None:
    """RFC 7030 section 4.5 and RFC 9148 section 4."""
    stranger = world.unlisted_device("stranger")
    async with road.connection(stranger) as connection:
        if road.transport is Transport.HTTPS:
            assert await connection.csrattrs(label=WISHING) is not None
            return
        with pytest.raises(ServerRefused) as refusal:
            await connection.csrattrs(label=WISHING)
    assert refusal.value.status == road.forbidden


async def test_a_csr_that_lacks_what_is_asked_for_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.simpleenroll(device.key, subject=make_name("a"), label=WISHING)
    assert refusal.value.status == road.bad_request
    # On CoAPS the sentence is cut to what fits into one block.
    assert refusal.value.explanation.startswith("the certification request lacks what /csrattrs")
    if road.transport is Transport.HTTPS:
        assert refusal.value.explanation.endswith(
            "asks for: subject OU=pumps; extension subjectAltName; extension keyUsage"
        )
    assert world.last_refusal == RefusalReason.CSR_ATTRIBUTES_MISSING
    assert world.issued_count() == 0


@pytest.mark.conformance("ATT-29")
async def test_a_csr_that_has_what_is_asked_for_is_granted(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        csr = connection.csr(
            device.key, WISHED_SUBJECT, names=WISHED_NAMES, extensions=(DIGITAL_SIGNATURE,)
        )
        certificate = await connection.post(Operation.SIMPLEENROLL, csr.der, label=WISHING)
        # What was asked for in the CSR is still a wish as far as the certificate goes.
        assert certificate.subject == make_name(device.udid)
        device = device.with_certificate(certificate)
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused) as refusal:
            await connection.simplereenroll(device.key, label=WISHING)
        assert world.last_refusal == RefusalReason.CSR_ATTRIBUTES_MISSING
        assert "subject" not in refusal.value.explanation
        csr = connection.csr(device.key, certificate.subject, extensions=(DIGITAL_SIGNATURE,))
        renewed = await connection.post(Operation.SIMPLEREENROLL, csr.der, label=WISHING)
    assert renewed.serial_number != certificate.serial_number


async def test_identity_linking_links_as_challenge_password_does(world: World, road: Road) -> None:
    """RFC 7894 section 3."""
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        csr = connection.csr(device.key, make_name("a"), linked_by=EST_IDENTITY_LINKING)
        await connection.post(Operation.SIMPLEENROLL, csr.der, label=STRICT)
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.post(Operation.SIMPLEENROLL, csr.der, label=STRICT)
    assert world.last_refusal == RefusalReason.POP_LINKING_FAILED


# -- The client that follows -------------------------------------------------------------------


@dataclass(frozen=True)
class Connector:
    """Takes an EstClient along a road."""

    road: Road
    host: str = "localhost"

    @property
    def transport(self) -> Transport:
        return self.road.transport

    async def connect(
        self,
        *,
        credentials: LocalCredentials | None,
        anchors: TrustAnchors,
        require_trust: bool = True,
    ) -> EstConnection:
        return await self.road.connect(credentials)


def client_of(world: World, road: Road, device: Device, label: str) -> EstClient:
    return EstClient(
        Connector(road),
        trust=TrustDatabase(explicit=(world.authority_root,)),
        identity=LocalCredentials(device.key, device.chain),
        label=label,
    )


@pytest.mark.conformance("ATT-19", "ATT-21", "ATT-22")
async def test_a_client_that_follows_the_template_is_granted(world: World, road: Road) -> None:
    device = await world.list_device("a")
    address = x509.IPAddress(ip_address("192.0.2.7"))
    async with client_of(world, road, device, WISHING) as client:
        assert await client.csrattrs() == WISHES
        with pytest.raises(ServerRefused):
            await client.simpleenroll(subject_alt_names=(address,))
        certificate = await client.simpleenroll(
            subject_alt_names=(address,), follow_csr_attributes=True
        )
        assert certificate.issuer == world.authority_issuing.subject
        client.identity = LocalCredentials(device.key, (certificate,))
        with pytest.raises(ServerRefused):
            await client.simplereenroll()
        renewed = await client.simplereenroll(follow_csr_attributes=True)
    assert renewed.subject == certificate.subject


async def test_a_key_that_does_not_fit_is_not_even_sent(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with client_of(world, road, device, WISHING) as client:
        with pytest.raises(ConfigurationError, match=r"asks for a key of kind ec-p256.*ec-p384"):
            await client.simpleenroll(key=generate_key("ec-p384"), follow_csr_attributes=True)
    assert world.last_refusal is None


@pytest.mark.conformance("ATT-01")
async def test_a_server_that_asks_for_nothing_is_followed_too(world: World, road: Road) -> None:
    device = await world.list_device("a")
    async with client_of(world, road, device, LABEL) as client:
        assert await client.csrattrs() is None
