"""A CA and the generation after it."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from est_protocol.chain import verify_chain
from est_protocol.errors import CertificateRejected, ConfigurationError
from est_protocol.keys import generate_key, spki_sha256
from est_protocol.trust_anchors import read_ca_certificates
from est_server.authorities.creation import NewCa, create_ca, issue_server_certificate
from est_server.authorities.local import LocalAuthority
from est_server.authorities.rollover import RolledOver, roll_over
from est_server.authorities.signers.key import KeySigner
from est_server.cli import main
from est_server.config import load_config
from tests.pki import make_ca, make_key

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def old() -> NewCa:
    return create_ca("Acme", now=NOW - 9 * 365 * DAY, root_validity=3650 * DAY)


@pytest.fixture
def new(old: NewCa) -> RolledOver:
    return roll_over(old.root_key, old.root, old.issuing, now=NOW)


def authority(new: RolledOver) -> LocalAuthority:
    return LocalAuthority(
        KeySigner(new.ca.issuing_key), new.ca.issuing, (new.ca.root,), rollover=new.certificates
    )


def leaf_of(ca: NewCa) -> x509.Certificate:
    return issue_server_certificate(
        KeySigner(ca.issuing_key), ca.issuing, make_key("server").public_key(), ["h"], now=NOW
    )


@pytest.mark.conformance("CA-07")
async def test_cacerts_has_all_four_certificates_of_the_roots(old: NewCa, new: RolledOver) -> None:
    answer = await authority(new).ca_certificates(None)
    roots = [c for c in answer if c.subject == c.issuer == old.root.subject]
    keys = {"old": spki_sha256(old.root.public_key()), "new": spki_sha256(new.ca.root.public_key())}
    found = {
        (name, signer)
        for certificate in roots
        for name, key in keys.items()
        for signer, issuer in (("old", old.root), ("new", new.ca.root))
        if spki_sha256(certificate.public_key()) == key and _signed(certificate, issuer)
    }
    assert found == {("old", "old"), ("old", "new"), ("new", "old"), ("new", "new")}
    assert {old.issuing, new.ca.issuing} <= set(answer)


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    return True


@pytest.mark.conformance("CA-17")
def test_the_roll_over_certificates_are_ca_certificates(old: NewCa, new: RolledOver) -> None:
    for certificate in new.certificates[:2]:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert constraints.critical
        assert constraints.value.ca
        assert usage.value.key_cert_sign
        assert certificate.subject == certificate.issuer == old.root.subject
        assert certificate.not_valid_after_utc == old.root.not_valid_after_utc


@pytest.mark.conformance("CA-07", "CA-17")
@pytest.mark.parametrize("generation", ["old", "new"])
def test_who_trusts_either_root_verifies_what_either_ca_issues(
    old: NewCa, new: RolledOver, generation: str
) -> None:
    leaf = leaf_of(old if generation == "old" else new.ca)
    bag = (new.ca.issuing, *new.certificates)
    for root in (old.root, new.ca.root):
        assert verify_chain(leaf, anchors=(root,), intermediates=bag, now=NOW)[-1] == root


@pytest.mark.conformance("CA-07", "CA-08")
async def test_a_client_finds_the_new_root_and_in_the_end_nothing_else(
    old: NewCa, new: RolledOver
) -> None:
    answer = await authority(new).ca_certificates(None)
    during = read_ca_certificates(answer, now=NOW)
    assert during.current == new.ca.root
    assert [spki_sha256(a.public_key()) for a in during.anchors] == [
        spki_sha256(ca.root.public_key()) for ca in (new.ca, old)
    ]
    after = read_ca_certificates(answer, now=old.root.not_valid_after_utc + DAY)
    assert after.anchors == (new.ca.root,)
    assert after.others == (new.ca.issuing,)
    with pytest.raises(CertificateRejected):
        verify_chain(leaf_of(old), anchors=after.anchors, intermediates=answer, now=NOW + 400 * DAY)


def test_the_issuing_ca_gets_another_name_each_time(old: NewCa, new: RolledOver) -> None:
    third = roll_over(
        new.ca.root_key, new.ca.root, new.ca.issuing, now=NOW, root_validity=26 * 365 * DAY
    )
    names = [ca.issuing.subject.rfc4514_string() for ca in (old, new.ca, third.ca)]
    assert names == ["CN=Acme Issuing CA", "CN=Acme Issuing CA G2", "CN=Acme Issuing CA G3"]


def test_what_cannot_be_rolled_over(old: NewCa) -> None:
    with pytest.raises(ConfigurationError, match="not the key of the root"):
        roll_over(generate_key("ec-p256"), old.root, old.issuing, now=NOW)
    with pytest.raises(ConfigurationError, match="valid for longest"):
        roll_over(old.root_key, old.root, old.issuing, now=NOW, root_validity=30 * DAY)
    with pytest.raises(ConfigurationError, match="has expired"):
        roll_over(old.root_key, old.root, old.issuing, now=NOW + 3650 * DAY)


def test_certificates_of_others_are_not_for_a_roll_over(old: NewCa, new: RolledOver) -> None:
    signer, chain = KeySigner(new.ca.issuing_key), (new.ca.issuing, (new.ca.root,))
    with pytest.raises(ConfigurationError, match="none of this CA's"):
        LocalAuthority(
            signer,
            *chain,
            rollover=(*new.certificates, make_ca("i", make_ca("r")).certificate),
        )
    with pytest.raises(ConfigurationError, match="no OldWithNew"):
        LocalAuthority(signer, *chain, rollover=(old.root,))
    with pytest.raises(ConfigurationError, match="is no CA certificate"):
        LocalAuthority(signer, *chain, rollover=(*new.certificates, leaf_of(old)))


# -- The command -----------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    assert main(["init", str(tmp_path / "est")]) == 0
    return tmp_path / "est" / "est-server.toml"


def rollover(config: Path, *more: str) -> int:
    root_key = str(config.parent / "ca" / "root.key")
    out = str(config.parent / "ca-2")
    arguments = ["ca", "rollover", "--config", str(config), "--root-key", root_key, "--out", out]
    return main([*arguments, *more])


def test_the_command_changes_nothing_that_is_served(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [path for path in config.parent.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    capsys.readouterr()
    assert rollover(config, "--key-type", "ec-p384") == 0
    assert {path: path.read_bytes() for path in files} == before
    said = capsys.readouterr().out
    tables = tomllib.loads(said[said.index("\n[") : said.rindex("\nDevices")])
    assert tables["authorities"]["default"]["rollover"] == "ca-2/rollover.pem"
    assert tables["authorities"]["default-before"]["certificate"] == "ca/issuing.pem"
    assert load_config(config).authorities.keys() == {"default"}
    modes = {path.name: path.stat().st_mode & 0o777 for path in (config.parent / "ca-2").iterdir()}
    assert {name for name, mode in modes.items() if mode != 0o600} == {
        *("ca.pem", "issuing.pem", "rollover.pem", "https.pem", "coaps.pem")
    }


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--authority", "other"), "no table"),
        (("--out", "{}"), "cannot make"),
        (("--root-key", "{}/ca/issuing.key"), "not the key of the root"),
        (("--root-key", "{}/ca.pem"), "mode 0644"),
    ],
)
def test_mistakes_leave_nothing_behind(
    config: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
) -> None:
    before = sorted(config.parent.rglob("*"))
    assert rollover(config, *(text.format(config.parent) for text in more)) == 2
    assert words in capsys.readouterr().err
    assert sorted(config.parent.rglob("*")) == before
