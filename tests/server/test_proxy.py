"""TLS-terminating proxies: who is believed, and what they may say."""

from __future__ import annotations

import asyncio
import base64
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes

from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.client_certificate_fields import encode_chain, encode_octets
from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import ConfigurationError, RefusalReason
from est_protocol.operations import WELL_KNOWN_PATH
from est_protocol.secure_channel.context import TrustAnchors
from est_server.cli import main
from est_server.config import load_config
from est_server.https import (
    ConveyedBinding,
    HttpsEndpoint,
    PlainHttpEndpoint,
    ProxyTrust,
    est_application,
    serve,
    serve_plain,
)
from est_server.https.peers import Connection, find_peer
from est_server.server import EstServer
from tests.foreign_tls import client_context
from tests.pki import CLIENT_AUTH, make_ca, make_leaf, make_server, odd_to_openssl
from tests.server.test_https import BODY, Clerk, head, issue

CA = make_ca("operational")
ANCHORS = TrustAnchors({AnchorSet.OPERATIONAL: [CA.certificate]})
DEVICE = make_leaf(CA, "device", usage=CLIENT_AUTH)
FIELDS = encode_chain(DEVICE.chain)
#: How the proxy of these tests shows itself in TLS.
PROXY = make_leaf(None, "proxy")
TRUST = ProxyTrust(
    networks=(ip_network("127.0.0.0/8"), ip_network("2001:db8::/64")),
    certificates=frozenset({PROXY.chain[0].fingerprint(hashes.SHA256())}),
    anchors=ANCHORS,
)
LOOPBACK = Connection("127.0.0.1", "127.0.0.1:4711")


def found(connection: Connection, trust: ProxyTrust = TRUST, **fields: str) -> PeerCredentials:
    """The peer; a refusal is an error."""
    headers = {name.replace("_", "-"): [value] for name, value in fields.items()}
    peer = find_peer(connection, headers, trust)
    if peer.refused is not None:
        raise peer.refused
    return peer.peer


# -- who is a proxy -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "is_proxy"),
    [
        (LOOPBACK, True),
        (Connection("::ffff:127.0.0.1", ""), True),
        (Connection("2001:db8::1%eth0", ""), True),
        (Connection("2001:db9::1", ""), False),
        (Connection("192.0.2.1", ""), False),
        (Connection("no address", ""), False),
        (Connection(None, "unix"), False),
        (Connection("127.0.0.1", "", over_tls=True), False),
        (Connection("127.0.0.1", "", PeerCredentials(), over_tls=True), False),
        (Connection("127.0.0.1", "", PeerCredentials(chain=DEVICE.chain), over_tls=True), False),
        (Connection("192.0.2.1", "", PeerCredentials(chain=PROXY.chain), over_tls=True), True),
    ],
)
@pytest.mark.conformance("HTTP-21")
def test_who_is_believed(connection: Connection, is_proxy: bool) -> None:
    peer = find_peer(connection, {name: [value] for name, value in FIELDS.items()}, TRUST)
    if is_proxy:
        assert peer.refused is None
        assert peer.peer.chain == DEVICE.chain
        assert peer.peer.anchor_set is AnchorSet.OPERATIONAL
        assert peer.peer.is_verified
    else:
        assert peer.refused is not None
        assert peer.refused.reason is RefusalReason.MALFORMED_REQUEST
        assert "none that is known here" in peer.refused.sentence


def test_nobody_is_believed_by_default() -> None:
    for connection in (LOOPBACK, Connection(None, "unix")):
        assert find_peer(connection, {"client-cert": ["::"]}, ProxyTrust()).refused is not None


def test_a_unix_socket_is_believed_where_it_is_said() -> None:
    trust = ProxyTrust(unix_socket=True, anchors=ANCHORS)
    assert find_peer(Connection(None, "unix"), {}, trust).in_sight
    assert not find_peer(LOOPBACK, {}, trust).in_sight


def test_a_proxy_is_not_its_client() -> None:
    """Whoever comes through a proxy without a certificate has none, though the proxy has one."""
    channel = PeerCredentials(
        chain=PROXY.chain,
        channel_binding=ChannelBinding(ChannelBindingType.TLS_EXPORTER, bytes(32)),
    )
    peer = found(Connection("192.0.2.1", "192.0.2.1:1", channel, over_tls=True))
    assert (peer.chain, peer.channel_binding) == ((), None)
    assert peer.terminated_by == "192.0.2.1:1"


def test_a_certificate_that_openssl_cannot_read_is_malformed() -> None:
    fields = encode_chain([odd_to_openssl(DEVICE.chain[0])])
    peer = find_peer(LOOPBACK, {name: [value] for name, value in fields.items()}, TRUST)
    assert peer.refused is not None
    assert peer.refused.reason is RefusalReason.MALFORMED_REQUEST
    assert peer.peer.chain == ()


