"""What a server costs that has many clients for a long time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from est_protocol.keys import spki_sha256
from est_protocol.secure_channel.policy import TlsPolicy
from tests.benchmarks.deployment import Deployment, running
from tests.benchmarks.devices import Device, make_csr
from tests.benchmarks.figures import Figure, Series
from tests.benchmarks.generators import CCM_8, Load
from tests.benchmarks.load_coaps import CoapsSession
from tests.benchmarks.load_https import HttpsConnection
from tests.benchmarks.scenarios import MICRO, Bench

_ROOMY = """
[https.limits]
max_connections = 20000
header_timeout = 3600
idle_timeout = 3600

[coaps.limits.datagram]
maximum_sessions = 20000
maximum_handshakes = 5000
idle_timeout = 3600
"""


def registration_authority(bench: Bench) -> Iterator[Figure]:
    """Many enrollments over one connection."""
    devices = bench.devices(bench.size.enrollments)
    deployment = bench.deploy(devices, bench.size.listed)
    authorities = [
        _registration_authority(deployment, f"ra-{number}")
        for number in range(bench.size.generators)
    ]
    shares = [devices[start :: len(authorities)] for start in range(len(authorities))]
    # Each generator's share begins with the one whose connection it is.
    spoken_for = [
        replace(device, key=authority.key, chain=authority.chain)
        for place in zip(*shares, strict=False)
        for authority, device in zip(authorities, place, strict=True)
    ]
    measured, floor = bench.measure(Load("https-one-connection"), deployment, spoken_for)
    yield Figure(
        "HTTPS, keep-alive, registration authority",
        measured.cpu_each * MICRO,
        "us CPU",
        floor=floor.certificate * MICRO,
        target=2.0,
        note=f"{measured.rate:,.0f}/s over {len(authorities)} connections",
    )


def _registration_authority(deployment: Deployment, name: str) -> Device:
    key = ec.generate_private_key(ec.SECP256R1())
    csr, out = deployment.directory / f"{name}.csr", deployment.directory / f"{name}.pem"
    csr.write_bytes(make_csr(name, key))
    config = str(deployment.config)
    arguments = ("ra", "issue", name, "--csr", str(csr), "--out", str(out), "--config", config)
    subprocess.run(
        [sys.executable, "-m", "est_server.cli", *arguments], check=True, capture_output=True
    )
    chain = x509.load_pem_x509_certificates(out.read_bytes())
    text = deployment.config.read_text()
    subject = chain[0].subject.rfc4514_string()
    if "registration_authorities" not in text:
        deployment.append_config("\n[default.registration_authorities]\nsubjects = [\n]\n")
        text = deployment.config.read_text()
    deployment.config.write_text(text.replace("subjects = [\n", f'subjects = [\n"{subject}",\n'))
    return Device(
        key=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        chain=tuple(certificate.public_bytes(Encoding.DER) for certificate in chain),
        csr=b"",
        spki_sha256=spki_sha256(key.public_key()),
    )


def idle_clients(bench: Bench) -> Iterator[Figure]:
    """Memory of connections and sessions that do nothing, while others enroll."""
    count = bench.size.idle
    enrolling = bench.devices(8 * bench.size.generators)
    idle = bench.devices(1)[0]
    deployment = bench.deploy([idle, *enrolling], 0)
    deployment.append_config(_ROOMY)
    root = deployment.root
    half = len(enrolling) // 2
    with running(deployment) as server:
        bench.run(Load("https"), server, enrolling[:half], root)
        before = server.cost().resident
        connections = [
            HttpsConnection(server.https_port, idle, root, TlsPolicy()) for _ in range(count)
        ]
        between = server.cost().resident
        sessions = [CoapsSession(server.coaps_port, idle, root, CCM_8, 5) for _ in range(count)]
        after = server.cost().resident
        # The server still enrolls, and everybody is still there.
        bench.run(Load("coaps"), server, enrolling[half:], root)
        status, _ = connections[0].get("/.well-known/est/cacerts")
        assert status == 200
        assert sessions[0].get(".well-known", "est", "crts")
        for connection in connections:
            connection.close()
        for session in sessions:
            session.close()
    note = f"{count:,} held while others enroll"
    yield Figure(
        "idle TLS connection", (between - before) / count / 1024, "KiB", target=64, note=note
    )
    yield Figure(
        "established DTLS session", (after - between) / count / 1024, "KiB", target=96, note=note
    )


def latency(bench: Bench) -> Iterator[Figure]:
    """How long enrollments take at 70 % of what the server can do."""
    count = bench.size.enrollments // 2
    devices = bench.devices(2 * count)
    deployment = bench.deploy(devices, len(devices))
    full, _ = bench.measure(Load("https"), deployment, devices[:count])
    rate = 0.7 * full.rate / bench.size.generators
    paced, _ = bench.measure(Load("https", rate=rate), deployment, devices[count:])
    half, most = paced.quantile(0.5) * 1e3, paced.quantile(0.99) * 1e3
    yield Figure(
        "p99 of the latency at 70 % load",
        most,
        "ms",
        floor=half,
        target=5.0,
        note=f"floor: p50; {0.7 * full.rate:,.0f}/s of {full.rate:,.0f}/s",
    )


def ledger(bench: Bench) -> Iterator[Figure]:
    """Throughput with the ledger against that of a server whose ledger writes nothing."""
    rates = []
    for module in ("tests.benchmarks.without_ledger", "est_server.cli"):
        devices = bench.devices(bench.size.enrollments)
        deployment = bench.deploy(devices, len(devices))
        few, most = devices[: bench.size.generators], devices[bench.size.generators :]
        with running(deployment, module=module) as server:
            bench.run(Load("https"), server, few, deployment.root)
            rates.append(bench.run(Load("https"), server, most, deployment.root).rate)
    without, with_ledger = rates
    yield Figure(
        "HTTPS enrollments with the ledger",
        with_ledger,
        "enrollments/s",
        floor=without,
        target=0.8,
        at_least=True,
        note="floor: with a ledger that writes nothing",
    )


def memory(bench: Bench) -> Iterator[Figure | Series]:
    """Memory over many enrollments."""
    rounds = 8
    devices = bench.devices(bench.size.enrollments * 2)
    deployment = bench.deploy(devices, len(devices))
    size = len(devices) // rounds
    points = []
    with running(deployment) as server:
        for number in range(rounds):
            share = devices[number * size : (number + 1) * size]
            bench.run(Load("https"), server, share, deployment.root)
            points.append(((number + 1) * size / 1.0, server.cost().resident / 2**20))
    (early, first), (late, last) = points[1], points[-1]
    grown = (last - first) * 2**20 / (late - early)
    yield Figure(
        "memory that an enrollment leaves behind",
        grown,
        "octets",
        note=f"{first:.1f} MiB after {early:,.0f}, {last:.1f} MiB after {late:,.0f}",
    )
    yield Series("resident memory of the server", "enrollments", "MiB", points)
