"""Servers that are compared get their load in turns: the speed of a machine changes with what runs
beside it, and from one minute to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509

from tests.benchmarks.deployment import RunningServer
from tests.benchmarks.devices import Device
from tests.benchmarks.generators import Generators, Load, Measured

#: Loads for each server.
_TURNS = 8


class Served(NamedTuple):
    """A server, the devices that enroll with it, the root of its certificates, and its load."""

    server: RunningServer
    devices: Sequence[Device]
    root: x509.Certificate
    generators: Generators


def in_turns(load: Load, served: Sequence[Served], *, warming: int) -> list[Measured]:
    """What ``load`` comes to at each server, all its turns together.

    :param warming: devices of each that are not counted: the first requests of a process pay for
        imports.
    """
    for server, devices, root, generators in served:
        generators.run(load, server, devices[:warming], root)
    found: list[list[Measured]] = [[] for _ in served]
    for turn in range(_TURNS):
        for (server, devices, root, generators), measured in zip(served, found, strict=True):
            part = devices[warming + turn :: _TURNS]
            measured.append(generators.run(load, server, part, root))
    return [_together(measured) for measured in found]


def _together(parts: Sequence[Measured]) -> Measured:
    return Measured(
        enrollments=sum(part.enrollments for part in parts),
        server_cpu=sum(part.server_cpu for part in parts),
        generator_cpu=sum(part.generator_cpu for part in parts),
        wall=sum(part.wall for part in parts),
        latencies=[latency for part in parts for latency in part.latencies],
        exchanges=sum(part.exchanges for part in parts),
        idle=sum(part.idle for part in parts),
    )
