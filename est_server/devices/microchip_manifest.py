"""The manifest of secure elements of Microchip's Trust Platform, as their documentation has it.

A JSON array of flattened JWS objects (RFC 7515 section 7.2.2), one for each secure element::

    [ { "payload":   BASE64URL(SecureElement),
        "protected": BASE64URL({ "alg": "ES256", "kid": ..., "x5t#S256": ... }),
        "header":    { "uniqueId": "0123f1822c38dd7a01" },
        "signature": BASE64URL(...) }, ... ]

    SecureElement = { "version": 1, "model": ..., "partNumber": ..., "manufacturer": EntityName,
        "provisioner": EntityName, "distributor": EntityName, "groupId": ...,
        "provisioningTimestamp": "2019-01-24T16:35:23.473Z", "uniqueId": "0123f1822c38dd7a01",
        "publicKeySet": { "keys": [ PublicJWK, ... ] }, "encryptedSecretKeySet": ... }

    PublicJWK = { "kid": "0", "kty": "EC", "crv": "P-256", "x": ..., "y": ..., "x5c": [...] }

The UDID is ``uniqueId``. An element has several keys, of which one is its identity: the one with
the ``kid`` (slot) of :attr:`ListLimits.manifest_key`, or its only one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from est_protocol.certs_only import decode_certificate
from est_protocol.errors import ConfigurationError, MessageError
from est_protocol.keys import PublicKey, spki_sha256
from est_server.device_records import ListedDevice, ListRow
from est_server.devices.json_array import ArrayEntries
from est_server.devices.list_format import EntrySignatures, ListLimits, RejectedRow
from est_server.devices.refusals import SignatureRejected
from est_server.devices.row_values import (
    Unusable,
    check_attributes,
    check_udid,
    require_strong,
)
from est_server.devices.signatures.jws import decode_base64url
from est_server.devices.strict_json import NotStrictJson, load_object

Members = Mapping[str, object]

_CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
    "P-521": (ec.SECP521R1(), 66),
}
_ATTRIBUTES = {
    "model": "model",
    "partNumber": "part_number",
    "groupId": "group_id",
    "provisioningTimestamp": "provisioned_at",
}
_ENTITIES = ("manufacturer", "provisioner", "distributor")


class MicrochipManifest:
    """The format ``microchip-manifest``."""

    signs_entries = True

    def recognizes(self, head: bytes) -> bool:
        """Whether the list begins with an array."""
        return head.decode("utf-8-sig", "replace").lstrip().startswith("[")

    def read(
        self, file: BinaryIO, limits: ListLimits, signatures: EntrySignatures | None
    ) -> Iterator[ListRow | RejectedRow]:
        """Read a manifest entry by entry, in constant memory.

        :raises ConfigurationError: it is no array, has too many entries, or cannot be read.
        """
        number = 0
        for number, entry in enumerate(ArrayEntries(file, limits.row_octets), start=1):
            if number > limits.rows:
                raise ConfigurationError(f"the list has more than {limits.rows} entries")
            try:
                yield ListRow.of(number, _read_entry(entry, limits, signatures))
            except (Unusable, SignatureRejected, NotStrictJson) as error:
                yield RejectedRow(number, str(error))
        if not number:
            raise ConfigurationError("the list is empty")


def _read_entry(
    entry: object, limits: ListLimits, signatures: EntrySignatures | None
) -> ListedDevice:
    if not isinstance(entry, dict):
        raise Unusable("not a JSON object")
    payload = _text(entry, "payload")
    if signatures is not None:
        signatures.verify(_text(entry, "protected"), payload, _text(entry, "signature"))
    element = load_object(decode_base64url(payload, "the payload"))
    udid = check_udid(_text(element, "uniqueId"))
    header = entry.get("header", {})
    if not isinstance(header, dict) or header.get("uniqueId", udid) != udid:
        raise Unusable("the uniqueId beside the payload is another one than in it")
    key = _identity_key(element, limits)
    return ListedDevice(udid, spki_sha256(key), check_attributes(_attributes(element), limits))


def _text(members: Members, name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value.isascii():
        raise Unusable(f"{name} is missing or no string")
    return value


def _attributes(element: Members) -> dict[str, str]:
    found = {ours: element.get(theirs) for theirs, ours in _ATTRIBUTES.items()}
    for name in _ENTITIES:
        entity = element.get(name)
        found[name] = entity.get("organizationName") if isinstance(entity, dict) else None
    return {name: value.strip() for name, value in found.items() if isinstance(value, str)}


def _identity_key(element: Members, limits: ListLimits) -> PublicKey:
    key_set = element.get("publicKeySet")
    keys = key_set.get("keys") if isinstance(key_set, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys) or not keys:
        raise Unusable("the entry has no public keys")
    wanted = limits.manifest_key
    found = keys if len(keys) == 1 else [key for key in keys if key.get("kid") == wanted]
    if len(found) != 1:
        raise Unusable(f"not exactly one of its {len(keys)} keys has the kid {wanted!r}")
    key = _read_jwk(found[0])
    require_strong(key, limits)
    _check_certificate(found[0], key)
    return key


def _read_jwk(jwk: Members) -> PublicKey:
    """The key in a JWK (RFC 7518 section 6)."""
    kind = jwk.get("kty")
    if kind == "EC":
        return _read_point(jwk)
    if kind != "RSA":
        raise Unusable(f"keys of kind {_short(kind)} are not accepted")
    n, e = (int.from_bytes(decode_base64url(_text(jwk, name), name), "big") for name in ("n", "e"))
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError as error:
        raise Unusable("n and e are no RSA key") from error


def _read_point(jwk: Members) -> PublicKey:
    curve_name = jwk.get("crv")
    if not isinstance(curve_name, str) or curve_name not in _CURVES:
        raise Unusable(f"keys of kind EC {_short(curve_name)} are not accepted")
    curve, octets = _CURVES[curve_name]
    x, y = (decode_base64url(_text(jwk, name), name) for name in ("x", "y"))
    # All octets of the field, leading zeros included (RFC 7518 section 6.2.1.2).
    if len(x) != octets or len(y) != octets:
        raise Unusable(f"x and y have not {octets} octets")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError as error:
        raise Unusable(f"x and y are no point on {curve_name}") from error


def _short(value: object) -> str:
    return repr(value)[:40]


def _check_certificate(jwk: Members, key: PublicKey) -> None:
    """Check that the certificate of a key, if there is one, is over that key."""
    chain = jwk.get("x5c", [])
    if not isinstance(chain, list):
        raise Unusable("x5c is no list")
    for text in chain[:1]:
        if _certificate(text).public_key() != key:
            raise Unusable("the certificate in x5c is over another key")


def _certificate(text: object) -> x509.Certificate:
    try:
        return decode_certificate(base64.b64decode(str(text), validate=True))
    except (MessageError, binascii.Error, ValueError) as error:
        raise Unusable("x5c has something else than certificates in it") from error
