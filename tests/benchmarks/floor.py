"""The engine floor: what one enrollment costs before there is a server around it.

Server-side CPU time of one full mutual handshake through our own TLS or DTLS engine over memory,
and of verifying one request, signing one certificate and encoding the answer. The client's side
of the handshake runs in the same process and is not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from est_protocol import base64_body, certs_only
from est_protocol.credentials import AnchorSet
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.secure_channel.context import TrustAnchors, dtls_context, tls_context
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_listener import DtlsListener
from est_protocol.secure_channel.policy import DtlsPolicy, TlsPolicy
from est_protocol.secure_channel.tls import TlsEngine
from est_server.authorities.building import authority_key_identifier, begin_certificate, key_usage
from tests.benchmarks.devices import Device, Manufacturer
from tests.pki import make_ca, make_server

_CCM_8 = "ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0"


@dataclass(frozen=True)
class Floors:
    """CPU seconds of the server per enrollment."""

    tls: float
    dtls: float
    certificate: float

    @property
    def https(self) -> float:
        """Handshake and certificate over TLS 1.3."""
        return self.tls + self.certificate

    @property
    def coaps(self) -> float:
        """Handshake and certificate over DTLS 1.2 with CCM_8."""
        return self.dtls + self.certificate

    def mean_with(self, other: Floors) -> Floors:
        """Halfway between two measurements."""
        return Floors(
            (self.tls + other.tls) / 2,
            (self.dtls + other.dtls) / 2,
            (self.certificate + other.certificate) / 2,
        )


class _Meter:
    """Adds up the CPU time between ``with meter:`` and its end."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self._current = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        began = time.process_time()
        yield
        self._current += time.process_time() - began

    def end_of_round(self) -> None:
        self.samples.append(self._current)
        self._current = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


def measure_floors(rounds: int = 400, csr: bytes | None = None) -> Floors:
    """The floors on this machine now; interleaved, so that all see the same noise.

    :param csr: the request that is answered with a certificate; one for a P-256 key if none.
    """
    manufacturer = Manufacturer.new()
    device = manufacturer.make_device(0)
    measures = (
        _tls(manufacturer, device),
        _dtls(manufacturer, device),
        _certificate(csr or device.csr),
    )
    meters = [_Meter() for _ in measures]
    for number in range(rounds + rounds // 10):
        for measure, meter in zip(measures, meters, strict=True):
            measure(meter)
            meter.end_of_round()
            if number < rounds // 10:
                meter.samples.clear()
    return Floors(*(meter.median for meter in meters))


def _anchors(manufacturer: Manufacturer) -> tuple[TrustAnchors, TrustAnchors]:
    server_ca = make_ca("bench issuing", make_ca("bench root"))
    return (
        TrustAnchors({AnchorSet.MANUFACTURER: (manufacturer.root,)}),
        TrustAnchors({AnchorSet.EXPLICIT: (server_ca.issuers[-1],)}),
    )


def _tls(manufacturer: Manufacturer, device: Device) -> Callable[[_Meter], None]:
    servers, clients = _anchors(manufacturer)
    policy = TlsPolicy()
    credentials = make_server(make_ca("bench issuing", make_ca("bench root")))
    server_context = tls_context(policy, server=True, credentials=credentials, anchors=servers)
    client_context = tls_context(
        policy, server=False, credentials=device.credentials, anchors=clients, require_trust=True
    )

    def handshake(meter: _Meter) -> None:
        client = TlsEngine(client_context, clients, server=False)
        client.start()
        with meter.running():
            server = TlsEngine(server_context, servers, server=True)
            server.start()
        while not (server.established and client.established):
            octets = client.octets_to_send()
            with meter.running():
                server.receive_octets(octets)
                answer = server.octets_to_send()
            client.receive_octets(answer)

    return handshake


def _dtls(manufacturer: Manufacturer, device: Device) -> Callable[[_Meter], None]:
    servers, clients = _anchors(manufacturer)
    policy = DtlsPolicy(ciphers=_CCM_8)
    credentials = make_server(make_ca("bench issuing", make_ca("bench root")))
    context = dtls_context(policy, server=True, credentials=credentials, anchors=servers)
    listener = DtlsListener(context, servers, policy)
    client_context = dtls_context(
        policy, server=False, credentials=device.credentials, anchors=clients, require_trust=True
    )

    def handshake(meter: _Meter) -> None:
        client = DtlsSession(client_context, clients, policy, server=False)
        client.start()
        session: DtlsSession | None = None
        while not (client.established and session is not None and session.established):
            for datagram in client.datagrams_to_send():
                with meter.running():
                    if session is None:
                        answers, session = listener.receive_datagram(datagram, "a", 0.0)
                    else:
                        session.receive_datagram(datagram)
                        answers = session.datagrams_to_send()
                for answer in answers:
                    client.receive_datagram(answer)

    return handshake


def _certificate(octets: bytes) -> Callable[[_Meter], None]:
    """Verify one request, sign one certificate with what a profile puts into it, encode it."""
    ca = make_ca("bench issuing", make_ca("bench root"))
    key_identifier = authority_key_identifier(ca.certificate)
    usage = key_usage({"digital_signature"})
    extended = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
    constraints = x509.BasicConstraints(ca=False, path_length=None)

    def enroll(meter: _Meter) -> None:
        now = datetime.now(UTC)
        with meter.running():
            csr = CertificationRequest.decode(octets)
            assert csr.proves_possession()
            builder = begin_certificate(
                csr.subject,
                csr.public_key,
                issuer=ca.certificate.subject,
                not_before=now,
                not_after=now + timedelta(days=90),
            )
            builder = builder.add_extension(key_identifier, critical=False)
            builder = builder.add_extension(constraints, critical=True)
            builder = builder.add_extension(usage, critical=True)
            builder = builder.add_extension(extended, critical=False)
            certificate = builder.sign(ca.key, hashes.SHA256())
            base64_body.encode(certs_only.encode([certificate]))

    return enroll


def measure_primitives(rounds: int = 400) -> float:
    """CPU seconds of the bare public-key operations of one enrollment over TLS 1.3.

    One signature and one key agreement for the handshake, three verifications (the client's
    signature, its certificate, its issuer's), one verification of the request, one signature.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    signature = key.sign(b"message", ec.ECDSA(hashes.SHA256()))
    public = key.public_key()
    meter = _Meter()
    for _ in range(rounds):
        with meter.running():
            for _ in range(2):
                key.sign(b"message", ec.ECDSA(hashes.SHA256()))
            for _ in range(4):
                public.verify(signature, b"message", ec.ECDSA(hashes.SHA256()))
            ec.generate_private_key(ec.SECP256R1()).exchange(ec.ECDH(), other)
        meter.end_of_round()
    return meter.median
