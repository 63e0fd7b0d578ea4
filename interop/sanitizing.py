"""Takes secrets out of what programs say, before it is kept."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

#: What stands in place of a secret.
LEFT_OUT = "(left out)"

#: Session keys as ``openssl s_client`` prints them.
_SESSION = re.compile(r"((?:Master-Key|Resumption PSK|TLS session ticket):) ?.*")
#: A line of a key log in NSS's format.
_KEY_LOG = re.compile(r"\b(CLIENT_RANDOM|[A-Z_]+_SECRET(?:_\d+)?) [0-9a-fA-F]+ [0-9a-fA-F]+")
_AUTHORIZATION = re.compile(r"((?:proxy-)?authorization: *(?:\w+))[^\r\n]*", re.IGNORECASE)
_PEM_KEY = re.compile(
    r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL
)
#: The private half of a key as ``openssl pkey -text`` prints it.
_KEY_TEXT = re.compile(
    r"^([ \t]*(?:priv|privateExponent|prime\d|exponent\d|coefficient):)[ \t]*"
    r"(?:\r?\n[ \t]+(?:[0-9a-f]{2}:?)+)+",
    re.MULTILINE,
)
_HEX = re.compile(r"(?<![0-9a-fA-F])((?:[0-9a-fA-F]{2}){40,})[0-9a-fA-F]?")
#: Beginnings of a private key: a SEQUENCE with a version in front.
_KEY = re.compile(rb"\x30(?:[\x10-\x7f]|\x81.|\x82..)\x02\x01[\x00\x01]", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")
#: The base64 of a SEQUENCE, in lines or not, and whatever follows it that looks like base64.
_SEQUENCE = re.compile(r"(?<![A-Za-z0-9+/])M[A-I](?:\r?\n?[A-Za-z0-9+/])+={0,2}")


def sanitized(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without private keys, session keys, HTTP credentials and ``secrets``.

    A key is found by what it is, in PEM, in base64 without PEM's lines, and as text.

    :param secrets: passwords, found as they are and in base64, such as Basic makes of them.
    """
    known = sorted(filter(None, secrets), key=len, reverse=True)
    text = _PEM_KEY.sub(LEFT_OUT, text)
    for pattern in (_SESSION, _KEY_LOG, _AUTHORIZATION, _KEY_TEXT):
        text = pattern.sub(rf"\1 {LEFT_OUT}", text)
    text = _SEQUENCE.sub(_without_key, text)
    text = _BASE64.sub(lambda found: LEFT_OUT if _holds(found[0], known) else found[0], text)
    text = _HEX.sub(
        lambda found: LEFT_OUT if holds_private_key(bytes.fromhex(found[1])) else found[0], text
    )
    for secret in known:
        text = text.replace(secret, LEFT_OUT)
    return text


def _holds(encoded: str, secrets: Iterable[str]) -> bool:
    octets = base64.b64decode(encoded[: len(encoded) // 4 * 4])
    return any(secret.encode() in octets for secret in secrets)


def _without_key(found: re.Match[str]) -> str:
    """The text without the private key that it begins with, if it does."""
    text = found[0]
    compact = "".join(text.split()).rstrip("=")
    octets = base64.b64decode(compact[: len(compact) - (len(compact) % 4 == 1)] + "==")
    size = _size(octets)
    if not _is_private_key(octets[:size]):
        return text
    left = -(-size * 4 // 3)
    for place, character in enumerate(text):
        left -= not character.isspace()
        if left == 0:
            return LEFT_OUT + text[place + 1 :].lstrip("=")
    return LEFT_OUT


def holds_private_key(octets: bytes) -> bool:
    """Whether there is the DER of a private key anywhere in ``octets``."""
    pieces = (octets[found.start() :] for found in _KEY.finditer(octets))
    return any(_is_private_key(piece[: _size(piece)]) for piece in pieces)


def _size(der: bytes) -> int:
    """The octets of the SEQUENCE that ``der`` begins with, header included."""
    if len(der) < 2 or der[1] < 0x80:
        return 2 + der[1] if len(der) > 1 else 0
    more = der[1] & 0x7F
    return 2 + more + int.from_bytes(der[2 : 2 + more], "big")


def _is_private_key(octets: bytes) -> bool:
    try:
        load_der_private_key(octets, None)
    except (UnsupportedAlgorithm, TypeError):  # A key all the same; the second is encrypted.
        return True
    except ValueError:
        return False
    return True
