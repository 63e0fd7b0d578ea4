"""Device lists by the command line: import, lists, sign, and who is believed."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from est_protocol.keys import SigningKey
from est_protocol.secure_channel.context import LocalCredentials
from est_server.cli import main
from tests.pki import PRESENT, make_ca, make_key, make_leaf
from tests.server.lists import MAKER, csv_list, sign
from tests.server.test_list_signatures import self_signed

Output = pytest.CaptureFixture[str]

LIST = csv_list(1, 2)


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def server(tmp_path: Path, capsys: Output) -> Path:
    """The configuration of a new server that believes one list signer and nothing unsigned."""
    folder = tmp_path / "est"
    assert run("init", folder) == 0
    capsys.readouterr()
    config = folder / "est-server.toml"
    text = config.read_text()
    assert "allow_unsigned = true" in text
    config.write_text(text.replace("allow_unsigned = true", "allow_unsigned = false"))
    believe(config, "acme", "certificate", pem_of(MAKER))
    (tmp_path / "list.csv").write_bytes(LIST)
    return config


def pem_of(credentials: LocalCredentials) -> bytes:
    return b"".join(c.public_bytes(Encoding.PEM) for c in credentials.chain)


def believe(config: Path, name: str, way: str, pem: bytes, *more: str) -> None:
    """Add a list signer to the configuration."""
    file = config.parent / f"{name}.pem"
    file.write_bytes(pem)
    table = ["", "[[list_signers]]", f'name = "{name}"', f'{way} = "{file.name}"', *more, ""]
    with config.open("a") as stream:
        stream.write("\n".join(table))


def write_key(
    path: Path, key: SigningKey, encryption: KeySerializationEncryption | None = None
) -> Path:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    path.write_bytes(pem)
    path.chmod(0o600)
    return path


def import_list(server: Path, *arguments: str | Path) -> int:
    return run("devices", "import", *arguments, "--config", server)


def error_of(capsys: Output) -> str:
    return capsys.readouterr().err.removeprefix("est-server: error: ").strip()


def devices(server: Path, capsys: Output) -> list[str]:
    capsys.readouterr()
    assert run("devices", "list", "--config", server) == 0
    return [line.split()[0] for line in capsys.readouterr().out.splitlines()]


# -- import ---------------------------------------------------------------------------------------


def test_a_signed_list_is_imported_once(server: Path, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "p7s").write_bytes(sign(LIST))
    arguments = (tmp_path / "list.csv", "--signature", tmp_path / "p7s")
    assert import_list(server, *arguments) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0].startswith("list acme-")
    assert first[1] == "added 2, unchanged 0, rejected 0"
    assert import_list(server, *arguments) == 0
    assert capsys.readouterr().out.splitlines()[1] == "added 0, unchanged 2, rejected 0"
    assert run("devices", "lists", "--config", server) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{first[0].removeprefix('list ')}  2 devices  signer acme  signed 20")
    assert run("devices", "show", "d-1", "--config", server) == 0
    assert f"list         {first[0].removeprefix('list ')}" in capsys.readouterr().out


def test_a_list_without_a_signature_is_refused(
    server: Path, tmp_path: Path, capsys: Output
) -> None:
    assert import_list(server, tmp_path / "list.csv") == 2
    assert "the list is not signed" in error_of(capsys)
    assert import_list(server, tmp_path / "list.csv", "--allow-unsigned") == 2
    assert "[devices] allow_unsigned is not on" in error_of(capsys)
    assert devices(server, capsys) == []


def test_what_the_configuration_allows_has_to_be_asked_for_too(
    server: Path, tmp_path: Path, capsys: Output
) -> None:
    server.write_text(server.read_text().replace("unsigned = false", "unsigned = true"))
    assert import_list(server, tmp_path / "list.csv") == 2
    assert "the list is not signed" in error_of(capsys)
    (tmp_path / "p7s").write_bytes(sign(LIST + b"x"))
    signed_wrong = ("--signature", tmp_path / "p7s", "--allow-unsigned")
    assert import_list(server, tmp_path / "list.csv", *signed_wrong) == 2
    assert "other octets" in error_of(capsys)
    assert import_list(server, tmp_path / "list.csv", "--allow-unsigned") == 0


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (LIST[:-40], "other octets"),
        (LIST[: LIST.rindex(b"d-2")], "other octets"),
        (csv_list(2, 1), "other octets"),
        (LIST + LIST.splitlines()[1] + b"\n", "other octets"),
        (b"\xef\xbb\xbf" + LIST, "other octets"),
        (LIST.replace(b"\n", b"\r\n"), "other octets"),
        (b"", "none of csv"),
        (b"udid,model\n", "none of csv"),
        (b"spki_sha256," + b"x" * 70_000, "octets"),
    ],
    ids=["cut", "row-cut", "order", "twice", "bom", "crlf", "empty", "no-key", "gigantic"],
)
def test_a_list_that_is_not_the_one_that_was_signed(
    server: Path, tmp_path: Path, capsys: Output, octets: bytes, words: str
) -> None:
    (tmp_path / "p7s").write_bytes(sign(LIST))
    (tmp_path / "list.csv").write_bytes(octets)
    assert import_list(server, tmp_path / "list.csv", "--signature", tmp_path / "p7s") == 2
    assert words in error_of(capsys)
    assert devices(server, capsys) == []
    assert run("devices", "lists", "--config", server) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("octets", [b"\xef\xbb\xbf" + LIST, LIST.replace(b"\n", b"\r\n")])
def test_byte_order_mark_and_line_ends_are_signed_with_the_rest(
    server: Path, tmp_path: Path, octets: bytes
) -> None:
    (tmp_path / "p7s").write_bytes(sign(octets))
    (tmp_path / "list.csv").write_bytes(octets)
    assert import_list(server, tmp_path / "list.csv", "--signature", tmp_path / "p7s") == 0


def test_a_conflict_is_named_and_left_out(server: Path, tmp_path: Path, capsys: Output) -> None:
    for number, octets in enumerate((LIST, LIST.replace(b"d-1,", b"d-9,") + csv_list(3)[23:])):
        (tmp_path / "list.csv").write_bytes(octets)
        (tmp_path / "p7s").write_bytes(sign(octets))
        arguments = (tmp_path / "list.csv", "--signature", tmp_path / "p7s")
        assert import_list(server, *arguments) == number
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "line 2: the key is listed already with another UDID"
    assert lines[4] == "added 1, unchanged 1, rejected 1"
    assert devices(server, capsys) == ["d-1", "d-2", "d-3"]


def test_a_list_comes_through_a_pipe(server: Path, tmp_path: Path) -> None:
    (tmp_path / "p7s").write_bytes(sign(LIST))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(LIST,))
    writer.start()
    assert import_list(server, tmp_path / "pipe", "--signature", tmp_path / "p7s") == 0
    writer.join()


# -- list signers ---------------------------------------------------------------------------------


def test_a_signer_may_be_a_bare_key_or_a_ca(server: Path, tmp_path: Path, capsys: Output) -> None:
    key = make_key("bare")
    spki = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    believe(server, "bare", "public_key", spki)
    root = make_ca("list root")
    narrow = ('extended_key_usages = ["code-signing"]', 'subject = "CN=lists"')
    believe(server, "by-ca", "ca", root.certificate.public_bytes(Encoding.PEM), *narrow)
    (tmp_path / "p7s").write_bytes(sign(LIST, key, (self_signed(key),)))
    assert import_list(server, tmp_path / "list.csv", "--signature", tmp_path / "p7s") == 0
    assert capsys.readouterr().out.startswith("list bare-")
    lists = make_leaf(root, "lists")
    (tmp_path / "p7s").write_bytes(sign(LIST, lists.key, lists.chain))
    assert import_list(server, tmp_path / "list.csv", "--signature", tmp_path / "p7s") == 2
    assert "lacks the extended key usage" in error_of(capsys)


def test_an_expired_signer_is_refused(server: Path, tmp_path: Path, capsys: Output) -> None:
    day = timedelta(days=1)
    old = make_leaf(None, "old", not_before=PRESENT - 9 * day, not_after=PRESENT - day)
    believe(server, "old", "certificate", pem_of(old))
    (tmp_path / "p7s").write_bytes(sign(LIST, old.key, old.chain, now=PRESENT - 2 * day))
    assert import_list(server, tmp_path / "list.csv", "--signature", tmp_path / "p7s") == 2
    assert "of 'old' expired on" in error_of(capsys)
    with server.open("a") as stream:
        stream.write("judge_at_signing_time = true\n")
    assert import_list(server, tmp_path / "list.csv", "--signature", tmp_path / "p7s") == 0


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('name = "x"', "exactly one of them"),
        ('name = "x"\ncertificate = "acme.pem"\nca = "acme.pem"', "exactly one of them"),
        ('name = "x"\ncertificate = "nothing.pem"', "there is no file"),
        ('name = "x"\npublic_key = "acme.pem"', "no PEM public key"),
        ('name = "x"\nca = "acme.pem"\nsubject = "?"', "is no subject"),
        ('name = "x"\nca = "acme.pem"', "whoever the CA certifies could sign lists"),
        (
            'name = "x"\nca = "acme.pem"\nextended_key_usages = ["client-auth", "2.5.29.37.0"]',
            "whoever the CA certifies could sign lists",
        ),
        ('name = "acme"\ncertificate = "acme.pem"', "each is there once"),
        ('name = ""\ncertificate = "acme.pem"', "names are printable"),
        ('certificate = "acme.pem"', "[list_signers] name: is missing"),
        ('name = "x"\ncertificate = "acme.pem"\nkey = "y"', "unknown key"),
    ],
)
def test_a_signer_that_makes_no_sense(
    server: Path, tmp_path: Path, capsys: Output, lines: str, words: str
) -> None:
    with server.open("a") as stream:
        stream.write(f"[[list_signers]]\n{lines}\n")
    (tmp_path / "p7s").write_bytes(sign(LIST))
    assert import_list(server, tmp_path / "list.csv", "--signature", tmp_path / "p7s") == 2
    assert words in error_of(capsys)


def test_without_any_signer_nothing_is_believed(
    server: Path, tmp_path: Path, capsys: Output
) -> None:
    text = server.read_text()
    server.write_text(text[: text.rindex("[[list_signers]]")])
    (tmp_path / "p7s").write_bytes(sign(LIST))
    assert import_list(server, tmp_path / "list.csv", "--signature", tmp_path / "p7s") == 2
    assert "no [[list_signers]] are configured" in error_of(capsys)


# -- sign -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--cms", "--jws"])
@pytest.mark.parametrize(
    "key",
    [
        make_key("signs"),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["p256", "p384", "rsa", "ed25519"],
)
def test_what_is_signed_here_is_imported(
    server: Path, tmp_path: Path, capsys: Output, option: str, key: SigningKey
) -> None:
    certificate = self_signed(key).public_bytes(Encoding.PEM)
    believe(server, "me", "certificate", certificate)
    files = ("--key", write_key(tmp_path / "k", key), "--certificate", server.parent / "me.pem")
    out = tmp_path / "signature"
    status = run("devices", "sign", tmp_path / "list.csv", *files, option, "--out", out)
    if option == "--jws" and isinstance(key, ed25519.Ed25519PrivateKey):
        assert status == 2
        assert "use --cms" in error_of(capsys)
        return
    assert status == 0
    assert capsys.readouterr().out == f"signed 2 rows: {out}\n"
    assert import_list(server, tmp_path / "list.csv", "--signature", out) == 0
    assert capsys.readouterr().out.startswith("list me-")
    assert run("devices", "sign", tmp_path / "list.csv", *files, option, "--out", out) == 2
    assert "File exists" in error_of(capsys)


def test_what_could_not_be_imported_is_not_signed(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "list.csv").write_bytes(LIST + b"d-3,nonsense,x\n")
    (tmp_path / "c").write_bytes(pem_of(MAKER))
    assert isinstance(MAKER.key, ec.EllipticCurvePrivateKey)
    files = ("--key", write_key(tmp_path / "k", MAKER.key), "--certificate", tmp_path / "c")
    assert run("devices", "sign", tmp_path / "list.csv", *files, "--out", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert said.out.startswith("line 4: ")
    assert "1 of 3 rows are no good" in said.err
    assert not (tmp_path / "out").exists()


def test_a_key_that_is_not_the_certificates_signs_nothing(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "list.csv").write_bytes(LIST)
    (tmp_path / "c").write_bytes(pem_of(MAKER))
    files = ("--key", write_key(tmp_path / "k", make_key("x")), "--certificate", tmp_path / "c")
    assert run("devices", "sign", tmp_path / "list.csv", *files, "--out", tmp_path / "out") == 2
    assert "over another key" in error_of(capsys)


def test_the_key_may_be_encrypted(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.csv").write_bytes(LIST)
    (tmp_path / "c").write_bytes(pem_of(MAKER))
    assert isinstance(MAKER.key, ec.EllipticCurvePrivateKey)
    key = write_key(tmp_path / "k", MAKER.key, BestAvailableEncryption(b"open"))
    monkeypatch.setenv("LISTS_KEY", "open")
    files = ("--key", key, "--certificate", tmp_path / "c", "--out", tmp_path / "out")
    assert run("devices", "sign", tmp_path / "list.csv", *files) == 2
    assert "no passphrase is given" in error_of(capsys)
    passphrase = ("--key-passphrase-variable", "LISTS_KEY")
    assert run("devices", "sign", tmp_path / "list.csv", *files, *passphrase) == 0
