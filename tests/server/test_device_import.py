"""Import of device lists into a real registry."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from est_protocol.errors import ConfigurationError
from est_server.device_records import ListImport, ListRow
from est_server.devices.list_format import ListLimits
from est_server.devices.refusals import ListRefused, SignatureRejected
from est_server.interfaces import DeviceRegistry
from tests.pki import PRESENT
from tests.server.conftest import OpenStore, Store
from tests.server.ledger_values import FakeClock, digest
from tests.server.lists import SIGNED, UNSIGNED, csv_list, import_octets, sign

MIXED = "\n".join(
    [
        "udid,spki_sha256,model",
        f"d-1,{digest('1').hex()},x",
        f"d-2,{digest('2').hex()},x",
        "d-3,nonsense,x",
        f"d-4,{digest('1').hex()},x",
        f"d-5,{digest('5').hex()}",
    ]
).encode()

LENIENT = replace(UNSIGNED, leave_out_bad_rows=True)


async def udids(store: Store) -> list[str]:
    return [device.udid async for device in store.devices()]


async def test_a_list_with_bad_rows_is_refused_as_a_whole_and_names_them(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as store:
        with pytest.raises(ListRefused, match="2 of 5 rows are no good") as caught:
            await import_octets(store, MIXED)
        assert [row.line for row in caught.value.rejections] == [4, 6]
        assert await udids(store) == []
        assert await store.lists() == []


async def test_bad_rows_are_left_out_if_that_is_asked_for(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as store:
        report = await import_octets(store, MIXED, LENIENT)
        assert (report.added, report.unchanged, report.rejected) == (2, 0, 3)
        assert [row.line for row in report.rejections] == [4, 5, 6]
        assert "earlier row" in report.rejections[1].reason
        again = await import_octets(store, MIXED, LENIENT)
        assert (again.added, again.unchanged, again.rejected) == (0, 2, 3)
        found = await store.find_by_key(digest("2"))
        assert found is not None
        assert (found.udid, found.listed.attributes) == ("d-2", {"model": "x"})


async def test_a_device_that_is_listed_otherwise_is_left_out(
    open_store: OpenStore, clock: FakeClock
) -> None:
    other = f"udid,spki_sha256\nd-1,{digest('9').hex()}\nd-9,{digest('2').hex()}\n"
    async with open_store(clock) as store:
        await import_octets(store, csv_list(1, 2))
        report = await import_octets(store, other.encode())
        assert (report.added, report.rejected) == (0, 2)
        assert "another key" in report.rejections[0].reason
        assert "another UDID" in report.rejections[1].reason


async def test_rejected_rows_beyond_the_bound_are_counted(
    open_store: OpenStore, clock: FakeClock
) -> None:
    text = b"spki_sha256\n" + b"nonsense\n" * 20
    async with open_store(clock) as store:
        report = await import_octets(store, text, LENIENT, limits=ListLimits(reported=5))
    assert report.rejected == 20
    assert [row.line for row in report.rejections] == [2, 3, 4, 5, 6]


async def test_a_list_that_ends_in_an_error_adds_nothing(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as store:
        with pytest.raises(ConfigurationError, match="more than 3 rows"):
            await import_octets(store, csv_list(1, 2, 3, 4), limits=ListLimits(rows=3))
        assert await udids(store) == []


async def test_a_signed_list_is_recorded_with_signer_dates_and_digest(
    open_store: OpenStore, clock: FakeClock
) -> None:
    octets = csv_list(1, 2)
    async with open_store(clock) as store:
        await import_octets(store, octets, SIGNED, signature=sign(octets))
        [listed] = await store.lists()
        description = listed.description
        assert description.sha256 == digest(octets.decode())
        assert description.list_id == f"acme-{description.sha256.hex()[:16]}"
        assert (description.signer, description.signed_at) == ("acme", PRESENT)
        assert (listed.devices, listed.imported_at) == (2, PRESENT)
        device = await store.find_by_udid("d-1")
        assert device is not None
        assert device.list_number == listed.number


async def test_an_unsigned_list_is_recorded_as_such(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as store:
        await import_octets(store, csv_list(1))
        [listed] = await store.lists()
        assert (listed.description.signer, listed.description.signed_at) == (None, None)
        assert listed.description.list_id.startswith("unsigned-")


async def test_importing_a_list_again_changes_nothing(
    open_store: OpenStore, clock: FakeClock
) -> None:
    octets = csv_list(1, 2, 3)
    async with open_store(clock) as store:
        await import_octets(store, octets, SIGNED, signature=sign(octets))
        before = await store.lists(), await udids(store)
        report = await import_octets(store, octets, SIGNED, signature=sign(octets))
        assert (report.added, report.unchanged, report.rejected) == (0, 3, 0)
        assert (await store.lists(), await udids(store)) == before


async def test_a_longer_list_adds_what_is_new_under_its_own_record(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as store:
        await import_octets(store, csv_list(1, 2))
        report = await import_octets(store, csv_list(3, 2, 1))
        assert (report.added, report.unchanged) == (1, 2)
        first, second = await store.lists()
        assert (first.devices, second.devices) == (2, 1)
        numbers = {device.udid: device.list_number async for device in store.devices()}
        assert numbers == {"d-1": first.number, "d-2": first.number, "d-3": second.number}


async def test_an_id_belongs_to_one_list(open_store: OpenStore, clock: FakeClock) -> None:
    async with open_store(clock) as store:
        await import_octets(store, csv_list(1), list_id="batch 7")
        with pytest.raises(ConfigurationError, match="another list is called 'batch 7'"):
            await import_octets(store, csv_list(2), list_id="batch 7")
        with pytest.raises(ConfigurationError, match="imported as 'batch 7' already"):
            await import_octets(store, csv_list(1), list_id="batch 8")
        await import_octets(store, csv_list(1), list_id="batch 7")
        assert await udids(store) == ["d-1"]


async def test_a_list_that_changes_under_the_signature_is_refused(
    open_store: OpenStore, clock: FakeClock
) -> None:
    """What is verified is what is parsed, also if a file says something else the next time."""
    signature = sign(csv_list(1))
    async with open_store(clock) as store:
        with pytest.raises(SignatureRejected, match="other octets"):
            await import_octets(store, csv_list(2), SIGNED, signature=signature)
        assert await udids(store) == []
        assert await store.lists() == []


async def test_a_list_is_read_from_a_pipe(
    open_store: OpenStore, clock: FakeClock, tmp_path: Path
) -> None:
    octets = csv_list(*range(2000))
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(octets,))
    writer.start()
    async with open_store(clock) as store:
        with path.open("rb") as file:
            report = await import_octets(store, file, SIGNED, signature=sign(octets))
        writer.join()
        assert report.added == 2000


async def test_a_long_list_into_an_empty_registry_finds_twins_in_itself(
    open_store: OpenStore, clock: FakeClock
) -> None:
    rows = [f"e-{n:05},{digest(str(n)).hex()}" for n in range(21_000)]
    rows.append(f"e-99999,{digest('17').hex()}")
    async with open_store(clock) as store:
        text = "\n".join(["udid,spki_sha256", *rows]).encode()
        report = await import_octets(store, text)
        assert (report.added, report.rejected) == (21_000, 1)
        assert report.rejections[0].line == 21_002
        assert await store.find_by_udid("e-99999") is None
        device = await store.find_by_key(digest("17"))
        assert device is not None
        assert device.udid == "e-00017"
        twin = f"udid,spki_sha256\ne-99999,{digest('17').hex()}\n".encode()
        assert (await import_octets(store, twin)).rejected == 1


class Interrupted:
    """A registry whose import is cancelled while its thread still reads the list."""

    async def import_devices(
        self, rows: Iterator[ListRow], describe: object, *, now: datetime
    ) -> ListImport:
        self.rows = rows
        next(rows)
        raise asyncio.CancelledError


async def test_a_thread_that_still_reads_ends_with_the_import_that_it_is_for() -> None:
    interrupted = Interrupted()
    with pytest.raises(asyncio.CancelledError):
        await import_octets(cast(DeviceRegistry, interrupted), csv_list(*range(9000)))
    with pytest.raises(ListRefused, match="stopped"):
        list(interrupted.rows)


class Replaced(io.RawIOBase):
    """A file that holds another list once somebody goes back to its beginning."""

    def __init__(self, first: bytes, then: bytes) -> None:
        super().__init__()
        self._file, self._then = io.BytesIO(first), then

    def read(self, size: int = -1) -> bytes:
        """The octets of the list that is there now."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Back to the beginning of the next list."""
        self._file = io.BytesIO(self._then)
        return 0


