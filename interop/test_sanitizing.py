"""What is left under the build folder has no secrets in it."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from interop.sanitizing import LEFT_OUT, sanitized
from interop.transcript import Transcript

PASSWORD = "planted-pass word"
KEYS: dict[str, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey] = {
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}
FORMATS = {"pkcs8": PrivateFormat.PKCS8, "traditional": PrivateFormat.TraditionalOpenSSL}


def der(key: PrivateKeyTypes, form: str) -> bytes:
    return key.private_bytes(Encoding.DER, FORMATS[form], NoEncryption())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KEYS)
def test_private_keys_are_left_out(kind: str, form: str) -> None:
    octets = der(KEYS[kind], form)
    pem = KEYS[kind].private_bytes(Encoding.PEM, FORMATS[form], NoEncryption()).decode()
    lines = base64.encodebytes(octets).decode()
    single = base64.b64encode(octets).decode()
    folded = lines.replace("\n", "\r\n")
    hexes = b"\x84\x19\x01\x1c\x58" + octets + b"\x00"
    for written in (pem, pem[:-40], lines, single, folded, hexes.hex()):
        said = sanitized(f"before\n\n{written}\nafter\n")
        assert octets.hex()[40:80] not in said
        assert not any(line in said for line in lines.split() if len(line) > 8)
        assert LEFT_OUT in said
        assert said.startswith("before\n")
        # Of a key that is cut off nobody knows the end.
        assert ("after" in said) == (written != pem[:-40])


def test_encrypted_keys_are_left_out_too() -> None:
    octets = KEYS["ec"].private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    assert sanitized(base64.encodebytes(octets).decode()).strip() == LEFT_OUT


@pytest.mark.parametrize("kind", KEYS)
def test_the_private_half_as_text_is_left_out(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "key.der"
    file.write_bytes(der(KEYS[kind], "pkcs8"))
    command = ["openssl", "pkey", "-inform", "DER", "-in", str(file), "-noout", "-text"]
    text = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    names = ["priv:"] if kind == "ec" else ["privateExponent:", "prime1:", "coefficient:"]
    for name in names:
        first = text.partition(name)[2].split("\n")[1].strip()
        assert len(first) > 20
        assert first not in sanitized(text)
    assert "pub:" in sanitized(text) or "modulus:" in sanitized(text)


@pytest.mark.parametrize(
    "line",
    [
        f"--userpass operator:{PASSWORD}",
        f"{{'password': '{PASSWORD}'}}",
        base64.b64encode(f"operator:{PASSWORD}".encode()).decode(),
        "Authorization: Basic cGxhbnRlZA==",
        '> authorization: Digest username="operator", response="0123456789abcdef"',
        "Master-Key: 00112233445566778899AABBCCDDEEFF",
        f"CLIENT_TRAFFIC_SECRET_0 {'ab' * 32} {'cd' * 32}",
        f"CLIENT_RANDOM {'ab' * 32} {'cd' * 48}",
    ],
)
def test_passwords_and_session_keys_are_left_out(line: str) -> None:
    said = sanitized(f"before\n{line}\nafter", [PASSWORD])
    assert LEFT_OUT in said
    assert (said.startswith("before\n"), said.endswith("\nafter")) == (True, True)
    for secret in (PASSWORD, "cGxhbnRlZA", "cdcd", "0123456789abcdef", "00112233", "b3BlcmF0b3I6"):
        assert secret not in said


def test_what_is_public_stays() -> None:
    certificate = base64.encodebytes(b"\x30\x03\x02\x01\x05" * 40).decode()
    text = f'HTTP/1.1 401 Unauthorized\nWWW-Authenticate: Digest realm="EST"\n\n{certificate}\n'
    assert sanitized(text, [PASSWORD]) == text


def test_nothing_that_a_program_says_or_is_told_gets_into_the_files(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "kept", tmp_path)
    transcript.conceal(PASSWORD)
    key = base64.encodebytes(der(KEYS["ec"], "pkcs8")).decode()
    script = "import sys; print(sys.argv[1]); print(sys.argv[2], file=sys.stderr)"
    done = transcript.run([sys.executable, "-c", script, key, f"user:{PASSWORD}"])
    transcript.note(["coap-client"], "ended", b"\x84" + der(KEYS["ec"], "pkcs8"))
    transcript.write("by-hand", f"{key}\n{PASSWORD}\n")
    # The test itself sees everything.
    assert key.encode() in done.out
    kept = "".join(file.read_text() for file in (tmp_path / "kept").iterdir())
    assert len(list((tmp_path / "kept").iterdir())) == 3
    assert "\\x02" not in kept
    for secret in (PASSWORD, *key.split()):
        assert secret not in kept
