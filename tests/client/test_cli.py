"""The command est-client, against a server in memory."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from est_client.cli import main
from est_client.client import EstClient
from est_client.device_keys import chain_to_pem, key_to_pem
from est_client.durable_files import write_durably
from est_client.location import ServerLocation
from est_client.redirects import RedirectPolicy
from est_protocol.credentials import AnchorSet
from est_protocol.errors import ChannelClosed, ServerRefused
from est_protocol.keys import key_kind, spki_sha256
from est_protocol.messages import EstRequest, EstResponse, Pending, Transport
from est_protocol.secure_channel.policy import TlsVersion
from tests.client.memory import MemoryConnection
from tests.client.running import CA, ROOT, Run
from tests.pki import make_ca, make_key, make_name


async def refuse(connection: MemoryConnection, request: EstRequest) -> EstResponse:
    raise ServerRefused("403", "this device is not on the list")


async def put_off(connection: MemoryConnection, request: EstRequest) -> EstResponse:
    return Pending(3600)


async def vanish(connection: MemoryConnection, request: EstRequest) -> EstResponse:
    raise ChannelClosed("the server went away")


@pytest.mark.conformance("CA-14")
def test_cacerts_writes_all_of_them(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cacerts", "--out", "out.pem") == 0
    assert set(run.certificates("out.pem")) == {ROOT.certificate, CA.certificate}
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ROOT.certificate.fingerprint(hashes.SHA256()).hex(":").upper() in printed.err


def test_without_out_only_pem_goes_to_standard_output(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("enroll", "--key", "device.key") == 0
    [certificate] = x509.load_pem_x509_certificates(capsys.readouterr().out.encode())
    assert spki_sha256(certificate.public_key()) == run.key_hash("device.key")


def test_enroll_makes_the_key_and_certifies_it(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("enroll", "--key", "device.key", "--out", "out.pem") == 0
    [certificate] = run.certificates("out.pem")
    udid = run.key_hash("device.key").hex()
    assert certificate.subject.rfc4514_string() == f"CN={udid}"
    assert spki_sha256(certificate.public_key()).hex() == udid
    assert (run.folder / "device.key").stat().st_mode & 0o777 == 0o600
    *_, line = capsys.readouterr().err.splitlines()
    for part in (udid, "issuing", f"{certificate.serial_number:x}", "notAfter="):
        assert part in line


@pytest.mark.parametrize("option", ["--key", "--new-key"])
def test_a_key_is_never_overwritten_by_a_certificate(
    run: Run, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    keys = {"--key": "device.key", option: "device.pem"}
    arguments = [text for pair in keys.items() for text in pair]
    assert run("enroll", *arguments, "--out", "device.pem") == 2
    assert f"--out and {option} are one file" in capsys.readouterr().err
    assert not (run.folder / "device.pem").exists()


def test_enroll_uses_the_key_that_is_there(run: Run) -> None:
    write_durably(run.folder / "device.key", key_to_pem(make_key("device")), mode=0o600)
    assert run("enroll", "--key", "device.key", "--out", "out.pem") == 0
    assert run.key_hash("device.key") == spki_sha256(make_key("device").public_key())
    [(connection, csr)] = run.server.enrollments
    assert connection.client.chain == ()
    assert csr.challenges.challenge_password is not None


@pytest.mark.conformance("SE-09")
def test_enroll_a_new_key_under_a_birth_certificate(run: Run) -> None:
    run.put_identity()
    arguments = ("--key", "device.key", "--cert", "device.pem", "--new-key", "new.key")
    assert run("enroll", *arguments, "--subject", "CN=pump,O=Example", "--out", "out.pem") == 0
    [(connection, csr)] = run.server.enrollments
    # The file holds the chain, and the chain is presented.
    assert connection.client.chain == tuple(run.certificates("device.pem"))
    assert csr.key_sha256 == run.key_hash("new.key") != run.key_hash("device.key")
    assert csr.subject == x509.Name.from_rfc4514_string("CN=pump,O=Example")


def test_enroll_a_new_key_proves_possession_of_the_bare_one(run: Run) -> None:
    assert run("enroll", "--key", "device.key", "--new-key", "new.key", "--out", "out.pem") == 0
    [(connection, csr)] = run.server.enrollments
    assert connection.client.key_sha256 == run.key_hash("device.key")
    assert csr.key_sha256 == run.key_hash("new.key")


def test_coaps_presents_a_self_signed_certificate(run: Run) -> None:
    assert run("enroll", "--url", "coaps://localhost", "--key", "device.key") == 0
    [(connection, _)] = run.server.enrollments
    assert connection.client.key_sha256 == run.key_hash("device.key")
    assert run.location is not None
    assert run.location.transport is Transport.COAPS


@pytest.mark.conformance("SR-01", "SR-02")
def test_reenroll_repeats_the_names(run: Run) -> None:
    run.put_identity()
    arguments = ("--key", "device.key", "--cert", "device.pem", "--out", "device.pem")
    [old, _] = run.certificates("device.pem")
    assert run("reenroll", *arguments) == 0
    [new] = run.certificates("device.pem")
    assert new != old
    assert (new.subject, new.public_key()) == (old.subject, old.public_key())
    [(connection, csr)] = run.server.enrollments
    assert connection.client.certificate == old
    assert csr.subject_alt_names == (x509.DNSName("pump7.example"),)


@pytest.mark.conformance("SE-08")
def test_enroll_asks_for_another_name_than_the_certificates(run: Run) -> None:
    run.put_identity()
    arguments = ("--key", "device.key", "--cert", "device.pem", "--new-key", "new.key")
    wish = ("--change-names", "--subject", "CN=pump 8", "--alt-name", "dns:pump8.example")
    assert run("enroll", *arguments, *wish) == 0
    [(_, csr)] = run.server.enrollments
    [old, _] = run.certificates("device.pem")
    assert csr.subject == old.subject
    assert csr.wanted_names == (make_name("pump 8"), (x509.DNSName("pump8.example"),))


def test_enroll_has_no_other_name_to_ask_for(run: Run) -> None:
    run.put_identity()
    assert run("enroll", "--key", "device.key", "--cert", "device.pem", "--change-names") == 2
    assert not run.server.enrollments


def test_reenroll_for_a_new_key(run: Run) -> None:
    run.put_identity()
    arguments = ("--key", "device.key", "--cert", "device.pem", "--new-key", "new.key")
    assert run("reenroll", *arguments, "--key-type", "ec-p384", "--out", "new.pem") == 0
    [new] = run.certificates("new.pem")
    assert spki_sha256(new.public_key()) == run.key_hash("new.key")
    assert key_kind(new.public_key()) == "ec-p384"


def test_no_pop_linking(run: Run) -> None:
    assert run("enroll", "--key", "device.key", "--no-pop-linking") == 0
    [(_, csr)] = run.server.enrollments
    assert csr.challenges.challenge_password is None


def test_options_reach_the_connector(run: Run) -> None:
    arguments = ("--tls-max", "1.2", "--block-size", "64", "--timeout", "7.5", "--label", "a")
    assert run("cacerts", *arguments, "--ack-timeout", "9") == 0
    assert run.options.tls.maximum_version is TlsVersion.TLS1_2
    assert (run.options.block_size, run.options.timeout) == (64, 7.5)
    assert run.options.ack_timeout == 9.0
    assert run.location == ServerLocation(Transport.HTTPS, "localhost", 8443, "a")
    assert {request.label for _, request in run.server.requests} == {"a"}


@pytest.mark.conformance("CL-02")
def test_trust_by_fingerprint(run: Run) -> None:
    fingerprint = ROOT.certificate.fingerprint(hashes.SHA256()).hex(":")
    assert run("cacerts", "--ca-fingerprint", fingerprint, trust=False) == 0
    assert run("cacerts", "--ca-fingerprint", "0" * 64, trust=False) == 3


def test_the_servers_reason_is_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.server.handlers = [refuse]
    assert run("enroll", "--key", "device.key", "--out", "out.pem") == 1
    [_, line] = capsys.readouterr().err.splitlines()
    assert line == "est-client: refused by the server: 403: this device is not on the list"
    assert not (run.folder / "out.pem").exists()


def test_pending_is_no_success(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.server.handlers = [put_off]
    assert run("enroll", "--key", "device.key", "--out", "out.pem", "--wait", "5") == 1
    assert "3600 s" in capsys.readouterr().err


def test_a_failed_renewal_leaves_the_files_alone(run: Run) -> None:
    run.put_identity()
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    run.server.handlers = [refuse]
    arguments = ("--key", "device.key", "--cert", "device.pem", "--out", "device.pem")
    assert run("reenroll", *arguments) == 1
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


def test_a_server_that_is_not_trusted(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.folder / "ca.pem").write_bytes(chain_to_pem([make_ca("somebody").certificate]))
    assert run("cacerts", "--out", "out.pem") == 3
    assert run.server.requests == []
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("est-client: the server's certificate")


def test_a_server_that_goes_away(run: Run) -> None:
    run.server.handlers = [vanish]
    assert run("enroll", "--key", "device.key", "--attempts", "1") == 3


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_refuses_a_key_that_others_can_get_at(
    run: Run, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run.put_identity()
    (run.folder / "device.key").chmod(mode)
    assert run("enroll", "--key", "device.key") == 2
    assert "chmod 600" in capsys.readouterr().err
    assert run.server.attempts == 0


def test_a_bare_key_is_enrolled_in_its_store(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(run.folder / "store")
    write_durably(run.folder / "device.key", key_to_pem(make_key("listed")), mode=0o600)
    assert run("enroll", "--key", "device.key", "--store", store, "--out", "out.pem") == 0
    assert "device.key is in" in capsys.readouterr().err
    listed = run.key_hash("device.key")
    assert spki_sha256(run.certificates("out.pem")[0].public_key()) == listed
    assert run.key_hash("store/identity.pem") == listed
    [(connection, csr)] = run.server.enrollments
    assert connection.client.certificate is None
    assert csr.key_sha256 == listed
    assert run("enroll", "--key", "device.key", "--store", store) == 0
    write_durably(run.folder / "other.key", key_to_pem(make_key("other")), mode=0o600)
    assert run("enroll", "--key", "other.key", "--store", store) == 2
    assert "another key" in capsys.readouterr().err
    assert run.key_hash("store/identity.pem") == listed


@pytest.mark.parametrize("name", ["identity.pem", "pending-key.pem", "other.pem"])
def test_nothing_is_written_into_a_key_store_from_outside(
    run: Run, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(run.folder / "store")
    out = str(run.folder / "store" / ".." / "store" / name)
    assert run("enroll", "--store", store, "--out", out) == 2
    assert "in the key store" in capsys.readouterr().err
    assert run.server.attempts == 0


def test_watching_does_not_renew_what_is_not_due() -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["renew", "--url", "https://h", "--store", "d", "--force", "--watch"])
    assert exit_.value.code == 2


def test_redirects_to_other_servers_are_allowed_one_by_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    original = EstClient

    def noting(*arguments: Any, **options: Any) -> EstClient:
        given.append(options["redirects"])
        return original(*arguments, **options)

    monkeypatch.setattr("est_client.command_inputs.EstClient", noting)
    allowed = ("--allow-redirect", "a.example", "--allow-redirect", "[::1]:8443")
    assert run("cacerts") == 0
    assert run("cacerts", *allowed) == 0
    assert given == [RedirectPolicy(), RedirectPolicy.allowing("a.example", "[::1]:8443")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cacerts", "--url", "http://localhost"), "https://"),
        (("cacerts", "--url", "coaps://localhost"), "--key"),
        (("cacerts", "--label", "a/b"), "label"),
        (("cacerts", "--cert", "device.pem"), "--key"),
        (("cacerts", "--ca-fingerprint", "0" * 64), "one of --ca-cert"),
        (("enroll", "--key", "absent.key", "--cert", "device.pem"), "absent.key"),
        (("enroll", "--key", "other.key", "--cert", "device.pem"), "not for the key"),
        (("enroll", "--key", "ca.pem"), "private key"),
        (("enroll",), "--key FILE or --store DIR"),
        (("enroll", "--key", "device.key", "--cert", "absent.pem"), "absent.pem"),
        (("enroll", "--key", "device.key", "--cert", "device.key"), "certificate"),
        (("enroll", "--key", "device.key", "--subject", "pump 7"), "RFC4514|not a name"),
        (("reenroll", "--key", "device.key"), "--cert"),
        (("reenroll", "--key", "absent.key", "--cert", "device.pem"), "absent.key"),
    ],
)
def test_local_errors_are_one_line(
    run: Run, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run.put_identity()
    write_durably(run.folder / "other.key", key_to_pem(make_key("other")), mode=0o600)
    assert run(*arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert any(word in line for word in words.split("|"))
    assert line.startswith("est-client: ")
    assert run.server.attempts == 0


@pytest.mark.conformance("AUTH-19")
def test_nothing_is_trusted_unasked(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("enroll", "--key", "device.key", trust=False) == 2
    assert "--system-trust" in capsys.readouterr().err
    assert not (run.folder / "device.key").exists()


def test_a_place_that_cannot_be_written(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cacerts", "--out", "no such folder/out.pem") == 2
    assert "no such folder" in capsys.readouterr().err


def test_debug_adds_the_traceback(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.server.handlers = [refuse]
    assert run("enroll", "--key", "device.key", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_is_quiet(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupt(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        raise KeyboardInterrupt

    run.server.handlers = [interrupt]
    assert run("enroll", "--key", "device.key") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "est-client: interrupted"


@pytest.mark.parametrize(
    "arguments", [[], ["revoke"], ["enroll"], ["cacerts"], ["renew", "--url", "https://h"]]
)
def test_a_wrong_command_line(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2


@pytest.mark.parametrize("command", [[], ["cacerts"], ["enroll"], ["reenroll"], ["renew"]])
def test_help_has_an_example_and_the_exit_status(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert "est-client" in text
    assert "exit status" in text


def test_a_bug_is_one_line_too(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def break_down(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        raise ZeroDivisionError("oops")

    run.server.handlers = [break_down, break_down]
    assert run("enroll", "--key", "device.key") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("est-client: internal error")
    assert run("enroll", "--key", "device.key", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_verbose_says_what_is_done(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("enroll", "--key", "device.key", "--verbose") == 0
    assert "TLSv1.2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "encryption"),
    [
        (make_key("device"), BestAvailableEncryption(b"secret")),
        (x25519.X25519PrivateKey.generate(), NoEncryption()),
    ],
    ids=["encrypted", "cannot sign"],
)
def test_a_key_that_cannot_be_used(
    run: Run,
    key: PrivateKeyTypes,
    encryption: KeySerializationEncryption,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    write_durably(run.folder / "device.key", pem, mode=0o600)
    assert run("enroll", "--key", "device.key") == 2
    assert "device.key" in capsys.readouterr().err


def test_the_machines_own_anchors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", run.path("ca.pem"))
    assert run("cacerts", "--system-trust", trust=False) == 0
    assert run.server.connections[0].server.anchor_set is AnchorSet.IMPLICIT


def test_a_machine_without_anchors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", run.path("absent.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", run.path("absent"))
    assert run("cacerts", "--system-trust", trust=False) == 2


def test_trust_that_is_to_be_kept(run: Run) -> None:
    other = make_ca("another CA").certificate
    run.server.ca_certificates = [other]
    arguments = ("--url", "coaps://localhost", "--key", "device.key", "--out", "out.pem")
    assert run("cacerts", *arguments) == 3
    assert run("cacerts", *arguments, "--keep-trust") == 0
    assert run.certificates("out.pem") == [other]
