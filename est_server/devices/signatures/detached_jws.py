"""A detached JWS (RFC 7515 appendix F), with its payload in base64url or as it is (RFC 7797)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime

from est_server.devices.refusals import SignatureRejected
from est_server.devices.signatures.jws import (
    ALGORITHMS,
    decode_base64url,
    jws_verifies,
    read_header,
)
from est_server.devices.signatures.signed import Signed
from est_server.devices.signatures.signers import ListSigner, find_signer
from est_server.devices.strict_json import NotStrictJson, load_object


class DetachedJws:
    """A detached JWS that waits for its payload.

    :param text: the JWS in compact or flattened JSON serialization.
    :raises SignatureRejected: it is something else, not detached, or one that is never believed.
    """

    def __init__(self, text: str) -> None:
        protected, signature = _parts(text)
        self._header = read_header(protected)
        self._signature = decode_base64url(signature, "the signature")
        self._hash = hashlib.new(ALGORITHMS[self._header.alg].hash.name)
        self._hash.update(f"{protected}.".encode())
        self._rest = b""

    def update(self, octets: bytes) -> None:
        """Take the next octets of the list."""
        if not self._header.b64:
            self._hash.update(octets)
            return
        # Three octets become four characters, so only whole threes can be written already.
        octets = self._rest + octets
        whole = len(octets) - len(octets) % 3
        self._hash.update(base64.urlsafe_b64encode(octets[:whole]))
        self._rest = octets[whole:]

    def verify(self, signers: Iterable[ListSigner], now: datetime) -> Signed:
        """Judge the signature over all octets so far; ends it.

        :raises SignatureRejected: it does not verify, or nobody made it who may.
        """
        self._hash.update(base64.urlsafe_b64encode(self._rest).rstrip(b"="))
        self._rest = b""
        digest = self._hash.digest()
        believed = find_signer(
            signers,
            lambda key: jws_verifies(key, self._header.alg, self._signature, digest),
            sent=self._header.certificates,
            signed_at=self._header.signed_at,
            now=now,
        )
        return Signed(believed.signer, self._header.signed_at)


def _parts(text: str) -> tuple[str, str]:
    """The protected header and the signature."""
    if not text.startswith("{"):
        protected, *rest = text.split(".")
        if len(rest) != 2:
            raise SignatureRejected("the signature is neither CMS nor a JWS")
        if rest[0]:
            raise SignatureRejected("the JWS is not detached: it has a payload of its own")
        return protected, rest[1]
    try:
        members = load_object(text)
    except NotStrictJson as error:
        raise SignatureRejected(f"the JWS is {error}") from error
    if members.keys() - {"header"} != {"protected", "signature"}:
        raise SignatureRejected("the JWS is not flattened and detached (RFC 7515 appendix F)")
    header, signature = members["protected"], members["signature"]
    if not isinstance(header, str) or not isinstance(signature, str):
        raise SignatureRejected("protected and signature of the JWS are not both strings")
    return header, signature
