"""A signature over a whole list, in a file of its own."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from est_server.devices.refusals import SignatureRejected
from est_server.devices.signatures.detached_cms import DetachedCms
from est_server.devices.signatures.detached_jws import DetachedJws
from est_server.devices.signatures.signed import Signed
from est_server.devices.signatures.signers import ListSigner

#: Larger files are no signatures, even with all their certificates.
MAX_OCTETS = 1_000_000

_PEM = re.compile(rb"\s*-----BEGIN (CMS|PKCS7)-----([A-Za-z0-9+/=\s]*)-----END (CMS|PKCS7)-----\s*")


class DetachedSignature(Protocol):
    """A signature that waits for the octets that it is over."""

    def update(self, octets: bytes) -> None:
        """Take the next octets of the list."""
        ...

    def verify(self, signers: Iterable[ListSigner], now: datetime) -> Signed:
        """Judge the signature over all octets so far.

        :raises SignatureRejected: it does not verify, or nobody made it who may.
        """
        ...


def read_signature(octets: bytes) -> DetachedSignature:
    """The signature in a file: CMS in DER or PEM, or a JWS, compact or as JSON.

    :raises SignatureRejected: it is something else, or one that is never believed.
    """
    if len(octets) > MAX_OCTETS:
        raise SignatureRejected(f"the signature has more than {MAX_OCTETS} octets")
    pem = _PEM.fullmatch(octets)
    if pem is not None:
        try:
            return DetachedCms(base64.b64decode(b"".join(pem[2].split()), validate=True))
        except binascii.Error as error:
            raise SignatureRejected("the signature is not readable PEM") from error
    if octets[:1] == b"\x30":
        return DetachedCms(octets)
    try:
        return DetachedJws(octets.decode("ascii").strip())
    except UnicodeDecodeError as error:
        raise SignatureRejected("the signature is neither CMS nor a JWS") from error
