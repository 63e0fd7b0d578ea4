"""An import that is killed leaves all of a list, or nothing of it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from est_server.cli import main
from tests.server.lists import csv_list

_ROWS = 30_000


@pytest.fixture(scope="module")
def octets() -> bytes:
    return csv_list(*range(_ROWS))


def killed(pipe: Path, config: Path, octets: bytes, seconds: float | None) -> None:
    """Import ``octets`` through a pipe, and kill the process.

    :param seconds: after it has read the last octet; ``None``: while it waits for more.
    """
    command = [sys.executable, "-m", "est_server.cli", "devices", "import", str(pipe)]
    with subprocess.Popen(
        [*command, "--allow-unsigned", "--config", str(config)],
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    ) as process:
        with pipe.open("wb") as writer:
            writer.write(octets)
            writer.flush()
            if seconds is None:
                process.kill()
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()


def counts(config: Path) -> tuple[int, list[tuple[int]]]:
    with closing(sqlite3.connect(config.parent / "est.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        [index] = db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'device_keys'")
        assert index == (1,)
        [devices] = db.execute("SELECT count(*) FROM devices").fetchone()
        return devices, db.execute("SELECT devices FROM lists").fetchall()


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.25])
def test_a_killed_import_is_whole_or_not_at_all(
    tmp_path: Path, octets: bytes, seconds: float
) -> None:
    config = tmp_path / "est" / "est-server.toml"
    assert main(["init", str(config.parent)]) == 0
    pipe = tmp_path / "list.csv"
    os.mkfifo(pipe)
    killed(pipe, config, octets[: len(octets) // 2 - 7], None)
    assert counts(config) == (0, [])
    killed(pipe, config, octets, seconds)
    assert counts(config) in ((0, []), (_ROWS, [(_ROWS,)]))
    pipe.unlink()
    pipe.write_bytes(octets)
    assert main(["devices", "import", str(pipe), "--allow-unsigned", "--config", str(config)]) == 0
    assert counts(config) == (_ROWS, [(_ROWS,)])
