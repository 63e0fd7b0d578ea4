"""What clients cost that do nothing, and how long those wait that do."""

from __future__ import annotations

from collections.abc import Iterator

from est_protocol.secure_channel.policy import TlsPolicy
from tests.benchmarks.bench import Bench
from tests.benchmarks.deployment import running
from tests.benchmarks.figures import Figure, Found, Plot
from tests.benchmarks.generators import CCM_8, Load, Measured
from tests.benchmarks.load_coaps import CoapsSession
from tests.benchmarks.load_https import HttpsConnection

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


def idle_clients(bench: Bench) -> Iterator[Found]:
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


def latency(bench: Bench) -> Iterator[Found]:
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
    yield Plot(
        "latency of enrollments over HTTPS",
        "ms",
        "% that take no longer",
        {
            "at 70 % load": _distribution(paced),
            f"{bench.size.generators} clients that never pause": _distribution(full),
        },
    )


def _distribution(measured: Measured) -> list[tuple[float, float]]:
    shares = [number / 200 for number in range(1, 200)]
    return [(measured.quantile(share) * 1e3, share * 100) for share in shares]