async def test_a_list_that_is_replaced_between_check_and_use_changes_nothing(
    open_store: OpenStore, clock: FakeClock
) -> None:
    signed, forged = csv_list(1), csv_list(7)
    async with open_store(clock) as store:
        file = cast(BinaryIO, Replaced(forged, signed))
        with pytest.raises(SignatureRejected, match="other octets"):
            await import_octets(store, file, SIGNED, signature=sign(signed))
        assert await udids(store) == []
        file = cast(BinaryIO, Replaced(signed, forged))
        report = await import_octets(store, file, SIGNED, signature=sign(signed))
        assert report.added == 1
        assert await udids(store) == ["d-1"]


async def test_a_list_that_is_written_while_it_is_read_is_refused(
    open_store: OpenStore, clock: FakeClock, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    octets = csv_list(*range(5_000))
    path.write_bytes(octets)

    class Attacked(io.FileIO):
        """Once its beginning has been read there is a row more at its end."""

        def read(self, size: int | None = -1, /) -> bytes:
            at = self.tell()
            chunk = super().read(-1 if size is None else size) or b""
            if at == 0:
                with path.open("ab") as file:
                    file.write(csv_list(7_000).splitlines()[1] + b"\n")
            return chunk

    async with open_store(clock) as store:
        with Attacked(path) as file, pytest.raises(SignatureRejected, match="other octets"):
            await import_octets(store, cast(BinaryIO, file), SIGNED, signature=sign(octets))
        assert await udids(store) == []
