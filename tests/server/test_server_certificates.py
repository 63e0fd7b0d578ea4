"""The server's own certificates: renewed by a command, and warned of in time."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from est_protocol.chain import verify_chain
from est_protocol.errors import ConfigurationError
from est_protocol.keys import generate_key
from est_server import server_certificates
from est_server.authorities.building import authority_key_identifier
from est_server.authorities.creation import begin_ca
from est_server.authorities.signers.file import read_private_key
from est_server.authorities.signers.key import KeySigner
from est_server.cautions import INTERVAL, Cautions, unsafe_settings
from est_server.cli import main
from est_server.config import load_config
from est_server.pem_files import certificates_pem, key_pem, load_certificates
from est_server.private_files import replace_file
from est_server.workers.supervisor import Supervisor
from tests import pki
from tests.loop_time import skip
from tests.server.ledger_values import FakeClock

Output = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path, capsys: Output) -> Path:
    """The configuration of a new server."""
    hosts = ("--host", "est.example", "--host", "192.0.2.1", "--host", "2001:db8::1")
    ports = ("--https-port", "0", "--coaps-port", "0")
    assert main(["init", str(tmp_path / "est"), *hosts, *ports]) == 0
    file = tmp_path / "est" / "est-server.toml"
    change(file, "allow_unsigned = true", "allow_unsigned = false")
    return file


def change(config: Path, old: str, new: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def renew(config: Path, *options: str) -> int:
    return main(["ca", "server-certificate", "--config", str(config), *options])


def contents(config: Path) -> dict[str, bytes]:
    """Every file of the server's certificates and keys."""
    return {path.name: path.read_bytes() for path in (config.parent / "server").iterdir()}


def key_fits(config: Path, name: str) -> bool:
    server = config.parent / "server"
    key = read_private_key(server / f"{name}.key", passphrase=lambda: b"secret")
    return load_certificates(server / f"{name}.pem")[0].public_key() == key.public_key()


