"""Import of a device list into a real registry."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from est_protocol.errors import ConfigurationError
from est_server.devices.csv_list import CsvLimits, read_csv
from est_server.devices.importer import import_list
from tests.server.conftest import OpenStore
from tests.server.ledger_values import FakeClock, digest

LIST = "\n".join(
    [
        "udid,spki_sha256,model",
        f"d-1,{digest('1').hex()},x",
        f"d-2,{digest('2').hex()},x",
        "d-3,nonsense,x",
        f"d-4,{digest('1').hex()},x",
        f"d-5,{digest('5').hex()}",
    ]
)


async def test_a_report_names_every_row_that_was_rejected(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as store:
        report = await import_list(store, read_csv(io.BytesIO(LIST.encode())), clock.now())
        assert (report.added, report.unchanged, report.rejected) == (2, 0, 3)
        assert [row.line for row in report.rejections] == [4, 5, 6]
        assert "earlier row" in report.rejections[1].reason
        again = await import_list(store, read_csv(io.BytesIO(LIST.encode())), clock.now())
        assert (again.added, again.unchanged, again.rejected) == (0, 2, 3)
        found = await store.find_by_key(digest("2"))
        assert found is not None
        assert (found.udid, found.listed.attributes) == ("d-2", {"model": "x"})


async def test_a_device_that_is_listed_otherwise_is_rejected(
    open_store: OpenStore, clock: FakeClock
) -> None:
    other = f"udid,spki_sha256\nd-1,{digest('9').hex()}\nd-9,{digest('2').hex()}\n"
    async with open_store(clock) as store:
        await import_list(store, read_csv(io.BytesIO(LIST.encode())), clock.now())
        report = await import_list(store, read_csv(io.BytesIO(other.encode())), clock.now())
        assert (report.added, report.rejected) == (0, 2)
        assert "another key" in report.rejections[0].reason
        assert "another UDID" in report.rejections[1].reason


async def test_rejected_rows_beyond_the_bound_are_counted(
    open_store: OpenStore, clock: FakeClock
) -> None:
    text = "spki_sha256\n" + "nonsense\n" * 20
    async with open_store(clock) as store:
        report = await import_list(
            store, read_csv(io.BytesIO(text.encode())), clock.now(), reported=5
        )
    assert report.rejected == 20
    assert [row.line for row in report.rejections] == [2, 3, 4, 5, 6]


async def test_a_list_that_is_refused_on_the_way_adds_nothing(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as store:
        rows = read_csv(io.BytesIO(LIST.encode()), CsvLimits(rows=3))
        with pytest.raises(ConfigurationError):
            await import_list(store, rows, clock.now())
        assert [device async for device in store.devices()] == []


async def test_a_list_is_read_from_a_file(
    open_store: OpenStore, clock: FakeClock, tmp_path: Path
) -> None:
    path = tmp_path / "devices.csv"
    path.write_text(LIST)
    async with open_store(clock) as store:
        with path.open("rb") as file:
            report = await import_list(store, read_csv(file), clock.now())
    assert report.added == 2
