"""What a row of a list says, checked: key, UDID, attributes; the same for every format."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from est_protocol.errors import ConfigurationError
from est_protocol.keys import PublicKey, defect_of, key_kind, spki_der
from est_server.device_records import ListedDevice
from est_server.devices.list_format import ListLimits
from est_server.devices.plain_rows import (
    PUBLIC_KEY,
    SPKI_SHA256,
    UDID,
    UDID_LIMIT,
    is_p256_spki,
)

_SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}")
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9_]+")

_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]*)-----END PUBLIC KEY-----")
_NO_KEY = (
    f"{PUBLIC_KEY} is neither a PEM public key nor base64 of a DER SubjectPublicKeyInfo with a "
    "valid key"
)


class Unusable(Exception):
    """Why a row is rejected."""


def device(row: dict[str, str], limits: ListLimits) -> ListedDevice:
    """The device that a row lists.

    :param row: the row by column; emptied.
    :raises Unusable: the row is no good.
    """
    spki = key_hash(row.pop(PUBLIC_KEY, ""), row.pop(SPKI_SHA256, ""), limits)
    udid = check_udid(row.pop(UDID, "") or spki.hex())
    return ListedDevice(udid, spki, check_attributes(row, limits))


def key_hash(public_key: str, sha256: str, limits: ListLimits) -> bytes:
    """The hash of a listed key, from the key, or its hash, or both if they agree.

    :raises Unusable: neither is there, or one is no good.
    """
    if not public_key and not sha256:
        raise Unusable("neither a public key nor its hash")
    stated = _read_hash(sha256) if sha256 else None
    if not public_key:
        assert stated is not None
        return stated
    actual = _hash_of(public_key, limits)
    if stated not in (None, actual):
        raise Unusable(f"{SPKI_SHA256} is not the hash of {PUBLIC_KEY}")
    return actual


def check_udid(text: str) -> str:
    """``text`` if it is a UDID.

    :raises Unusable: it is not.
    """
    if not 1 <= len(text) <= UDID_LIMIT or not text.isprintable():
        raise Unusable(f"{UDID} is not 1 to {UDID_LIMIT} printable characters")
    return text


def check_name(name: str, limits: ListLimits) -> bool:
    """Whether an attribute may be called ``name``."""
    return _ATTRIBUTE_NAME.fullmatch(name) is not None and len(name) <= limits.attribute_name


def check_attributes(row: Mapping[str, str], limits: ListLimits) -> dict[str, str]:
    """The attributes in ``row`` that are not empty.

    :raises Unusable: one is too long or not printable.
    """
    for name, value in row.items():
        if len(value) > limits.attribute_value or not value.isprintable():
            raise Unusable(f"{name} is not up to {limits.attribute_value} printable characters")
    return {name: value for name, value in row.items() if value}


def require_strong(key: PublicKey, limits: ListLimits) -> None:
    """Check that a key may be listed.

    :raises Unusable: it is of another kind, or too short.
    """
    kind = key_kind(key)
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < limits.rsa_bits:
            raise Unusable(f"an RSA key of {key.key_size} bits is too weak")
        if defect := defect_of(key):
            raise Unusable(f"the RSA key is unsound: {defect}")
    elif kind not in limits.keys:
        raise Unusable(f"keys of kind {kind} are not accepted")


def _read_hash(cell: str) -> bytes:
    digits = cell.replace(":", "")
    if not _SHA256_HEX.fullmatch(digits):
        raise Unusable(f"{SPKI_SHA256} is not 64 hexadecimal digits")
    return bytes.fromhex(digits)


def _hash_of(cell: str, limits: ListLimits) -> bytes:
    octets = _der_of(cell)
    if is_p256_spki(octets) and "ec-p256" in limits.keys:
        return hashlib.sha256(octets).digest()
    try:
        key = load_der_public_key(octets)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unusable(_NO_KEY) from error
    require_strong(key, limits)
    canonical = spki_der(key)
    if canonical != octets and isinstance(key, ec.EllipticCurvePublicKey):
        # Devices prove possession of the octets that RFC 5480 prescribes, which hash otherwise.
        raise Unusable(f"{PUBLIC_KEY} is not a named curve with an uncompressed point (RFC 5480)")
    return hashlib.sha256(canonical).digest()


def _der_of(cell: str) -> bytes:
    if cell.startswith("-----BEGIN"):
        match = _PEM.fullmatch(cell.replace("\\n", "\n").strip())
        if match is None:
            raise Unusable(_NO_KEY)
        cell = match[1]
    try:
        return base64.b64decode("".join(cell.split()).encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise Unusable(_NO_KEY) from error


def check_columns(columns: list[str], limits: ListLimits) -> None:
    """Check the names of the columns of a table.

    :raises ConfigurationError: there are too many, or one is no name, or there twice.
    """
    if len(columns) > limits.columns:
        raise ConfigurationError(f"the list has more than {limits.columns} columns")
    for number, name in enumerate(columns, start=1):
        if not check_name(name, limits):
            raise ConfigurationError(
                f"column {number} of the list: a name is 1 to {limits.attribute_name} lower case "
                "letters, digits and underscores"
            )
        if columns.index(name) != number - 1:
            raise ConfigurationError(f"the list has two columns {name}")
