"""What device lists cost, by their length: import, lookup, enrollment."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks import lists
from tests.benchmarks.bench import MICRO, Bench, compared
from tests.benchmarks.figures import Figure, Found, Plot, Sizing
from tests.benchmarks.generators import Load

_SUFFICIENT_ROWS = 1_000_000


def list_import(bench: Bench) -> Iterator[Found]:
    """Import of a signed list of hashes, and of one of whole keys, from the command's start to its
    end; each key is checked, each row sealed."""
    rows = bench.size.imports
    for what, whole_keys in (("hashes", False), ("keys", True)):
        path = bench.scratch / "list.csv"
        lists.write_list(path, rows, whole_keys=whole_keys)
        deployment = bench.deploy([], 0)
        imported = lists.import_signed(deployment.config, path)
        plain = lists.plain_seconds(path, bench.scratch / "plain.sqlite")
        note = (
            f"{imported.cpu_seconds:.1f} s CPU; the csv module and sqlite3 with nothing checked "
            f"or signed: {rows / plain:,.0f} rows/s"
        )
        yield from _imported(what, rows, imported, note)
        for file in bench.scratch.glob("plain.sqlite*"):
            file.unlink()
        path.unlink()
        deployment.remove()


def list_sizes(bench: Bench) -> Iterator[Found]:
    """Enrollment over HTTPS, and the lookup of a device alone, by the length of the list. The
    lookup is the store's: keys in no order, each asked for once before it counts."""
    count = bench.size.enrollments // 4 + bench.size.generators
    enrolling: list[tuple[float, float]] = []
    floors: list[tuple[float, float]] = []
    looking: list[tuple[float, float]] = []
    for rows in bench.size.list_sizes:
        devices = bench.devices(count)
        # The devices that enroll are on a short list; the long one is imported as lists are.
        deployment = bench.deploy(devices, 0)
        path = bench.scratch / "list.csv"
        lists.write_list(path, rows, whole_keys=False)
        imported = lists.import_signed(deployment.config, path)
        path.unlink()
        if rows > _SUFFICIENT_ROWS:
            yield from _imported("hashes", rows, imported, f"{imported.cpu_seconds:.1f} s CPU")
        if rows == max(bench.size.list_sizes):
            yield Sizing({"octets_per_listed_device": round(deployment.store_octets / rows)})
        lookup = lists.lookup_seconds(deployment.config, rows) * MICRO
        looking.append((float(rows), lookup))
        yield Figure(
            f"lookup of one of {rows:,} devices",
            lookup,
            "us CPU",
            floor=looking[0][1],
            target=1.5,
            note=f"floor: one of {bench.size.list_sizes[0]:,}",
        )
        measured, floor = bench.measure(Load("https"), deployment, devices)
        enrolling.append((float(rows), measured.cpu_each * MICRO))
        floors.append((float(rows), floor.https * MICRO))
        yield compared(f"HTTPS enrollment with {rows:,} devices listed", measured, floor.https)
        deployment.remove()
    for title, lines in (
        ("an enrollment over HTTPS", {"server": enrolling, "floor": floors}),
        ("a lookup", {"lookup": looking}),
    ):
        yield Plot(f"CPU time of {title}", "devices listed", "us", lines, log_x=True)


def _imported(what: str, rows: int, imported: lists.Imported, note: str) -> Iterator[Figure]:
    yield Figure(
        f"signed import of {rows:,} {what}",
        rows / imported.seconds,
        "rows/s",
        # A short list says more of how long the command takes to start.
        target=100_000 if rows >= _SUFFICIENT_ROWS else None,
        at_least=True,
        note=note,
    )
    yield Figure(f"memory to import {rows:,} {what}", imported.peak_megabytes, "MB", target=200)
