"""The command line ``est-server``: what it makes, what it says, and how it ends."""

from __future__ import annotations

import io
import stat
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store

from est_protocol.keys import spki_sha256
from est_server.cli import main
from est_server.config import load_config
from tests import pki

Output = pytest.CaptureFixture[str]


@pytest.fixture
def server(tmp_path: Path, capsys: Output) -> Path:
    """The configuration of a new server."""
    assert main(["init", str(tmp_path / "est"), "--https-port", "0", "--coaps-port", "0"]) == 0
    capsys.readouterr()
    return tmp_path / "est" / "est-server.toml"


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def error_of(capsys: Output) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("est-server: error: ")
    return lines[0].removeprefix("est-server: error: ")


# -- init ---------------------------------------------------------------------------------------


def test_init_makes_everything_private(server: Path) -> None:
    directory = server.parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    readable = {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) != 0o600
    }
    assert readable == {"ca.pem", "ca/issuing.pem", "server/https.pem", "server/coaps.pem"}
    for path in directory.rglob("*"):
        assert not path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o700


def test_init_writes_a_configuration_that_loads(server: Path) -> None:
    config = load_config(server)
    assert config.https is not None
    assert config.coaps is not None
    assert (config.https.listen, config.https.port) == ("127.0.0.1", 0)
    assert config.default.authorizers == ("device-list",)


@pytest.mark.parametrize(
    ("kind", "ca_key", "coaps_key_size"),
    [
        ("ec-p256", ec.EllipticCurvePublicKey, 256),
        ("ec-p384", ec.EllipticCurvePublicKey, 384),
        ("rsa-3072", rsa.RSAPublicKey, 256),
        ("ed25519", ed25519.Ed25519PublicKey, 256),
    ],
)
def test_the_root_verifies_the_server_on_both_transports(
    tmp_path: Path, kind: str, ca_key: type, coaps_key_size: int
) -> None:
    directory = tmp_path / "est"
    assert run("init", directory, "--host", "est.example", "--key-type", kind) == 0
    root = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    assert isinstance(root.public_key(), ca_key)
    for transport in ("https", "coaps"):
        pem = (directory / "server" / f"{transport}.pem").read_bytes()
        leaf, *chain = x509.load_pem_x509_certificates(pem)
        if kind != "ed25519":  # which PolicyBuilder's profile of the web does not know
            verifier = PolicyBuilder().store(Store([root]))
            verifier.build_server_verifier(x509.DNSName("est.example")).verify(leaf, chain)
        leaf.verify_directly_issued_by(chain[0])
        chain[0].verify_directly_issued_by(root)
    coaps_key = leaf.public_key()
    assert isinstance(coaps_key, ec.EllipticCurvePublicKey)
    assert coaps_key.curve.key_size == coaps_key_size
    assert chain[-1] == root


def test_init_says_what_to_do_next(tmp_path: Path, capsys: Output) -> None:
    assert run("init", tmp_path / "est") == 0
    root = x509.load_pem_x509_certificate((tmp_path / "est" / "ca.pem").read_bytes())
    said = capsys.readouterr().out
    assert root.fingerprint(hashes.SHA256()).hex() in said
    for command in ("est-server devices import", "est-server serve", "est-client enroll"):
        assert command in said


def test_init_refuses_a_directory_that_is_not_empty(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "precious").write_text("mine")
    assert run("init", tmp_path) == 2
    assert "not empty" in error_of(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_init_leaves_nothing_behind_when_it_fails(tmp_path: Path, capsys: Output) -> None:
    assert run("init", tmp_path / "est", "--host", "no such host") == 2
    assert "neither a DNS name" in error_of(capsys)
    assert not list((tmp_path / "est").iterdir())


# -- devices ------------------------------------------------------------------------------------


def write_list(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["udid,spki_sha256,model", *rows, ""]))
    return path


def import_unsigned(server: Path, *arguments: str | Path) -> int:
    return run("devices", "import", "--allow-unsigned", *arguments, "--config", server)


def test_import_counts_and_names_the_lines_that_it_left_out(
    server: Path, tmp_path: Path, capsys: Output
) -> None:
    good, other = f"a,{1:064x},m1", f"b,{2:064x},m2"
    assert import_unsigned(server, write_list(tmp_path / "1", good)) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["added 1, unchanged 0, rejected 0"]
    mixed = write_list(tmp_path / "2", good, "c,nonsense,m", other)
    assert import_unsigned(server, mixed) == 2
    said = capsys.readouterr()
    assert said.out.startswith("line 3: ")
    assert "1 of 3 rows are no good; nothing is imported" in said.err
    assert import_unsigned(server, mixed, "--leave-out-bad-rows") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("line 3: ")
    assert lines[1].startswith("list unsigned-")
    assert lines[2:] == ["added 1, unchanged 1, rejected 1"]


