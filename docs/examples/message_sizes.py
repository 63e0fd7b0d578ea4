"""How large the messages of an EST-coaps enrollment are, octet by octet.

    python docs/examples/message_sizes.py [CERTS_ONLY_DER]

One device gets /crts in blocks of 64 octets from the real server over the real DTLS, and every
datagram is looked at. With a file, the server answers with the certificates in it; RFC 9148's
appendix A.1 for instance, converted from hexadecimal. Then the same handshake with smaller
certificates. docs/explanation/constrained-enrollment.md says what the figures mean.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from est_client.coaps import CoapsConnector
from est_client.self_signed import self_signed
from est_client.simulation.link import Direction, Link
from est_client.simulation.microcontroller import Processor
from est_client.simulation.network import DevicePath, Internet
from est_client.simulation.profiles import PROFILES
from est_client.simulation.scenario import CCM_8
from est_client.simulation.traffic import Meter
from est_protocol import certs_only
from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import RequestRefused
from est_protocol.messages import CertificatesResponse, EstRequest, EstResponse, Transport
from est_protocol.operations import Operation
from est_protocol.secure_channel import records
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors
from est_protocol.secure_channel.policy import DtlsPolicy
from est_protocol.secure_channel.udp import SocketAddress
from est_server.authorities.creation import create_ca, issue_server_certificate
from est_server.authorities.signers.key import KeySigner
from est_server.coaps.server import CoapsEndpoint, serve

BLOCK = 64
#: Header, explicit nonce and tag of a record under CCM_8 (RFC 6347 section 4.1, RFC 6655).
DTLS_OVERHEAD = 13 + 8 + 8
HANDSHAKE_TYPES = {
    1: "ClientHello", 2: "ServerHello", 3: "HelloVerifyRequest", 11: "Certificate",
    12: "ServerKeyExchange", 13: "CertificateRequest", 14: "ServerHelloDone",
    15: "CertificateVerify", 16: "ClientKeyExchange",
}  # fmt: skip


class Tapped(DevicePath):
    """A device's path that keeps every datagram."""

    datagrams: list[tuple[Direction, bytes]]

    def send_datagram(self, data: bytes, port: int, remote: SocketAddress) -> None:
        """Keep what the device sends."""
        self.datagrams.append((Direction.UP, data))
        super().send_datagram(data, port, remote)

    def return_datagram(self, source: SocketAddress, data: bytes) -> None:
        """Keep what the server sends."""
        self.datagrams.append((Direction.DOWN, data))
        super().return_datagram(source, data)


