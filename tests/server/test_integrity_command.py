"""The integrity of a store, as an operator sees it on the command line."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from est_server.cli import main

Output = pytest.CaptureFixture[str]


def run(config: Path, *arguments: str) -> int:
    return main([*arguments, "--config", str(config)])


def execute(config: Path, sql: str) -> None:
    with closing(sqlite3.connect(config.parent / "est.sqlite")) as db, db:
        db.execute(sql)


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """A device list."""
    path = tmp_path / "list.csv"
    rows = [f"device-{number},{number:064x}" for number in (1, 2)]
    path.write_text("\n".join(["udid,spki_sha256", *rows]) + "\n")
    return path


@pytest.fixture
def config(tmp_path: Path, devices: Path, capsys: Output) -> Path:
    """A new server with two devices."""
    assert main(["init", str(tmp_path / "est")]) == 0
    file = tmp_path / "est" / "est-server.toml"
    assert run(file, "devices", "import", str(devices), "--allow-unsigned") == 0
    capsys.readouterr()
    return file


def test_a_new_server_has_a_key_and_uses_it(config: Path, capsys: Output) -> None:
    key = config.parent / "integrity.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert run(config, "devices", "show", "device-1") == 0
    execute(config, "UPDATE devices SET state = 'enrolled' WHERE udid = 'device-1'")
    capsys.readouterr()
    assert run(config, "devices", "show", "device-1") == 1
    assert "record-tampered" in capsys.readouterr().err


def test_a_store_is_sealed_and_its_key_exchanged(config: Path, capsys: Output) -> None:
    key = config.parent / "integrity.key"
    # As a version of this program left it that knew no seals.
    execute(config, "UPDATE devices SET mac = NULL")
    execute(config, "DELETE FROM sealing")
    execute(config, "DELETE FROM list_seals")
    assert run(config, "devices", "list") == 2
    assert "est-server devices seal" in capsys.readouterr().err
    assert run(config, "devices", "seal", "--new-key") == 2
    assert "is there already" in capsys.readouterr().err
    assert run(config, "devices", "seal") == 0
    assert capsys.readouterr().out == f"sealed 2 devices with {key}\n"
    assert run(config, "devices", "list") == 0

    old = key.rename(key.with_name("old.key"))
    assert run(config, "devices", "seal", "--new-key", "--previous-key", str(old)) == 0
    assert key.read_bytes() != old.read_bytes()
    assert run(config, "devices", "list") == 0
    old.replace(key)
    assert run(config, "devices", "list") == 2
    assert "another integrity key" in capsys.readouterr().err


def test_without_a_key_in_the_configuration(config: Path, capsys: Output) -> None:
    text = config.read_text()
    config.write_text(text.replace('integrity_key = "integrity.key"\n', ""))
    assert run(config, "devices", "list") == 2
    assert "no integrity key is configured" in capsys.readouterr().err
    assert run(config, "devices", "seal") == 2
    assert "add integrity_key" in capsys.readouterr().err
