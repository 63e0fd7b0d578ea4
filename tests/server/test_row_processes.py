"""The rows of a long list, read by several processes."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from est_protocol.errors import ConfigurationError
from est_protocol.keys import spki_der, spki_sha256
from est_server.device_records import ListRow
from est_server.devices import row_processes
from est_server.devices.csv_list import CsvList
from est_server.devices.list_format import ListLimits, RejectedRow
from est_server.devices.plain_rows import PlainRow
from tests.pki import make_key

KEY = make_key("listed").public_key()
BASE64 = base64.b64encode(spki_der(KEY)).decode()
OFF_THE_CURVE = base64.b64encode(spki_der(KEY)[:-1] + bytes([spki_der(KEY)[-1] ^ 1])).decode()
ROWS = 300


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started; every list is a long one, in small blocks."""
    processes: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            processes.append(self)

    monkeypatch.setattr("est_server.devices.row_processes._SHORT", 0)
    monkeypatch.setattr("est_server.devices.row_processes._SMALL", 1000)
    monkeypatch.setattr("est_server.devices.list_lines._CHUNK", 4096)
    monkeypatch.setattr("est_server.devices.row_processes.os.cpu_count", lambda: 2)
    monkeypatch.setattr("est_server.devices.row_processes.subprocess.Popen", Noted)
    return processes


def table(changed: dict[int, str] | None = None) -> bytes:
    rows = [f"d-{n},{BASE64},pump-{n}" for n in range(ROWS)]
    for at, row in (changed or {}).items():
        rows[at] = row
    return "\n".join(["udid,public_key,model", *rows, ""]).encode("utf-8", "surrogateescape")


def reading(octets: bytes, processes: int = 2) -> Iterator[ListRow | RejectedRow]:
    return CsvList().read(io.BytesIO(octets), ListLimits(processes=processes))


def test_one_process_reads_while_the_other_is_waited_for(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work: list[row_processes._Process] = []
    seen = []

    class Watched(row_processes._Process):
        def read(self, first: int, block: bytes) -> None:
            super().read(first, block)
            at_work.append(self)

        def rows(self) -> list[PlainRow]:
            seen.append(len(at_work))
            at_work.remove(self)
            return super().rows()

    monkeypatch.setattr(row_processes, "_Process", Watched)
    assert len(list(reading(table()))) == ROWS
    assert len(seen) > 5
    assert seen == [2] * (len(seen) - 1) + [1]


def test_processes_read_what_one_process_reads(started: list[subprocess.Popen[bytes]]) -> None:
    octets = table(
        {
            3: f'"d-3",{BASE64},"a, and b"',
            40: "",
            41: f"d-41,{OFF_THE_CURVE},pump-41",
            100: f"d-100,{BASE64[:-4]},pump-100",
            101: "d-101,,pump",
            150: "only one cell",
            200: f"d-200,{BASE64},\udcff",
            201: f"dév-201,{BASE64},\r",
            299: f'd-299,{BASE64},"x"',
        }
    )
    alone = list(reading(octets, processes=1))
    assert not started
    assert list(reading(octets)) == alone
    assert len(started) == 2
    refused = [row for row in alone if isinstance(row, RejectedRow)]
    assert [row.line for row in refused] == [43, 102, 103, 152, 202]
    assert all(row.spki_sha256 == spki_sha256(KEY) for row in alone if isinstance(row, ListRow))


def test_processes_end_with_the_list(started: list[subprocess.Popen[bytes]]) -> None:
    list(reading(table()))
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


def test_processes_end_with_a_list_that_is_given_up(
    started: list[subprocess.Popen[bytes]],
) -> None:
    rows = reading(table())
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


def test_no_row_is_left_out_if_a_process_ends(started: list[subprocess.Popen[bytes]]) -> None:
    rows = reading(table())
    next(rows)
    os.kill(started[1].pid, signal.SIGKILL)
    with pytest.raises(ConfigurationError, match="a process that reads its rows ended"):
        list(rows)


def test_an_interpreter_that_is_not_there(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("est_server.devices.row_processes.sys.executable", "/nowhere/python")
    with pytest.raises(ConfigurationError, match="with processes = 1"):
        list(reading(table()))


def test_processes_do_not_import_what_lies_about(
    started: list[subprocess.Popen[bytes]], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert len(list(reading(table()))) == ROWS
    assert len(started) == 2