# -- what it says -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"client_cert": ["x"]}, "colons"),
        ({"client_cert": [FIELDS["client-cert"]] * 2}, "more than one client-cert"),
        ({"client_cert_chain": [FIELDS["client-cert"]]}, "without a Client-Cert"),
        (
            {
                "client_cert": [FIELDS["client-cert"]],
                "client_cert_chain": [FIELDS["client-cert"]] * 2,
            },
            "more than one client-cert-chain",
        ),
        (
            {
                "client_cert": [FIELDS["client-cert"]],
                "client_cert_chain": [", ".join([FIELDS["client-cert"]] * 8)],
            },
            "more than 8",
        ),
        ({"client_cert": [encode_octets(bytes(20_000))]}, "longer than 16384"),
    ],
)
@pytest.mark.conformance("HTTP-21")
def test_what_makes_no_sense_is_refused(fields: dict[str, list[str]], why: str) -> None:
    headers = {name.replace("_", "-"): values for name, values in fields.items()}
    refused = find_peer(LOOPBACK, headers, TRUST).refused
    assert refused is not None
    assert re.search(why, refused.sentence)


def test_the_address_of_the_client() -> None:
    trust = ProxyTrust(networks=TRUST.networks, address_header="x-real-ip")
    assert found(LOOPBACK, trust, x_real_ip="2001:db8::7").address == "2001:db8::7"
    assert found(LOOPBACK, trust).address == LOOPBACK.address
    refused = find_peer(LOOPBACK, {"x-real-ip": ["1.2.3.4, 5.6.7.8"]}, trust).refused
    assert refused is not None
    assert find_peer(LOOPBACK, {"x-real-ip": ["1.2.3.4"] * 2}, trust).refused is not None


@pytest.mark.conformance("HTTP-22")
def test_a_binding_is_taken_from_the_configured_field_only() -> None:
    value = bytes(range(12))
    conveyed = ConveyedBinding("tls-binding", ChannelBindingType.TLS_UNIQUE)
    trust = ProxyTrust(networks=TRUST.networks, channel_binding=conveyed)
    binding = found(LOOPBACK, trust, tls_binding=encode_octets(value)).channel_binding
    assert binding == ChannelBinding(ChannelBindingType.TLS_UNIQUE, value)
    assert found(LOOPBACK, trust).channel_binding is None
    assert found(LOOPBACK, TRUST, tls_binding=encode_octets(value)).channel_binding is None
    for wrong in (encode_octets(b""), encode_octets(bytes(11)), encode_octets(bytes(32)), "x"):
        assert find_peer(LOOPBACK, {"tls-binding": [wrong]}, trust).refused is not None
    elsewhere = Connection("192.0.2.1", "")
    assert find_peer(elsewhere, {"tls-binding": [encode_octets(value)]}, trust).refused is not None


# -- over the wire ------------------------------------------------------------------------------


def enroll(**fields: str) -> bytes:
    headers = {"Content-Type": "application/pkcs10", "Content-Length": str(len(BODY))}
    headers |= {name.replace("_", "-"): value for name, value in fields.items()}
    return head("POST", f"{WELL_KNOWN_PATH}/simpleenroll", headers) + BODY


async def ask(connecting: asyncio.StreamReader, writer: asyncio.StreamWriter, octets: bytes) -> int:
    writer.write(octets)
    answer = await connecting.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ")[1])


@asynccontextmanager
async def proxied(
    clerk: Clerk, endpoint: PlainHttpEndpoint, trust: ProxyTrust
) -> AsyncIterator[str]:
    app = web.Application()
    app.add_subapp(WELL_KNOWN_PATH, est_application(clerk, proxies=trust))
    async with await serve_plain(app, endpoint) as server:
        yield server.addresses[0]


@pytest.mark.conformance("HTTP-21")
async def test_plain_http_from_a_proxy() -> None:
    clerk = Clerk(issue)
    async with proxied(clerk, PlainHttpEndpoint(port=0), TRUST) as address:
        host, port = address.split(":")
        assert await ask(*await asyncio.open_connection(host, port), enroll(**FIELDS)) == 200
        # A client without a certificate is the service's to judge.
        assert await ask(*await asyncio.open_connection(host, port), enroll()) == 200
    assert [peer.chain for _, peer in clerk.requests] == [DEVICE.chain, ()]
    assert all(peer.terminated_by.startswith("127.0.0.1:") for _, peer in clerk.requests)


@pytest.mark.conformance("HTTP-21")
@pytest.mark.parametrize("fields", [{}, FIELDS], ids=["modest", "forged"])
async def test_plain_http_from_anybody_else(fields: dict[str, str]) -> None:
    clerk = Clerk(issue)
    trust = ProxyTrust(networks=(ip_network("192.0.2.0/24"),), anchors=ANCHORS)
    async with proxied(clerk, PlainHttpEndpoint(port=0), trust) as address:
        status = await ask(*await asyncio.open_connection(*address.split(":")), enroll(**fields))
    assert status == (400 if fields else 403)
    assert clerk.requests == []
    assert len(clerk.refusals) == 1


