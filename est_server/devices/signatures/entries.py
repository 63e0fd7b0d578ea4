"""Signatures over the entries of a list, one by one."""

from __future__ import annotations

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


class SignedEntries:
    """Verifies the entries of one list, all of which have to be by the same list signer.

    Implements :class:`~est_server.devices.list_format.EntrySignatures`. Whether an entry is
    missing, or whether the entries come from several lists, such signatures cannot tell.

    :param now: when certificates of signers have to be valid.
    """

    def __init__(self, signers: Iterable[ListSigner], now: datetime) -> None:
        self._signers = tuple(signers)
        self._now = now
        self._signed: Signed | None = None

    def verify(self, protected: str, payload: str, signature: str) -> None:
        """Verify one JWS, given by its parts in base64url (RFC 7515 section 5.2).

        :raises SignatureRejected: it does not verify, or not with a key of the list signer.
        """
        header = read_header(protected)
        if not header.b64:
            raise SignatureRejected("the payload of the JWS is said not to be base64url")
        octets = decode_base64url(signature, "the signature")
        signing_input = f"{protected}.{payload}".encode("ascii", "strict")
        digest = hashlib.new(ALGORITHMS[header.alg].hash.name, signing_input).digest()
        believed = find_signer(
            self._signers,
            lambda key: jws_verifies(key, header.alg, octets, digest),
            sent=header.certificates,
            signed_at=header.signed_at,
            now=self._now,
        )
        self._note(Signed(believed.signer, header.signed_at))

    def _note(self, signed: Signed) -> None:
        if self._signed is None:
            self._signed = signed
        elif self._signed.signer != signed.signer:
            raise SignatureRejected(
                f"the entry is signed by {signed.signer!r}, those before it by "
                f"{self._signed.signer!r}"
            )

    def signed(self) -> Signed:
        """Who signed the entries.

        :raises SignatureRejected: there was none.
        """
        if self._signed is None:
            raise SignatureRejected("the list has no entry that is signed")
        return self._signed