def test_import_from_standard_input(
    server: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"udid,spki_sha256\na,{1:064x}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert import_unsigned(server, "-") == 0
    assert "added 1" in capsys.readouterr().out


def test_list_and_show(server: Path, tmp_path: Path, capsys: Output) -> None:
    rows = write_list(tmp_path / "1", f"b,{2:064x},m2", f"a,{1:064x},m1")
    assert import_unsigned(server, rows) == 0
    capsys.readouterr()
    assert run("devices", "list", "--config", server) == 0
    listed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert listed == [["a", "listed"], ["b", "listed"]]
    assert run("devices", "show", "b", "--config", server) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["spki_sha256"] == f"{2:064x}"
    assert shown["model"] == "m2"
    assert run("devices", "show", "nobody", "--config", server) == 1
    assert error_of(capsys) == "no device 'nobody' is listed"


# -- trust --------------------------------------------------------------------------------------


def write_pem(path: Path, certificate: x509.Certificate) -> Path:
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return path


def test_a_manufacturer_is_added_once(server: Path, tmp_path: Path, capsys: Output) -> None:
    root = write_pem(tmp_path / "maker.pem", pki.make_ca("maker").certificate)
    for outcome in ("added", "unchanged"):
        assert run("trust", "add-manufacturer", root, "--config", server) == 0
        assert capsys.readouterr().out.startswith(f"{outcome} CN=maker sha256=")
    assert len(list((server.parent / "manufacturers").iterdir())) == 1


def test_what_is_no_manufacturer(server: Path, tmp_path: Path, capsys: Output) -> None:
    leaf = pki.make_leaf(pki.make_ca("maker"), "a device").chain[0]
    assert run("trust", "add-manufacturer", write_pem(tmp_path / "x", leaf), "--config", server)
    assert "is not a CA certificate" in error_of(capsys)
    own = server.parent / "ca.pem"
    assert run("trust", "add-manufacturer", own, "--config", server) == 2
    assert "is the CA of this server" in error_of(capsys)
    assert run("trust", "add-manufacturer", server, "--config", server) == 2
    assert "no PEM certificate" in error_of(capsys)
    assert not list((server.parent / "manufacturers").iterdir())


# -- every command --------------------------------------------------------------------------------

COMMANDS = [
    ("init",),
    ("serve",),
    ("devices", "import"),
    ("devices", "lists"),
    ("devices", "sign"),
    ("devices", "list"),
    ("devices", "show"),
    ("trust", "add-manufacturer"),
    ("ca", "rollover"),
    ("ca", "server-certificate"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command: tuple[str, ...], capsys: Output) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*command, "--help")
    assert ended.value.code == 0
    assert f"example:\n  est-server {' '.join(command)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("devices",),
        ("serve",),
        ("init", "x", "--https-port", "65536"),
        ("init", "x", "--key-type", "dsa"),
        ("init", "x", "--listen", "\U0001f50c"),
        ("init", "x", "--listen", "two words"),
        ("serve", "--config", "/nowhere/est-server.toml"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    arguments: tuple[str, ...], capsys: Output
) -> None:
    assert run(*arguments) == 2
    assert error_of(capsys)


def test_debug_shows_the_traceback(capsys: Output) -> None:
    assert run("devices", "list", "--debug", "--config", "/nowhere/est-server.toml") == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("est-server: error: /nowhere/est-server.toml: No such")


@pytest.mark.parametrize("name", ["key", "certificate"])
def test_a_file_that_is_missing_is_named(server: Path, capsys: Output, name: str) -> None:
    config = load_config(server)
    getattr(config.authorities["default"], name).unlink()
    assert run("serve", "--config", server) == 2
    assert f"[authorities.default] {name}: there is no file" in error_of(capsys)


def test_the_listed_hash_is_the_default_udid(server: Path, tmp_path: Path, capsys: Output) -> None:
    key = spki_sha256(pki.make_key("device").public_key()).hex()
    (tmp_path / "list").write_text(f"spki_sha256\n{key}\n")
    assert run("devices", "import", "--allow-unsigned", tmp_path / "list", "--config", server) == 0
    capsys.readouterr()
    assert run("devices", "list", "--config", server) == 0
    assert capsys.readouterr().out.startswith(key)
