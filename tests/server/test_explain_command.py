"""The command ``est-server explain``."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol import pkcs10
from est_protocol.keys import spki_sha256
from est_server.cli import main
from est_server.new_server import STORE_NAME
from tests.pki import make_ca, make_key, make_leaf

Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, capsys: Output) -> Path:
    """A new server with one listed device, and what that device has."""
    ports = ["--https-port", "0", "--coaps-port", "0"]
    assert main(["init", str(tmp_path / "est"), *ports]) == 0
    key = make_key("device")
    listed = spki_sha256(key.public_key()).hex()
    (tmp_path / "list.csv").write_text(f"udid,spki_sha256\nsensor-0001,{listed}\n")
    config = str(tmp_path / "est" / "est-server.toml")
    assert (
        main(
            [
                "devices",
                "import",
                str(tmp_path / "list.csv"),
                "--allow-unsigned",
                "--config",
                config,
            ]
        )
        == 0
    )
    csr = x509.load_der_x509_csr(pkcs10.build(key, x509.Name([])).der)
    (tmp_path / "device.csr").write_bytes(csr.public_bytes(Encoding.PEM))
    (tmp_path / "device.p10").write_bytes(csr.public_bytes(Encoding.DER))
    (tmp_path / "garbage.p10").write_bytes(b"\x30\x03\x02\x01\x00")
    birth = make_leaf(make_ca("impostor"), "birth", key=make_key("stranger")).chain[0]
    (tmp_path / "birth.pem").write_bytes(birth.public_bytes(Encoding.PEM))
    capsys.readouterr()
    return tmp_path


def explain(folder: Path, *arguments: str) -> int:
    files = [str(folder / a) if (folder / a).exists() and "." in a else a for a in arguments]
    return main(["explain", *files, "--config", str(folder / "est" / "est-server.toml")])


@pytest.mark.parametrize("transport", ["https", "coaps"])
@pytest.mark.parametrize(
    "arguments", [("--udid", "sensor-0001"), ("--csr", "device.csr"), ("--csr", "device.p10")]
)
def test_a_request_that_would_be_granted(
    folder: Path, capsys: Output, arguments: tuple[str, ...], transport: str
) -> None:
    assert explain(folder, *arguments, "--transport", transport) == 0
    said = capsys.readouterr().out
    assert said.startswith("issue\n")
    assert "sensor-0001: listed since" in said
    assert "subject      CN=sensor-0001" in said
    assert "the listed key" in said
    assert "claim        free" in said


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--udid", "sensor-0002"), "unknown-device"),
        (("--cert", "birth.pem"), "certificate-not-trusted"),
        (("--cert", "birth.pem", "--csr", "device.csr"), "certificate-not-trusted"),
        (("--csr", "garbage.p10"), "malformed-csr"),
        (("--udid", "sensor-0001", "--label", "mqtt"), "unknown-label"),
        (("--cert", "birth.pem", "--operation", "simplereenroll"), "certificate-unknown"),
        (("--udid", "sensor-0001", "--operation", "serverkeygen"), "unknown-operation"),
    ],
)
def test_a_request_that_would_be_refused(
    folder: Path, capsys: Output, arguments: tuple[str, ...], reason: str
) -> None:
    assert explain(folder, *arguments, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["outcome"], said["reason"]) == ("refuse", reason)
    assert said["sentence"]
    assert explain(folder, *arguments) == 1
    assert capsys.readouterr().out.startswith(f"refuse {reason} 40")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say who asks"),
        (("--udid", "a", "--cert", "birth.pem"), "neither --cert nor --csr"),
        (("--udid", "a", "--operation", "simplereenroll"), "--cert FILE"),
        (("--udid", "a", "--operation", "cacerts"), "invalid choice"),
        (("--udid", "a", "--label", "a/b"), "two path segments"),
        (("--csr", "absent.csr"), "absent.csr: No such file"),
        (("--csr", "birth.pem"), "not one certification request"),
        (("--cert", "device.csr"), "device.csr"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, capsys: Output, arguments: tuple[str, ...], words: str
) -> None:
    assert explain(folder, *arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words in line


def stored(folder: Path) -> dict[str, bytes]:
    """What is in the server's folder."""
    return {str(p): p.read_bytes() for p in (folder / "est").rglob("*") if p.is_file()}


def test_nothing_is_made_or_changed(folder: Path) -> None:
    before = stored(folder)
    assert explain(folder, "--udid", "sensor-0001") == 0
    assert stored(folder) == before


@pytest.mark.parametrize(
    "command",
    [
        ["explain", "--udid", "sensor-0001"],
        ["devices", "list"],
        ["devices", "verify"],
        ["ledger", "export"],
        ["certificates", "list"],
        ["certificates", "revoke", "4711", "--reason", "superseded"],
        ["devices", "lists"],
        ["devices", "suspend", "sensor-0001", "--reason", "lost"],
        ["secrets", "list"],
        ["secrets", "remove", "sensor-0001"],
        ["approvals", "list"],
        ["approvals", "approve", "1", "--reason", "order 17"],
    ],
)
def test_a_store_that_vanished_is_no_empty_store(
    folder: Path, capsys: Output, command: list[str]
) -> None:
    store = folder / "est" / STORE_NAME
    store.rename(store.with_suffix(".away"))
    before = stored(folder)
    assert main([*command, "--config", str(folder / "est" / "est-server.toml")]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert stored(folder) == before


def test_an_older_store_is_left_to_the_server(folder: Path, capsys: Output) -> None:
    store = folder / "est" / STORE_NAME
    with closing(sqlite3.connect(store)) as db:
        db.execute("PRAGMA user_version = 1")
    assert explain(folder, "--udid", "sensor-0001") == 2
    assert "start the server first" in capsys.readouterr().err
