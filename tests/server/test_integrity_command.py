"""The integrity of a store, as an operator sees it on the command line."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from est_server.cli import main
from est_server.pem_files import certificates_pem
from est_server.stores.integrity_key import IntegrityKey
from est_server.stores.sqlite.copying import SqliteCopy
from est_server.stores.sqlite.owner import stable_owner
from tests.pki import make_key
from tests.server.test_list_formats import CHIP_MAKER, element, entry, manifest

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
    said = capsys.readouterr().err
    assert "record-tampered" in said
    assert "device device-1: the row is not what a server wrote" in said


def test_a_store_is_sealed_and_its_key_exchanged(config: Path, capsys: Output) -> None:
    key = config.parent / "integrity.key"
    # As a version of this program left it that knew no seals.
    execute(config, "UPDATE devices SET mac = NULL")
    execute(config, "DELETE FROM sealing")
    execute(config, "DELETE FROM list_seals")
    execute(config, "DELETE FROM chained")
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


NAMED = 'integrity_key = "integrity.key"\n'


def test_a_sealed_store_without_its_key(config: Path, capsys: Output) -> None:
    text = config.read_text()
    config.write_text(text.replace(NAMED, "unsealed = true\n"))
    assert run(config, "devices", "list") == 2
    assert "no integrity key is configured" in capsys.readouterr().err
    assert run(config, "devices", "seal") == 2
    assert "take out unsealed" in capsys.readouterr().err
    config.write_text(text.replace(NAMED, NAMED + "unsealed = true\n"))
    assert run(config, "devices", "list") == 2
    assert "either has an integrity_key or is unsealed" in capsys.readouterr().err


@pytest.mark.parametrize("line", [NAMED, ""])
def test_nothing_runs_without_a_key_unless_it_is_to(
    config: Path, capsys: Output, line: str
) -> None:
    config.write_text(config.read_text().replace(NAMED, line))
    assert run(config, "devices", "list") == 0
    key = config.parent / "integrity.key"
    key.unlink()
    for command in (("devices", "list"), ("devices", "verify"), ("ledger", "export"), ("serve",)):
        assert run(config, *command) == 2
        assert f"the integrity key {key} is not there" in capsys.readouterr().err
    text = config.read_text().replace(NAMED, "")
    config.write_text(text.replace('path = "est.sqlite"', 'path = "est.sqlite"\nunsealed = true'))
    execute(config, "DELETE FROM sealing")
    assert run(config, "devices", "list") == 0


def test_a_store_is_verified(config: Path, devices: Path, capsys: Output) -> None:
    verify = ("devices", "verify", "--lists", str(devices))
    assert run(config, *verify) == 0
    assert capsys.readouterr().out == "nothing is wrong\n"
    execute(config, "UPDATE devices SET state = 'enrolled' WHERE udid = 'device-1'")
    assert run(config, *verify) == 1
    said = capsys.readouterr()
    assert said.out == "device device-1: the row is not what a server wrote\n"
    assert said.err == "1 finding\n"


def test_a_store_is_compared_with_a_list_row_by_row(
    config: Path, devices: Path, tmp_path: Path, capsys: Output
) -> None:
    # Without a key there is nothing but the list to go by.
    config.write_text(config.read_text().replace(NAMED, "unsealed = true\n"))
    execute(config, "DELETE FROM sealing")
    verify = ("devices", "verify", "--lists", str(devices))
    assert run(config, *verify) == 0
    assert "no integrity key" in capsys.readouterr().out
    execute(config, "UPDATE devices SET attributes = '{\"model\":\"y\"}' WHERE udid = 'device-1'")
    execute(config, "UPDATE devices SET udid = 'device-3' WHERE udid = 'device-2'")
    assert run(config, *verify) == 1
    assert capsys.readouterr().out.splitlines() == [
        "device device-1: list 1 says something else of it",
        "device device-3: is not on list 1",
        "device device-2: is on list 1, and is not there as such",
    ]
    other = tmp_path / "other.csv"
    other.write_text(f"udid,spki_sha256\ndevice-1,{1:064x}\n")
    assert run(config, "devices", "verify", "--lists", str(other)) == 1
    assert capsys.readouterr().out == f"{other}: this list was not imported\n"


def test_a_list_that_is_not_believed_is_named(
    config: Path, devices: Path, tmp_path: Path, capsys: Output
) -> None:
    config.write_text(config.read_text().replace("allow_unsigned = true", "allow_unsigned = false"))
    assert run(config, "devices", "verify", "--lists", str(devices)) == 2
    said = capsys.readouterr().err
    assert f"{devices}: the list is not signed, and there is no signature beside it" in said
    assert f"({devices}.p7s, {devices}.cms, {devices}.jws, {devices}.sig)" in said
    assert "--signature" not in said
    Path(f"{devices}.jws").write_text('{"protected": "eyJhbGciOiJFUzI1NiJ9", "signature": ""}')
    assert run(config, "devices", "verify", "--lists", str(devices)) == 2
    assert f"{devices}: no [[list_signers]] are configured" in capsys.readouterr().err


def test_a_store_is_compared_with_a_manifest_that_is_signed_entry_by_entry(
    tmp_path: Path, capsys: Output
) -> None:
    assert main(["init", str(tmp_path / "est")]) == 0
    config = tmp_path / "est" / "est-server.toml"
    (config.parent / "chips.pem").write_bytes(certificates_pem(*CHIP_MAKER.chain))
    signer = '[[list_signers]]\nname = "chips"\ncertificate = "chips.pem"\n'
    config.write_text(config.read_text() + signer)
    signed, unsigned = tmp_path / "signed.json", tmp_path / "unsigned.json"
    signed.write_bytes(manifest(entry(element(1)), entry(element(2))))
    unsigned.write_bytes(manifest(entry(element(3), key=make_key("stranger"))))
    assert run(config, "devices", "import", str(signed)) == 0
    assert run(config, "devices", "import", str(unsigned), "--allow-unsigned") == 0
    capsys.readouterr()
    verify = ("devices", "verify", "--lists", str(signed), str(unsigned))
    assert run(config, *verify) == 0
    assert capsys.readouterr().out == "nothing is wrong\n"
    execute(config, "UPDATE devices SET attributes = '{}' WHERE list = 1 AND udid LIKE '%01'")
    assert run(config, *verify) == 1
    assert "list 1 says something else of it" in capsys.readouterr().out
    config.write_text(config.read_text().replace(signer, ""))
    assert run(config, *verify) == 2
    assert "no [[list_signers]] are configured" in capsys.readouterr().err


def test_a_list_is_compared_with_that_comes_through_a_pipe(
    config: Path, devices: Path, capsys: Output
) -> None:
    command = [sys.executable, "-m", "est_server.cli", "devices", "verify", "--lists", "-"]
    verified = subprocess.run(
        [*command, "--config", str(config)],
        input=devices.read_bytes(),
        capture_output=True,
        check=False,
    )
    assert verified.stdout == b"nothing is wrong\n"


def test_the_journal_is_exported_and_verified(config: Path, tmp_path: Path, capsys: Output) -> None:
    assert run(config, "ledger", "export") == 0
    file = tmp_path / "journal.jsonl"
    file.write_text(capsys.readouterr().out)
    key = config.parent / "integrity.key"
    assert main(["ledger", "verify", str(file)]) == 0
    assert "2 entries, in order; the codes were not checked" in capsys.readouterr().out
    assert main(["ledger", "verify", str(file), "--key", str(key)]) == 0
    assert "sealed with the key" in capsys.readouterr().out
    verify = ("ledger", "verify", str(file))
    assert run(config, *verify) == 0
    assert "and in the store" in capsys.readouterr().out

    # Somebody puts back the store as it was before the import.
    execute(config, "DELETE FROM journal WHERE number = 2")
    assert run(config, *verify) == 1
    assert "entry 2 is not in the store any more" in capsys.readouterr().out

    other = tmp_path / "other.key"
    other.write_text("00" * 32)
    other.chmod(0o600)
    assert main(["ledger", "verify", str(file), "--key", str(other)]) == 1
    assert "entry 1 is not sealed with this key" in capsys.readouterr().out
    file.write_text(file.read_text().replace("list-imported", "list-made-up"))
    assert main(["ledger", "verify", str(file)]) == 1
    assert "entry 2 is not what was written" in capsys.readouterr().out


def test_the_journal_is_searched(config: Path, capsys: Output) -> None:
    order = ("devices", "suspend", "device-1", "--reason", "stolen", "--actor", "ann")
    assert run(config, *order) == 0
    capsys.readouterr()
    assert run(config, "ledger", "query", "--device", "device-1") == 0
    assert "actor='ann'" in capsys.readouterr().out
    assert run(config, "ledger", "query", "--since", "2020-01-01", "--json") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert run(config, "ledger", "query", "--until", "2020-01-01T00:00:00Z") == 0
    assert run(config, "ledger", "query", "--serial", "0A:0b") == 0
    assert capsys.readouterr().out == ""
    assert run(config, "ledger", "query", "--since", "yesterday") == 2
    assert run(config, "ledger", "query", "--serial", "xyz") == 2


@pytest.fixture
def old_key(config: Path) -> Path:
    """The key, put aside to be exchanged."""
    key = config.parent / "integrity.key"
    return key.rename(key.with_name("integrity.old"))


def exchange(config: Path, old_key: Path, *options: str) -> int:
    return run(config, "devices", "seal", *options, "--previous-key", str(old_key))


def test_a_key_that_cannot_be_exchanged_leaves_no_other(
    config: Path, old_key: Path, capsys: Output
) -> None:
    key = config.parent / "integrity.key"
    with stable_owner(config.parent / "est.sqlite"):
        assert exchange(config, old_key, "--new-key") == 2
    assert "a server has" in capsys.readouterr().err
    wrong = config.parent / "wrong.key"
    IntegrityKey.generate().write(wrong)
    assert exchange(config, wrong, "--new-key") == 2
    assert "sealed with another key" in capsys.readouterr().err
    assert not key.exists()
    old_key.rename(key)
    assert run(config, "devices", "list") == 0


@pytest.mark.parametrize("committed", [False, True])
def test_an_exchange_that_was_killed_can_be_gone_on_with(
    config: Path,
    old_key: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
    committed: bool,
) -> None:
    key = config.parent / "integrity.key"
    commit = SqliteCopy.commit

    def die(store: SqliteCopy) -> None:
        if committed:
            commit(store)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SqliteCopy, "commit", die)
        assert exchange(config, old_key, "--new-key") == 1
    made = key.read_bytes()
    assert exchange(config, old_key, "--new-key") == 2
    assert "leave out --new-key" in capsys.readouterr().err
    assert exchange(config, old_key) == (2 if committed else 0)
    assert ("sealed with another key" in capsys.readouterr().err) is committed
    assert run(config, "devices", "list") == 0
    assert key.read_bytes() == made != old_key.read_bytes()


def test_a_key_that_cannot_be_written_changes_nothing(
    config: Path, old_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = config.parent / "integrity.key"

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        assert exchange(config, old_key, "--new-key") == 1
    assert not key.exists()
    old_key.rename(key)
    assert run(config, "devices", "list") == 0
