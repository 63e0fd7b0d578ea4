"""Device keys in a PKCS#11 token; SoftHSM2 stands in for a secure element."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from est_client.simulation import IdentityModel, Scenario, simulate
from est_client.simulation.token import Token, open_token
from est_protocol.errors import ConfigurationError
from est_protocol.messages import Transport

pytest.importorskip("pkcs11")
MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
pytestmark = pytest.mark.skipif(
    not MODULE.exists() or shutil.which("softhsm2-util") is None, reason="no SoftHSM2 here"
)
HTTPS = Scenario(devices=3, transport=Transport.HTTPS)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    # SoftHSM2 reads its configuration once in the life of a process.
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    command = ["softhsm2-util", "--init-token", "--free", "--label", "device"]
    subprocess.run([*command, "--pin", "1234", "--so-pin", "5678"], check=True, capture_output=True)
    with open_token(MODULE, "device", "1234") as opened:
        yield opened
    monkeypatch.undo()


def test_a_key_in_a_token_signs(token: Token) -> None:
    key = token.make_key()
    for data in (b"", b"some octets"):
        signature = key.sign(data, ec.ECDSA(hashes.SHA256()))
        key.public_key().verify(signature, data, ec.ECDSA(hashes.SHA256()))


def test_a_key_does_not_leave_its_token(token: Token) -> None:
    key = token.make_key()
    with pytest.raises(ConfigurationError, match="does not leave"):
        key.private_numbers()
    with pytest.raises(ConfigurationError, match="does not leave"):
        key.private_bytes()


def test_a_fleet_enrolls_with_keys_in_a_token(token: Token) -> None:
    result = simulate(HTTPS, make_key=token.make_key)
    assert result.success == 1.0, result.failures
    assert [device.certificates for device in result.devices] == [1, 1, 1]


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(devices=1),
        Scenario(devices=1, transport=Transport.HTTPS, renewals=1),
        Scenario(devices=1, transport=Transport.HTTPS, identity=IdentityModel.BIRTH_CERTIFICATE),
    ],
)
def test_what_openssl_would_need_the_key_for_is_refused(token: Token, scenario: Scenario) -> None:
    with pytest.raises(ConfigurationError, match="first enrollments"):
        simulate(scenario, make_key=token.make_key)


@pytest.mark.parametrize(
    ("module", "label", "pin"),
    [("/nowhere.so", "device", "1234"), (MODULE, "other", "1234"), (MODULE, "device", "0000")],
)
@pytest.mark.usefixtures("token")
def test_there_is_no_such_token(module: str, label: str, pin: str) -> None:
    with pytest.raises(ConfigurationError), open_token(module, label, pin):
        pytest.fail("it was opened")