def names_of(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_init_says_until_when_its_certificates_are_good(config: Path, capsys: Output) -> None:
    said = capsys.readouterr().out
    for name in ("https", "coaps"):
        file = config.parent / "server" / f"{name}.pem"
        end = load_certificates(file)[0].not_valid_after_utc
        assert f"{file} ends on {end:%Y-%m-%d}" in said
    assert f"est-server ca server-certificate --config {config}" in said


@pytest.mark.parametrize("options", [(), ("--new-key",)])
def test_new_certificates_take_the_place_of_the_old_ones(
    config: Path, capsys: Output, options: tuple[str, ...]
) -> None:
    before = contents(config)
    assert renew(config, "--days", "400", *options) == 0
    said = capsys.readouterr().out
    after = contents(config)
    assert after.keys() == before.keys()
    [root] = load_certificates(config.parent / "ca.pem")
    for name in ("https", "coaps"):
        old, *rest = x509.load_pem_x509_certificates(before[f"{name}.pem"])
        new, *chain = x509.load_pem_x509_certificates(after[f"{name}.pem"])
        assert chain == rest
        assert names_of(new) == names_of(old)
        assert new.serial_number != old.serial_number
        now = datetime.now(UTC)
        assert timedelta(days=399) < new.not_valid_after_utc - now <= timedelta(days=400)
        assert verify_chain(new, anchors=(root,), intermediates=tuple(chain), now=now)
        assert (after[f"{name}.key"] == before[f"{name}.key"]) is not bool(options)
        assert key_fits(config, name)
        assert f"{name}.pem is good until {new.not_valid_after_utc:%Y-%m-%d}" in said
    assert "est.example, 192.0.2.1, 2001:db8::1" in said
    assert "SIGHUP" in said


def test_renewed_files_are_as_private_as_before(config: Path) -> None:
    server = config.parent / "server"
    owner = (4711, 4712) if os.getuid() == 0 else (os.getuid(), os.getgid())
    for path in server.iterdir():
        os.chown(path, *owner)
    assert renew(config, "--new-key") == 0
    for path in server.iterdir():
        status = path.stat()
        assert (status.st_uid, status.st_gid) == owner
        assert stat.S_IMODE(status.st_mode) == (0o600 if path.suffix == ".key" else 0o644)


def test_one_transport_alone(config: Path) -> None:
    before = contents(config)
    assert renew(config, "--transport", "coaps") == 0
    after = contents(config)
    assert {name for name in after if after[name] != before[name]} == {"coaps.pem"}


@pytest.mark.parametrize("shared", ["certificate", "key"])
def test_both_transports_may_have_one_key(config: Path, shared: str) -> None:
    server = config.parent / "server"
    change(config, '"server/https.key"', '"server/coaps.key"')
    if shared == "certificate":
        change(config, '"server/https.pem"', '"server/coaps.pem"')
    else:
        replace_file(server / "https.key", (server / "coaps.key").read_bytes())
        assert renew(config, "--transport", "https") == 0
    before = contents(config)
    assert renew(config, "--new-key", "--transport", "https") == 0
    assert contents(config)["coaps.key"] != before["coaps.key"]
    assert key_fits(config, "coaps")
    for settings in (load_config(config).https, load_config(config).coaps):
        assert settings is not None
        key = read_private_key(settings.key)
        assert load_certificates(settings.certificate)[0].public_key() == key.public_key()


def test_a_key_that_is_encrypted_stays_so(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config.parent / "server" / "https.key"
    replace_file(path, key_pem(read_private_key(path), passphrase=b"secret"))
    change(config, 'https.key"', 'https.key"\nkey_passphrase_variable = "EST_SECRET"')
    assert renew(config) == 2
    monkeypatch.setenv("EST_SECRET", "secret")
    for options in ((), ("--new-key",)):
        assert renew(config, *options) == 0
        assert b"ENCRYPTED" in path.read_bytes()
        assert key_fits(config, "https")


def test_certificates_of_another_ca_are_refused(config: Path, capsys: Output) -> None:
    path = config.parent / "server" / "https.pem"
    other = pki.make_ca("other CA")
    leaf = pki.make_leaf(other, "est.example")
    path.write_bytes(certificates_pem(*leaf.chain))
    before = contents(config)
    assert renew(config) == 2
    assert f"{path}: its issuer, CN=other CA, is none of the CAs in" in capsys.readouterr().err
    assert contents(config) == before
    assert renew(config, "--transport", "coaps") == 0


def test_what_was_interrupted_is_made_good_by_the_next_time(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, content: bytes, *, private: bool = True) -> None:
        if not private:
            raise KeyboardInterrupt
        replace_file(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(server_certificates, "replace_file", fail)
        assert renew(config, "--new-key") == 1
    assert not key_fits(config, "https")
    (config.parent / "server" / ".https.pem.new").write_text("half a cert")
    assert renew(config) == 0
    assert key_fits(config, "https")
    assert contents(config).keys() == {"https.pem", "https.key", "coaps.pem", "coaps.key"}


def test_a_ca_that_has_ended_issues_nothing(config: Path, capsys: Output) -> None:
    late = datetime.now(UTC) + timedelta(days=11 * 365)
    made = server_certificates.renew_server_certificates(
        load_config(config), validity=timedelta(days=1), now=late
    )
    before = contents(config)
    with pytest.raises(ConfigurationError, match="has expired"):
        list(made)
    assert contents(config) == before


def test_the_key_of_another_ca_replaces_nothing(config: Path, capsys: Output) -> None:
    replace_file(config.parent / "ca" / "issuing.key", key_pem(generate_key("ec-p256")))
    before = contents(config)
    assert renew(config, "--new-key") == 2
    assert "issuing.key is not the key of the first certificate in" in capsys.readouterr().err
    assert contents(config) == before


def test_two_runs_at_once_are_refused(config: Path, capsys: Output) -> None:
    settings = load_config(config)
    first = server_certificates.renew_server_certificates(
        settings, new_key=True, validity=timedelta(days=9), now=datetime.now(UTC)
    )
    next(first)
    between = contents(config)
    assert renew(config, "--new-key") == 2
    assert "another run is under way" in capsys.readouterr().err
    assert contents(config) == between
    list(first)
    assert renew(config) == 0


def test_no_half_written_key_is_left(config: Path) -> None:
    left = config.parent / "server" / ".https.key.new"
    left.write_text("half a key")
    (config.parent / "server" / "https.pem").write_bytes(
        certificates_pem(*pki.make_leaf(pki.make_ca("other"), "est.example").chain)
    )
    assert renew(config) == 2
    assert not left.exists()


def reissue_ca(config: Path, days: int) -> x509.Certificate:
    """The issuing CA's certificate anew, with the same key and another end."""
    file = config.parent / "ca" / "issuing.pem"
    old, root = load_certificates(file)
    signer = KeySigner(read_private_key(config.parent / "ca" / "root.key"))
    now = datetime.now(UTC)
    new = signer.sign_certificate(
        begin_ca(
            old.subject,
            old.public_key(),
            root.subject,
            now - timedelta(days=1),
            now + timedelta(days=days),
            certificates_below=0,
        ).add_extension(authority_key_identifier(root), critical=False)
    )
    file.write_bytes(certificates_pem(new, root))
    return new


def test_the_ca_is_sent_as_it_is_configured(config: Path, capsys: Output) -> None:
    roots = {
        name: load_certificates(config.parent / "server" / f"{name}.pem")[2:]
        for name in ("https", "coaps")
    }
    issuing = reissue_ca(config, 20)
    assert renew(config) == 0
    assert capsys.readouterr().out.count("; it ends with its CA") == 2
    for made in server_certificates.load_server_certificates(load_config(config)):
        assert made.chain[1:] == (issuing, *roots[made.table])
        assert made.end == made.chain[0].not_valid_after_utc == issuing.not_valid_after_utc
        warning = made.warning(datetime.now(UTC))
        assert warning is not None
        assert "it ends with its CA; once that is replaced" in warning
    issuing = reissue_ca(config, 3000)
    assert renew(config) == 0
    assert "it ends with its CA" not in capsys.readouterr().out
    for made in server_certificates.load_server_certificates(load_config(config)):
        assert made.chain[1:] == (issuing, *roots[made.table])
        assert made.warning(datetime.now(UTC)) is None


def test_a_certificate_that_goes_alone_gets_its_ca(config: Path) -> None:
    file = config.parent / "server" / "https.pem"
    leaf, issuing, *_ = load_certificates(file)
    file.write_bytes(certificates_pem(leaf))
    https, _ = server_certificates.load_server_certificates(load_config(config))
    assert https.end == leaf.not_valid_after_utc
    assert renew(config) == 0
    assert load_certificates(file)[1:] == (issuing,)


def test_a_ca_certificate_that_ends_first_is_warned_of(config: Path) -> None:
    issuing = reissue_ca(config, 20)
    file = config.parent / "server" / "https.pem"
    leaf, _, *rest = load_certificates(file)
    file.write_bytes(certificates_pem(leaf, issuing, *rest))
    https, coaps = server_certificates.load_server_certificates(load_config(config))
    assert https.end == issuing.not_valid_after_utc
    assert https.warning(datetime.now(UTC)) is not None
    assert coaps.warning(datetime.now(UTC)) is None


def test_what_leads_from_the_root_before_stays_until_it_ends(config: Path, capsys: Output) -> None:
    directory = config.parent
    out = directory / "ca-2"
    key = str(directory / "ca" / "root.key")
    assert (
        main(["ca", "rollover", "--root-key", key, "--out", str(out), "--config", str(config)]) == 0
    )
    for name in ("https.pem", "https.key", "coaps.pem", "coaps.key"):
        change(config, f'"server/{name}"', f'"ca-2/{name}"')
    change(config, '"ca/issuing.pem"', '"ca-2/issuing.pem"')
    change(config, '"ca/issuing.key"', '"ca-2/issuing.key"')
    settings = load_config(config)
    before = server_certificates.load_server_certificates(settings)
    assert renew(config) == 0
    after = server_certificates.load_server_certificates(settings)
    assert [made.chain[1:] for made in after] == [made.chain[1:] for made in before]
    issuers = load_certificates(out / "issuing.pem")
    late = before[0].chain[2].not_valid_after_utc
    for made in after:
        left = server_certificates._sent_along(made.chain[1:], issuers, late)
        assert left == list(issuers if len(made.chain) > 3 else issuers[:1])


# -- Warnings --------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> FakeClock:
    """The present, until time passes."""
    return FakeClock(datetime.now(UTC))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return said


def test_ends_are_said_at_the_start_and_at_a_reload(
    config: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    cautions = Cautions(load_config(config), clock)
    cautions.say()
    assert warnings_of(caplog) == []
    clock.advance(days=350)
    cautions.say()
    assert [said.count("expires on") for said in warnings_of(caplog)] == [1, 1]
    clock.advance(days=50)
    assert cautions.take_over(load_config(config)) == []
    assert ["has expired" in said for said in warnings_of(caplog)] == [True, True]
    assert renew(config, "--transport", "https", "--days", "900") == 0
    cautions.say_ends()
    assert len(warnings_of(caplog)) == 2, "the server does not show the new one yet"
    [changed] = cautions.take_over(load_config(config))
    assert changed.startswith(f"{config.parent / 'server' / 'https.pem'} until 20")
    assert len(warnings_of(caplog)) == 1


def test_a_file_that_is_gone_after_a_reload_is_no_reason_to_end(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_config(config)
    cautions = Cautions(settings)
    (config.parent / "manufacturers").rmdir()
    assert cautions.take_over(settings) == []
    (config.parent / "server" / "coaps.pem").unlink()
    assert cautions.take_over(settings) == []
    assert ["manufacturers" in said for said in warnings_of(caplog)] == [True, False]


async def test_ends_are_said_every_day(
    config: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    cautions = Cautions(load_config(config), clock)
    cautions.say_ends_daily()
    clock.advance(days=360)
    for _ in range(2):
        assert warnings_of(caplog) == []
        skip(INTERVAL.total_seconds())
        while len(caplog.records) < 2:  # noqa: ASYNC110 - nothing else announces it
            await asyncio.sleep(0)
        assert len(warnings_of(caplog)) == 2


def test_the_supervisor_of_workers_says_them_every_day(
    config: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_config(config)
    clock.advance(days=360)
    cautions = Cautions(settings, clock)
    supervisor = Supervisor(settings, 1, lambda *_: 0, lambda _: None, cautions)
    began, day = time.monotonic(), INTERVAL.total_seconds()
    try:
        for now, count in ((0, 0), (day + 1, 2), (day + 60, 0), (2 * day + 2, 2)):
            supervisor._do_what_is_due(began + now)
            assert len(warnings_of(caplog)) == count
        patience = supervisor._patience(began + 2 * day)
        assert patience is not None
        assert patience < 2 * day
    finally:
        for place in supervisor._places:
            place.sockets.close()
        supervisor._selector.close()


def test_what_lets_others_in(config: Path) -> None:
    assert unsafe_settings(load_config(config)) == []
    (config.parent / "manufacturers").chmod(0o777)
    [open_folder] = unsafe_settings(load_config(config))
    change(config, "allow_unsigned = false", "allow_unsigned = true")
    unsigned, _ = unsafe_settings(load_config(config))
    assert "anybody's device list can be imported" in unsigned
    assert "can be written by others" in open_folder
