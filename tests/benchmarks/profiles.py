"""Where the server's time goes, by the part of the code, as py-spy samples it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.bench import Bench
from tests.benchmarks.deployment import RunningServer, running
from tests.benchmarks.figures import Figure, Found, Plot, Remark
from tests.benchmarks.generators import Load

_LOADS = (("HTTPS", Load("https")), ("CoAPS", Load("coaps", 5)))
_SAMPLES_PER_SECOND = "250"

#: The innermost frame that is of one of these says whose time a sample is.
_PARTS = {
    "(D)TLS": r"est_protocol/secure_channel/|OpenSSL/",
    "stores": r"est_server/stores/",
    "CA": r"est_server/authorities/|est_server/signers/",
    "HTTP": r"aiohttp/|est_server/https/|multidict|yarl/",
    "CoAP": r"aiocoap/|est_protocol/coap/|est_server/coaps/",
    "decision": r"est_server/",
    "messages": r"est_protocol/",
    "event loop": r"asyncio/|selectors\.py",
}
_REST = "rest"

#: Frames in which threads wait. A waiting thread that could go on, were there a core for it, is
#: sampled as busy.
_WAITS = re.compile(r"^(EpollSelector\.select|Condition\.wait|_worker) ")
_FRAME = re.compile(r"\((?P<file>[^()]*):\d+\)$")


class CannotSample(Exception):
    """The system does not let py-spy look at the server, as it says."""


def profile(bench: Bench) -> Iterator[Found]:
    """Where the server's time goes, by sampling it under full load. What a library in C does is the
    time of whoever calls it; threads that wait for work do not count."""
    sampler = Path(sys.executable).with_name("py-spy")
    if not sampler.exists():
        yield Remark("Not measured: py-spy is not installed.")
        return
    try:
        shares = {name: _shares(bench, load, sampler) for name, load in _LOADS}
    except CannotSample as refused:
        yield Remark(f"Not measured: py-spy says {str(refused)!r}.")
        return
    parts = [part for part in (*_PARTS, _REST) if any(part in found for found in shares.values())]
    for name, found in shares.items():
        for part, share in sorted(found.items(), key=lambda item: -item[1]):
            yield Figure(f"{name}: {part}", share, "% of the time")
    lines = {
        name: [(float(place), found.get(part, 0.0)) for place, part in enumerate(parts)]
        for name, found in shares.items()
    }
    yield Plot("where the time goes", "part", "%", lines, bars=parts)


def _shares(bench: Bench, load: Load, sampler: Path) -> dict[str, float]:
    warming = bench.size.generators
    devices = bench.devices(bench.size.enrollments // 2 + warming)
    deployment = bench.deploy(devices, len(devices))
    stacks = deployment.directory / "stacks.txt"
    with running(deployment) as server:
        bench.run(load, server, devices[:warming], deployment.root)
        with _sampling(sampler, server, stacks):
            bench.run(load, server, devices[warming:], deployment.root)
    return shares_of(stacks.read_text().splitlines())


@contextmanager
def _sampling(sampler: Path, server: RunningServer, out: Path) -> Iterator[None]:
    what = ("--pid", str(server.pid), "--subprocesses", "--rate", _SAMPLES_PER_SECOND)
    process = subprocess.Popen(
        [str(sampler), "record", *what, "--format", "raw", "--output", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    if not out.exists():
        raise CannotSample(said.strip())


def shares_of(stacks: Iterable[str]) -> dict[str, float]:
    """The share of each part in per cent.

    :param stacks: lines of frames from the outermost inwards, with ``;`` between them, and a count.
    """
    counts: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not _WAITS.match(frames[-1]):
            counts[_part(frames)] += int(count)
    return {part: 100 * count / counts.total() for part, count in counts.items()}


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        found = _FRAME.search(frame)
        for part, pattern in _PARTS.items():
            if found and re.search(pattern, found["file"]):
                return part
    return _REST
