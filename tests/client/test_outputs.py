"""What ``est-client`` writes: made sure of before anything is sent, and not lost if that fails."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509

from est_client.cli import main
from est_client.device_keys import key_from_pem
from est_client.durable_files import FileSystem, PreparedFile, write_durably
from est_protocol.key_package import encode_private_key
from est_protocol.keys import spki_sha256
from est_protocol.messages import EstRequest, EstResponse, GeneratedKeyResponse
from est_protocol.pkcs10 import build
from tests.client.memory import MemoryConnection, issue
from tests.client.running import CA, Run
from tests.pki import make_key, make_name

GENERATED = make_key("generated")
KEY_GENERATION = ("serverkeygen", "--key", "device.key", "--unencrypted")


async def generate(connection: MemoryConnection, request: EstRequest) -> EstResponse:
    certificate = issue(CA, build(GENERATED, make_name("pump")))
    return GeneratedKeyResponse((certificate,), encode_private_key(GENERATED), protected=False)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "command",
    [
        (*KEY_GENERATION, "--key-out", "nowhere/made.key"),
        (*KEY_GENERATION, "--key-out", "made.key", "--out", "nowhere/out.pem"),
        ("enroll", "--key", "device.key", "--out", "nowhere/out.pem"),
        ("enroll", "--key", "device.key", "--new-key", "nowhere/new.key"),
        ("reenroll", "--key", "device.key", "--cert", "device.pem", "--out", "nowhere/out.pem"),
        ("conformance", "--json", "nowhere/report.json"),
        ("conformance", "--junit", "nowhere/report.xml"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_sent(
    run: Run, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    run.put_identity()
    (option, name) = next(pair for pair in pairwise(command) if "/" in pair[1])
    path = run.path(name)
    assert run(*(path if word == name else word for word in command)) == 2
    assert run.server.attempts == 0
    said = capsys.readouterr().err
    assert path in said
    assert "No such file or directory" in said
    assert ".unfinished" not in said
    assert f"{option} {path} cannot be written" in said
    assert names_in(run.folder) == {"ca.pem", "device.key", "device.pem"}


def test_neither_a_directory_nor_a_device_is_written_over(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.put_identity()
    for path, reason in ((run.folder, "Is a directory"), (Path(os.devnull), "Not a regular file")):
        assert run("enroll", "--key", "device.key", "--out", str(path)) == 2
        assert f"--out {path} cannot be written: {reason}" in capsys.readouterr().err
    assert run.server.attempts == 0


@pytest.mark.parametrize("path", ["", ".", "/", ".."])
@pytest.mark.parametrize(
    "command",
    [
        (*KEY_GENERATION, "--key-out"),
        ("enroll", "--key", "device.key", "--out"),
        ("enroll", "--key", "device.key", "--new-key"),
        ("conformance", "--json"),
    ],
)
def test_a_path_without_a_name_is_refused_as_the_directory_that_it_is(
    run: Run, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], path: str
) -> None:
    run.put_identity()
    assert run(*command, path) == 2
    said = capsys.readouterr().err
    assert f"{command[-1]} {path or repr(path)} cannot be written: Is a directory" in said
    assert run.server.attempts == 0


IDENTITY = ("--key", "device.key", "--cert", "device.pem")


@pytest.mark.parametrize(
    ("command", "one", "other"),
    [
        (("serverkeygen", *IDENTITY, "--key-out", "device.key"), "--key-out", "--key"),
        (("serverkeygen", *IDENTITY, "--key-out", "device.pem"), "--key-out", "--cert"),
        (("serverkeygen", *IDENTITY, "--key-out", "ca.pem"), "--key-out", "--ca-cert"),
        ((*KEY_GENERATION, "--key-out", "x.pem", "--out", "x.pem"), "--out", "--key-out"),
        (
            (*KEY_GENERATION, "--key-out", "x.key", "--decrypt-key", "x.key"),
            "--key-out",
            "--decrypt-key",
        ),
        (("enroll", *IDENTITY, "--out", "ca.pem"), "--out", "--ca-cert"),
        (("enroll", *IDENTITY, "--out", "link.pem"), "--out", "--ca-cert"),
        (("enroll", *IDENTITY, "--out", "twin.pem"), "--out", "--ca-cert"),
        (("enroll", *IDENTITY, "--out", "device.pem"), "--out", "--cert"),
        (("enroll", *IDENTITY, "--out", "x.pem", "--otp-file", "x.pem"), "--out", "--otp-file"),
        (("enroll", *IDENTITY, "--new-key", "device.pem"), "--new-key", "--cert"),
        (("reenroll", *IDENTITY, "--out", "ca.pem"), "--out", "--ca-cert"),
        (("reenroll", *IDENTITY, "--out", "device.key"), "--out", "--key"),
        (("cacerts", *IDENTITY, "--out", "device.pem"), "--out", "--cert"),
        (("csrattrs", "--out", "ca.pem"), "--out", "--ca-cert"),
        (("conformance", "--json", "x.pem", "--junit", "x.pem"), "--json", "--junit"),
        (("conformance", *IDENTITY, "--json", "device.key"), "--json", "--key"),
    ],
)
def test_no_file_of_a_command_is_written_over_another(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    one: str,
    other: str,
) -> None:
    run.put_identity()
    (run.folder / "link.pem").symlink_to("ca.pem")
    (run.folder / "twin.pem").hardlink_to(run.folder / "ca.pem")
    before = {path: path.read_bytes() for path in run.folder.iterdir()}
    assert run(*command) == 2
    assert f"{one} and {other} are one file" in capsys.readouterr().err
    assert run.server.attempts == 0
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before


def test_the_reports_of_a_fleet_are_files_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "report")
    assert main(["simulate", "--devices", "1", "--json", path, "--csv", path]) == 2
    assert f"--json and --csv are one file, {path}" in capsys.readouterr().err


def test_the_trust_anchors_are_refreshed_in_place(run: Run) -> None:
    assert run("cacerts", "--out", "ca.pem") == 0
    assert len(run.certificates("ca.pem")) > 1


@pytest.mark.parametrize("option", ["--json", "--csv", "--write-list", "--report"])
def test_a_fleet_does_not_set_out_for_a_report_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (tmp_path / "file").write_text("not a directory")
    path = tmp_path / "file" / "report"
    assert main(["simulate", "--devices", "1", option, str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert str(path) in printed.err


def test_a_full_disk_is_noticed_beforehand(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.put_identity()

    def create(self: FileSystem, path: Path, content: bytes, mode: int) -> None:
        # An empty file finds a place on it.
        path.touch()
        if content:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(FileSystem, "create", create)
    assert run(*KEY_GENERATION, "--key-out", "made.key") == 2
    assert (
        f"--key-out {run.path('made.key')} cannot be written: No space" in capsys.readouterr().err
    )
    assert run.server.attempts == 0
    assert names_in(run.folder) == {"ca.pem", "device.key", "device.pem"}


def test_a_generated_key_that_has_no_place_any_more_is_not_lost(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    async def generate_late(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        (run.folder / "made.key").mkdir()
        return await generate(connection, request)

    run.put_identity()
    run.server.handlers = [generate_late]
    assert run(*KEY_GENERATION, "--key-out", "made.key", "--out", "out.pem") == 2
    [left] = run.folder.glob("made.key.*.unfinished")
    assert left.stat().st_mode & 0o777 == 0o600
    key = key_from_pem(left.read_bytes(), "left")
    assert spki_sha256(key.public_key()) == spki_sha256(GENERATED.public_key())
    printed = capsys.readouterr()
    assert f"cannot be written to {run.path('made.key')} (Is a directory)" in printed.err
    assert f"it is in {left}" in printed.err
    certificate = x509.load_pem_x509_certificate(printed.out.encode())
    assert spki_sha256(certificate.public_key()) == spki_sha256(GENERATED.public_key())


def test_a_certificate_that_has_no_place_any_more_goes_to_standard_output(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    async def generate_late(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        (run.folder / "out.pem").mkdir()
        return await generate(connection, request)

    run.put_identity()
    run.server.handlers = [generate_late]
    assert run(*KEY_GENERATION, "--key-out", "made.key", "--out", "out.pem") == 2
    assert run.key_hash("made.key") == spki_sha256(GENERATED.public_key())
    printed = capsys.readouterr()
    certificate = x509.load_pem_x509_certificate(printed.out.encode())
    assert spki_sha256(certificate.public_key()) == spki_sha256(GENERATED.public_key())
    assert run.path("out.pem") in printed.err


def test_a_key_that_is_lost_is_said_to_be(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwrite(self: FileSystem, path: Path, content: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(FileSystem, "overwrite", overwrite)
    run.put_identity()
    run.server.handlers = [generate]
    assert run(*KEY_GENERATION, "--key-out", "made.key") == 2
    assert "(Input/output error); it is lost" in capsys.readouterr().err
    assert names_in(run.folder) == {"ca.pem", "device.key", "device.pem"}


def test_a_prepared_file_has_room_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old", mode=0o644)
    with PreparedFile(path, mode=0o600) as prepared:
        [unfinished] = tmp_path.glob("*.unfinished")
        assert unfinished.stat().st_blocks * 512 >= 16384
        assert path.read_bytes() == b"old"
        prepared.write(b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)
    with PreparedFile(path, mode=0o600):
        pass
    assert names_in(tmp_path) == {"file"}