async def test_a_unix_socket(tmp_path: Path) -> None:
    clerk = Clerk(issue)
    path = tmp_path / "est.sock"
    trust = ProxyTrust(unix_socket=True, anchors=ANCHORS)
    for _ in range(2):  # The second finds what the first has left.
        async with proxied(clerk, PlainHttpEndpoint(unix_socket=path), trust) as address:
            assert address == f"unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert await ask(*await asyncio.open_unix_connection(path), enroll(**FIELDS)) == 200
    assert [peer.chain for _, peer in clerk.requests] == [DEVICE.chain] * 2


@pytest.mark.conformance("HTTP-21")
async def test_a_proxy_with_a_certificate_on_the_https_port() -> None:
    clerk = Clerk(issue)
    app = web.Application()
    app.add_subapp(WELL_KNOWN_PATH, est_application(clerk, proxies=TRUST))
    endpoint = HttpsEndpoint(make_server(CA), ANCHORS, port=0)
    async with await serve(app, endpoint) as server:
        for credentials, status in ((PROXY, 200), (DEVICE, 400), (None, 400)):
            context = client_context(credentials)
            opened = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
            assert await ask(*opened, enroll(**FIELDS)) == status
    [(_, peer)] = clerk.requests
    assert peer.chain == DEVICE.chain
    assert peer.terminated_by


# -- the configuration --------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "est"
    assert main(["init", str(folder), "--https-port", "0", "--coaps-port", "0"]) == 0
    return folder / "est-server.toml"


def add(config: Path, *lines: str) -> None:
    config.write_text("\n".join([config.read_text(), "[proxy]", *lines, ""]))


def leave_out(config: Path, begin: str, end: str) -> None:
    text = config.read_text()
    config.write_text(text[: text.index(begin)] + text[text.index(end) :])


async def test_a_server_that_is_configured_so(config: Path) -> None:
    add(config, 'listen = "127.0.0.1"', "port = 0", 'addresses = ["127.0.0.0/8"]')
    body = base64.encodebytes(b"nothing that decodes")
    headers = {"Content-Type": "application/pkcs10", "Content-Length": str(len(body)), **FIELDS}
    async with EstServer.from_config(config) as server:
        assert server.proxy_address is not None
        assert f"proxy={server.proxy_address}" in str(server)
        opened = await asyncio.open_connection(*server.proxy_address.split(":"))
        octets = head("POST", f"{WELL_KNOWN_PATH}/simpleenroll", headers) + body
        opened[1].write(octets)
        answer = await opened[0].read()
        opened[1].close()
        await opened[1].wait_closed()
    assert b"400" in answer.split(b"\r\n")[0]
    assert b"Server:" not in answer


async def test_a_proxy_may_be_all_that_is_served(config: Path) -> None:
    leave_out(config, "[https]", "[authorities.default]")
    add(config, f'unix_socket = "{config.parent / "est.sock"}"')
    async with EstServer.from_config(config) as server:
        assert str(server) == f"proxy=unix:{config.parent / 'est.sock'}"


def test_a_port_for_certificates(config: Path) -> None:
    add(config, f'certificates = ["{"ab" * 32}"]')
    settings = load_config(config).proxy
    assert settings is not None
    assert settings.endpoint() is None
    trust = settings.trust(ANCHORS)
    assert trust.certificates == {b"\xab" * 32}
    assert trust.networks == ()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "neither listen"),
        (['listen = "127.0.0.1"', 'unix_socket = "x"'], "exclude"),
        (['listen = "127.0.0.1"', 'addresses = ["0.0.0.0/0"]'], "everybody"),
        (['listen = "127.0.0.1"', 'addresses = ["localhost"]'], "addresses"),
        (['listen = "127.0.0.1"', 'addresses = ["10.0.0.1/8"]'], "addresses"),
        (['certificates = ["ab"]'], "no SHA-256"),
        (['listen = "127.0.0.1"', 'channel_binding_header = "a b"'], "header field"),
        (['listen = "127.0.0.1"', 'channel_binding_header = "Client-Cert"'], "header field"),
    ],
)
def test_mistakes(config: Path, lines: list[str], why: str) -> None:
    add(config, *lines)
    with pytest.raises(ConfigurationError, match=why) as failure:
        load_config(config)
    assert "[proxy]" in str(failure.value)


def test_certificates_need_a_port_to_connect_to(config: Path) -> None:
    leave_out(config, "[https]", "[coaps]")
    add(config, f'certificates = ["{"ab" * 32}"]')
    with pytest.raises(ConfigurationError, match=re.escape("[https]")):
        load_config(config)