@dataclass(frozen=True)
class Answering:
    """Stands where the enrollment service does, and knows one answer."""

    certificates: tuple[x509.Certificate, ...]
    labels: tuple[str | None, ...] = (None,)

    def operations(self, label: str | None) -> tuple[Operation, ...]:
        """What is served."""
        return (Operation.CACERTS,)

    async def respond(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        """Answer."""
        return CertificatesResponse(self.certificates)

    async def record_refusal(
        self,
        refused: RequestRefused,
        *,
        operation: Operation | None,
        label: str | None,
        transport: Transport,
        peer: PeerCredentials,
    ) -> None:
        """Nothing is refused here."""
        raise refused


@dataclass
class Sizes:
    """What was seen of one handshake and one /crts.

    :param messages: octets of each handshake message, record and handshake headers included.
    :param handshake: octets of all datagrams of the handshake, each way.
    :param blocks: octets of request and answer for each block.
    :param answer: octets of the whole answer.
    """

    messages: Counter[tuple[Direction, str]] = field(default_factory=Counter)
    handshake: Counter[Direction] = field(default_factory=Counter)
    blocks: list[tuple[int, int]] = field(default_factory=list)
    answer: int = 0


async def measure(
    server: LocalCredentials,
    device: LocalCredentials,
    root: x509.Certificate,
    answer: tuple[x509.Certificate, ...],
) -> Sizes:
    """Shake hands and get /crts in blocks of 64 octets."""
    loop, internet = asyncio.get_running_loop(), Internet()
    endpoint = CoapsEndpoint(server, transport_factory=internet.open_datagrams)
    async with await serve(Answering(answer), endpoint):
        link = Link(PROFILES["ethernet"].link, Random(1))
        path = Tapped("10.0.0.1", link, internet, Meter(), Processor(None, loop.time))
        path.datagrams = []
        connector = CoapsConnector(
            "127.0.0.1", policy=DtlsPolicy(CCM_8), block_size=BLOCK, transport_factory=path
        )
        anchors = TrustAnchors({AnchorSet.EXPLICIT: (root,)})
        connection = await connector.connect(credentials=device, anchors=anchors)
        shaken = len(path.datagrams)
        await connection.request(EstRequest(Operation.CACERTS, Transport.COAPS, None))
        fetched = len(path.datagrams)
        await connection.close()
    sizes = Sizes(answer=len(certs_only.encode(answer)))
    for direction, datagram in path.datagrams[:shaken]:
        sizes.handshake[direction] += len(datagram)
        for record in records.split(datagram):
            sizes.messages[direction, message_name(record)] += len(record.octets)
    exchanges = path.datagrams[shaken:fetched]
    sizes.blocks = [
        (len(request), len(reply))
        for (_, request), (_, reply) in zip(exchanges[::2], exchanges[1::2], strict=True)
    ]
    return sizes


def message_name(record: records.Record) -> str:
    """What a record of a handshake carries."""
    if record.epoch:
        return "Finished"
    if record.octets[0] == 20:
        return "ChangeCipherSpec"
    return HANDSHAKE_TYPES[record.octets[records.HEADER_SIZE]]


def our_server(now: datetime, *, send_root: bool) -> tuple[LocalCredentials, x509.Certificate]:
    """A server as ``est-server init`` makes it, and its root."""
    ca = create_ca("EST", now=now)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = issue_server_certificate(
        KeySigner(ca.issuing_key),
        ca.issuing,
        key.public_key(),
        ["localhost", "127.0.0.1", "::1"],
        now=now,
    )
    chain = (certificate, ca.issuing, *((ca.root,) if send_root else ()))
    return LocalCredentials(key, chain), ca.root


def small_certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    now: datetime,
    usage: x509.ObjectIdentifier | None,
) -> x509.Certificate:
    """A certificate with nothing in it but what has to be: short names, a serial of one octet."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=90))
    )
    if usage is None:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    else:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
    if usage == ExtendedKeyUsageOID.SERVER_AUTH:
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = builder.add_extension(names, False)
    return builder.sign(key if issuer is None else issuer[1], hashes.SHA256())


def small_ends(now: datetime) -> tuple[LocalCredentials, LocalCredentials, x509.Certificate]:
    """A server directly below its root and a device, with small certificates."""
    root_key, server_key, device_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = small_certificate("R", root_key, None, now, None)
    server = small_certificate(
        "S", server_key, (root, root_key), now, ExtendedKeyUsageOID.SERVER_AUTH
    )
    device = small_certificate("D", device_key, None, now, ExtendedKeyUsageOID.CLIENT_AUTH)
    return LocalCredentials(server_key, (server,)), LocalCredentials(device_key, (device,)), root


def der_size(certificates: tuple[x509.Certificate, ...]) -> str:
    """The sizes of certificates."""
    return " + ".join(str(len(c.public_bytes(Encoding.DER))) for c in certificates)


def all_sizes(answer: tuple[x509.Certificate, ...] | None) -> Mapping[str, tuple[str, Sizes]]:
    """The measurements, each with the certificates that it was made with."""
    now = datetime.now(UTC)
    device_key = ec.generate_private_key(ec.SECP256R1())
    certificate = self_signed(
        device_key, not_before=now - timedelta(days=1), validity=timedelta(days=365)
    )
    device = LocalCredentials(device_key, (certificate,))
    found = {}
    for name, send_root in (("with the root", True), ("without the root", False)):
        server, root = our_server(now, send_root=send_root)
        text = f"server {der_size(server.chain)}, device {der_size(device.chain)}"
        found[name] = (
            text,
            asyncio.run(measure(server, device, root, answer or (root, server.chain[1]))),
        )
    server, small_device, root = small_ends(now)
    text = f"server {der_size(server.chain)}, device {der_size(small_device.chain)}"
    found["small certificates"] = (
        text, asyncio.run(measure(server, small_device, root, answer or (root,))),
    )  # fmt: skip
    return found


def report(sizes: Mapping[str, tuple[str, Sizes]]) -> None:
    """Print everything."""
    _, usual = sizes["without the root"]
    print(f"/crts: {usual.answer} octets in {len(usual.blocks)} blocks of {BLOCK}")
    for number, (request, reply) in enumerate(usual.blocks):
        block = min(BLOCK, usual.answer - number * BLOCK)
        coap = reply - DTLS_OVERHEAD - block
        print(
            f"  block {number:2}  request {request:3} = {DTLS_OVERHEAD} DTLS + "
            f"{request - DTLS_OVERHEAD} CoAP   answer {reply:3} = {DTLS_OVERHEAD} DTLS + "
            f"{coap} CoAP + {block}"
        )
    print("\nhandshake, DTLS 1.2, ECDHE-ECDSA with AES-128-CCM-8, octets of DTLS")
    for (direction, message), octets in usual.messages.items():
        print(f"  {direction.value:5} {message:20} {octets:5}")
    print()
    for name, (certificates, seen) in sizes.items():
        up, down = seen.handshake[Direction.UP], seen.handshake[Direction.DOWN]
        print(f"  {name:20} up {up:5}  down {down:5}  together {up + down:5}   ({certificates})")


def main() -> None:
    """Measure and print."""
    answer = None
    if len(sys.argv) > 1:
        answer = certs_only.decode(Path(sys.argv[1]).read_bytes())
    report(all_sizes(answer))


if __name__ == "__main__":
    main()
