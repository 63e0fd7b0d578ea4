"""What one enrollment costs, by transport, by block size and by key."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.bench import MICRO, Bench, compared
from tests.benchmarks.figures import Figure, Found, Plot, Sizing
from tests.benchmarks.floor import measure_primitives
from tests.benchmarks.generators import Load

_KEY_KINDS = ("ec-p256", "ec-p384", "ed25519", "rsa-2048", "mldsa44")


def floors(bench: Bench) -> Iterator[Found]:
    """What our own (D)TLS engine and one certificate cost with no server around them: the server's
    side of a full mutual handshake over memory, and a request read, verified and answered. They are
    measured on the server's core while the other core is as busy as under a load."""
    measured, alone = bench.floors(), bench.floors(alone=True)
    primitives = measure_primitives(bench.size.floor_rounds)
    note = "{:,.0f} us while the other core is idle"
    for what, value, idle in (
        ("TLS 1.3 handshake", measured.tls, alone.tls),
        ("DTLS 1.2 handshake, CCM_8", measured.dtls, alone.dtls),
        ("request and certificate", measured.certificate, alone.certificate),
    ):
        yield Figure(f"floor: {what}", value * MICRO, "us CPU", note=note.format(idle * MICRO))
    yield Figure(
        "two cores against one, for the floors alone",
        2 * alone.https / measured.https,
        "x",
        note="what two workers could reach on this machine",
    )
    yield Figure(
        "bare primitives, for information",
        primitives * MICRO,
        "us CPU",
        note="the same signatures, verifications and key agreements; the other core idle",
    )


def enrollment(bench: Bench) -> Iterator[Found]:
    """First enrollment over a new channel each, with the device list and the ledger."""
    count = bench.size.enrollments + bench.size.generators
    loads = [Load("https"), Load("coaps", 5), Load("coaps", 2)]
    devices = [bench.devices(count) for _ in loads]
    deployment = bench.deploy([d for some in devices for d in some], bench.size.listed)
    https, floor = bench.measure(loads[0], deployment, devices[0])
    yield compared("HTTPS, new connection, TLS 1.3", https, floor.https, 1.9)
    wide, wide_floor = bench.measure(loads[1], deployment, devices[1])
    yield compared("CoAPS, new session, crts + sen, blocks of 512", wide, wide_floor.coaps, 2.5)
    yield Sizing(
        {
            "floor_https_ms": round(floor.https * 1e3, 2),
            "https_ms": round(https.cpu_each * 1e3, 2),
            "coaps_ms": round(wide.cpu_each * 1e3, 2),
        }
    )
    narrow, _ = bench.measure(loads[2], deployment, devices[2])
    more = (narrow.exchanges - wide.exchanges) / wide.enrollments
    yield Figure(
        "CoAPS, each further block of 64",
        (narrow.cpu_each - wide.cpu_each) / more * MICRO,
        "us CPU",
        target=60,
        note=f"{more:.0f} blocks more per enrollment",
    )


def block_sizes(bench: Bench) -> Iterator[Found]:
    """Enrollment over CoAPS, /crts and /sen in blocks of 32 to 1024 octets."""
    count = bench.size.enrollments // 4 + bench.size.generators
    points, floors = [], []
    for exponent in (1, 2, 3, 4, 5, 6):
        devices = bench.devices(count)
        deployment = bench.deploy(devices, len(devices))
        measured, floor = bench.measure(Load("coaps", exponent), deployment, devices)
        octets = 16 << exponent
        points.append((float(octets), measured.cpu_each * MICRO))
        floors.append((float(octets), floor.coaps * MICRO))
        yield compared(f"CoAPS, blocks of {octets}", measured, floor.coaps)
    yield Plot(
        "CPU time of an enrollment over CoAPS",
        "octets in a block",
        "us",
        {"server": points, "floor": floors},
        log_x=True,
    )


def key_kinds(bench: Bench) -> Iterator[Found]:
    """Enrollment over HTTPS by the kind of key that is certified; the device authenticates with a
    P-256 key, and the CA signs with one. The floor is measured with a request for such a key."""
    count = bench.size.enrollments // 8 + bench.size.generators
    points, floors = [], []
    for place, kind in enumerate(_KEY_KINDS):
        devices = bench.devices(count, kind)
        deployment = bench.deploy(devices, len(devices))
        deployment.allow_keys(kind)
        measured, floor = bench.measure(Load("https"), deployment, devices)
        points.append((float(place), measured.cpu_each * MICRO))
        floors.append((float(place), floor.https * MICRO))
        yield compared(f"HTTPS, certificate for a key {kind}", measured, floor.https)
    yield Plot(
        "CPU time of an enrollment over HTTPS",
        "key that is certified",
        "us",
        {"server": points, "floor": floors},
        bars=_KEY_KINDS,
    )
